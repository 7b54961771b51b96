"""From what a provider's driver knows to what is wanted, call by call."""

from __future__ import annotations

import random
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.model.enums import ProvisioningStatus
from frontinus.model.provider_calls import ProviderCall, essence, next_call
from frontinus.model.tree import LoadBalancerTree

from tests.unit.drivers.trees import (
    a_listener,
    a_load_balancer,
    a_member,
    a_monitor,
    a_policy,
    a_pool,
    a_rule,
    a_tree,
)


def of(tree: LoadBalancerTree) -> LoadBalancerTree:
    found = essence(tree)
    assert found is not None
    return found


WHOLE = of(
    a_tree(
        a_load_balancer(),
        listeners=[a_listener()],
        pools=[a_pool()],
        members=[a_member(30), a_member(31)],
        monitors=[a_monitor()],
        policies=[a_policy()],
        rules=[a_rule()],
    )
)


def walk(settled: LoadBalancerTree | None, wanted: LoadBalancerTree | None) -> list[ProviderCall]:
    """Every call until nothing is left."""
    made: list[ProviderCall] = []
    while (call := next_call(settled, wanted)) is not None:
        made.append(call)
        settled = call.then
        assert len(made) < 100, [x.name for x in made]
    assert _sets(settled) == _sets(wanted)
    return made


def _sets(tree: LoadBalancerTree | None) -> object:
    return None if tree is None else (tree.load_balancer, {x.id: x for x in tree.children()})


def names(settled: LoadBalancerTree | None, wanted: LoadBalancerTree | None) -> list[str]:
    return [call.name for call in walk(settled, wanted)]


def test_a_whole_tree_is_made_parents_first() -> None:
    assert names(None, WHOLE) == [
        "loadbalancer_create",
        "pool_create",
        "listener_create",
        "member_batch_update",
        "health_monitor_create",
        "l7policy_create",
        "l7rule_create",
    ]


@pytest.mark.parametrize(
    "wanted, expected",
    [
        pytest.param(WHOLE, [], id="nothing"),
        pytest.param(
            replace(WHOLE, load_balancer=replace(WHOLE.load_balancer, name="other")), ["loadbalancer_update"], id="name"
        ),
        pytest.param(replace(WHOLE, members=WHOLE.members[:1]), ["member_delete"], id="a member goes"),
        pytest.param(replace(WHOLE, members=(*WHOLE.members, a_member(32))), ["member_create"], id="a member comes"),
        pytest.param(replace(WHOLE, members=()), ["member_batch_update"], id="all members go"),
        pytest.param(
            replace(WHOLE, members=(WHOLE.members[0], replace(WHOLE.members[1], weight=9))),
            ["member_update"],
            id="a weight",
        ),
        pytest.param(WHOLE.without({WHOLE.listeners[0].id}), ["listener_delete"], id="a listener with its policy"),
        pytest.param(
            WHOLE.without({WHOLE.pools[0].id}),
            ["listener_update", "pool_delete"],
            id="a pool with its members and its monitor",
        ),
        pytest.param(WHOLE.without({WHOLE.l7_policies[0].id}), ["l7policy_delete"], id="a policy with its rule"),
        pytest.param(WHOLE.without({WHOLE.l7_rules[0].id}), ["l7rule_delete"], id="a rule"),
        pytest.param(WHOLE.without({WHOLE.health_monitors[0].id}), ["health_monitor_delete"], id="a monitor"),
        pytest.param(None, ["loadbalancer_delete"], id="everything"),
    ],
)
def test_one_call_for_each_change(wanted: LoadBalancerTree | None, expected: list[str]) -> None:
    assert names(WHOLE, wanted) == expected


def test_what_never_was_is_not_deleted() -> None:
    assert names(None, None) == []


def test_reports_and_words_of_ours_make_no_calls() -> None:
    listener = replace(
        WHOLE.listeners[0], provisioning_status=ProvisioningStatus.ERROR, changed_generation=9, tags=("a",)
    )
    told = replace(WHOLE, listeners=(listener,), load_balancer=replace(WHOLE.load_balancer, generation=12, tags=("b",)))
    assert names(WHOLE, of(told)) == []


@pytest.mark.parametrize("seed", range(60))
def test_any_tree_leads_to_any_other_and_no_call_refers_to_what_is_not_there(seed: int) -> None:
    dice = random.Random(seed)
    before, after = _some_tree(dice), _some_tree(dice)
    for call in walk(before, after):
        then = call.then
        assert then is not None
        pools = {x.id for x in then.pools}
        assert all(x.default_pool_id in {None, *pools} for x in then.listeners), call.name
        assert {*(x.pool_id for x in then.members), *(x.pool_id for x in then.health_monitors)} <= pools, call.name
        assert {x.listener_id for x in then.l7_policies} <= {x.id for x in then.listeners}, call.name


def _some_tree(dice: random.Random) -> LoadBalancerTree:
    pools = [a_pool(x, name=dice.choice("ab")) for x in (20, 21, 22) if dice.random() < 0.6]
    at: list[Any] = [x.id for x in pools]
    listeners = [
        replace(a_listener(x, port=x), default_pool_id=dice.choice([None, *at]))
        for x in (10, 11)
        if dice.random() < 0.7
    ]
    members = [
        replace(a_member(x), pool_id=dice.choice(at), weight=dice.choice([1, 2]))
        for x in range(30, 36)
        if at and dice.random() < 0.5
    ]
    tree = a_tree(a_load_balancer(name=dice.choice("ab")), listeners=listeners, pools=pools, members=members)
    return of(tree)
