"""What a request moves: the statuses of behaviours.yaml transitions_at_request, the generation, positions, possessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.model import edits
from frontinus.model.enums import L7PolicyAction, OperatingStatus, ProvisioningStatus
from frontinus.model.ids import PoolId
from frontinus.model.tree import LoadBalancerTree, TreeChild

from tests.contract import facts
from tests.unit.model import samples
from tests.unit.model.samples import LATER, health_monitor, l7_policy, l7_rule, listener, member, pool

BEFORE = samples.one_of_everything()
_WORDS = {
    "loadbalancer": "lb",
    "listener": "listener",
    "attached listeners": "listener",
    "listener (if listener_id)": "listener",
    "pool": "pool",
    "member": "member",
    "healthmonitor": "monitor",
    "l7policy": "policy",
    "l7rule": "rule",
}
"""What transitions_at_request calls an object, and its id in the sample tree."""

_NEW: dict[str, TreeChild] = {
    "listener": listener(id="new", protocol_port=81),
    "pool": pool(id="new"),
    "member": member(id="new", address="192.0.2.9"),
    "healthmonitor": health_monitor(id="new"),
    "l7policy": l7_policy(id="new"),
    "l7rule": l7_rule(id="new"),
}


def statuses(tree: LoadBalancerTree) -> dict[str, ProvisioningStatus]:
    return {x.id: x.provisioning_status for x in (tree.load_balancer, *tree.children())}


def child(tree: LoadBalancerTree, object_id: str) -> Any:
    return next(x for x in tree.children() if x.id == object_id)


def edit(name: str) -> LoadBalancerTree:
    kind, operation = name.split()
    if kind == "loadbalancer":
        if operation == "update":
            return edits.update_load_balancer(BEFORE, replace(BEFORE.load_balancer, name="x"), LATER)
        return {"delete": edits.delete_load_balancer, "failover": edits.request_failover}[operation](BEFORE, LATER)
    target = child(BEFORE, _WORDS[kind])
    if operation == "create":
        return edits.apply(BEFORE, LATER, create=[_NEW[kind]])
    if operation == "update":
        return edits.apply(BEFORE, LATER, update=[target])
    return edits.apply(BEFORE, LATER, delete=[target])


_EDITS = [
    pytest.param(name, moved, id=name)
    for name, moved in facts.behaviours()["states"]["transitions_at_request"].items()
    if name.split()[0] in ("loadbalancer", *_NEW) and name.split()[1] in ("create", "update", "delete", "failover")
    if name not in ("loadbalancer create", "loadbalancer create nested")
]


@pytest.mark.parametrize("name, moved", _EDITS)
def test_edit_moves_what_the_contract_says_and_nothing_else(name: str, moved: dict[str, str]) -> None:
    kind, operation = name.split()
    expected = statuses(BEFORE)
    for word, status in moved.items():
        if word == "children" or (name == "pool create" and word.startswith("listener")):
            continue  # unchanged; or only when the request names a listener, which is an update beside the create
        object_id = "new" if word == kind and operation == "create" else _WORDS[word]
        expected[object_id] = ProvisioningStatus(status)
    # What is deleted takes what it owns along.
    owned = {"pool delete": ("member", "monitor"), "listener delete": ("policy", "rule"), "l7policy delete": ("rule",)}
    for possession in owned.get(name, ()):
        expected[possession] = ProvisioningStatus.PENDING_DELETE
    assert statuses(edit(name)) == expected


@pytest.mark.parametrize("name, moved", _EDITS)
def test_every_edit_is_one_step_of_the_generation(name: str, moved: dict[str, str]) -> None:
    after = edit(name)
    assert after.load_balancer.generation == BEFORE.load_balancer.generation + 1
    assert after.load_balancer.updated_at == LATER
    touched = {x.id for x in after.children() if x.changed_generation == after.load_balancer.generation}
    settled_before = statuses(BEFORE)
    assert touched == {key for key, status in statuses(after).items() if status != settled_before.get(key)} - {"lb"}


def test_second_edit_of_what_is_still_being_created_leaves_it_being_created() -> None:
    once = edits.apply(BEFORE, LATER, create=[member(id="new", address="192.0.2.9")])
    twice = edits.apply(once, LATER, update=[replace(child(once, "new"), weight=7)])
    assert child(twice, "new").provisioning_status is ProvisioningStatus.PENDING_CREATE
    assert child(twice, "new").weight == 7
    assert twice.load_balancer.generation == 3


def test_pool_that_goes_leaves_its_listeners() -> None:
    after = edits.apply(BEFORE, LATER, delete=[child(BEFORE, "pool")])
    assert child(after, "listener").default_pool_id is None
    assert child(after, "pool").delete_requested
    assert child(after, "member").delete_requested


def test_members_are_unwatched_when_their_monitor_goes() -> None:
    after = edits.apply(BEFORE, LATER, delete=[child(BEFORE, "monitor")])
    assert child(after, "member").operating_status is OperatingStatus.NO_MONITOR


def test_pool_put_before_a_listener_is_created_with_it_attached() -> None:
    fresh = pool(id="new")
    attached = replace(child(BEFORE, "listener"), default_pool_id=PoolId("new"))
    after = edits.apply(BEFORE, LATER, create=[fresh], update=[attached])
    assert statuses(after)["new"] is ProvisioningStatus.PENDING_CREATE
    assert statuses(after)["listener"] is ProvisioningStatus.PENDING_UPDATE
    assert statuses(after)["pool"] is ProvisioningStatus.ACTIVE


def test_batch_is_one_generation_however_many_members() -> None:
    fresh = [member(id=f"m{n}", address=f"192.0.2.{n}") for n in range(10, 60)]
    after = edits.apply(BEFORE, LATER, create=fresh, delete=[child(BEFORE, "member")])
    assert after.load_balancer.generation == 2
    assert [x.id for x in after.wanted().members] == [x.id for x in fresh]


POLICIES = samples.tree(listener(), *(l7_policy(id=name, position=n) for n, name in enumerate("abcd", 1)))


def order(tree: LoadBalancerTree) -> list[tuple[str, int]]:
    return [(x.id, x.position) for x in tree.wanted().l7_policies_of("listener")]


@pytest.mark.parametrize(
    "change, expected",
    [
        pytest.param(
            lambda: edits.apply(POLICIES, LATER, create=[l7_policy(id="new", position=2)]), "a new b c d", id="insert"
        ),
        pytest.param(
            lambda: edits.apply(POLICIES, LATER, create=[l7_policy(id="new", position=999)]), "a b c d new", id="append"
        ),
        pytest.param(lambda: edits.apply(POLICIES, LATER, delete=[child(POLICIES, "b")]), "a c d", id="delete"),
        pytest.param(
            lambda: edits.apply(POLICIES, LATER, update=[replace(child(POLICIES, "d"), position=1)]),
            "d a b c",
            id="to the front",
        ),
    ],
)
def test_positions_count_from_one_without_gaps(change: Callable[[], LoadBalancerTree], expected: str) -> None:
    assert order(change()) == [(name, n) for n, name in enumerate(expected.split(), 1)]


def test_redirect_target_s_listeners_are_attached() -> None:
    redirect = l7_policy(action=L7PolicyAction.REDIRECT_TO_POOL, redirect_pool_id=PoolId("pool"))
    before = samples.tree(listener(), pool(), redirect, l7_rule(), member())
    after = edits.apply(before, LATER, update=[member(weight=3)])
    assert statuses(after)["listener"] is ProvisioningStatus.PENDING_UPDATE
