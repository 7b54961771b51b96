"""One object cannot be carried: what else stays behind with it, and when nothing may."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.controller.omission import omitted_with, was_never_carried
from frontinus.model.enums import FaultPhase, Kind, ProvisioningStatus
from frontinus.model.errors import Subject
from frontinus.model.ids import L7PolicyId, ListenerId, PoolId
from frontinus.model.tree import Fault, LoadBalancerTree

from tests.unit.model.samples import health_monitor, l7_policy, l7_rule, listener, member, pool, tree

LIVE = {"provisioning_status": ProvisioningStatus.PENDING_UPDATE}
NEW = {"provisioning_status": ProvisioningStatus.PENDING_CREATE}


def site(**statuses: dict[str, Any]) -> LoadBalancerTree:
    """One of everything, and what is said to be new; the rest is carried already. `other` is a pool that only the
    policy leads to."""

    def of(name: str) -> dict[str, Any]:
        return statuses.get(name, LIVE)

    return tree(
        listener(default_pool_id=PoolId("pool"), **of("listener")),
        pool(**of("pool")),
        pool(id="other", **of("other")),
        member(**of("member")),
        health_monitor(**of("monitor")),
        l7_policy(redirect_pool_id=PoolId("other"), **of("policy")),
        l7_rule(**of("rule")),
    )


@pytest.mark.parametrize(
    "new, subject, expected",
    [
        pytest.param("member", "member", {"member"}, id="a new member alone"),
        pytest.param("monitor", "monitor", {"monitor"}, id="a new monitor alone"),
        pytest.param("listener", "listener", {"listener"}, id="a new listener alone"),
        pytest.param("policy", "policy", {"policy"}, id="a new policy of a listener that is carried"),
        pytest.param("listener policy", "policy", {"policy", "listener"}, id="a new listener never without its policy"),
        pytest.param("rule", "rule", {"rule"}, id="a new rule of a policy that is carried"),
        pytest.param("policy rule", "rule", {"rule", "policy"}, id="a new policy never without its rule"),
        pytest.param("listener policy rule", "rule", {"rule", "policy", "listener"}, id="all the way up"),
        pytest.param("pool listener", "pool", {"pool", "listener"}, id="a new pool with the new listener before it"),
        pytest.param("pool", "pool", None, id="not a pool that a listener was switched to"),
        pytest.param(
            "other policy", "other", {"other", "policy"}, id="a new pool with the new policy that leads to it"
        ),
        pytest.param("other", "other", None, id="not a pool that a policy was switched to"),
        pytest.param("", "member", None, id="nothing that is carried: a member"),
        pytest.param("", "listener", None, id="nothing that is carried: a listener"),
        pytest.param("member", "load_balancer", None, id="not the load balancer"),
    ],
)
def test_only_what_nobody_misses_is_left_out(new: str, subject: str, expected: set[str] | None) -> None:
    found = omitted_with(site(**dict.fromkeys(new.split(), NEW)), Subject(Kind.MEMBER, subject))
    assert expected == (None if found is None else set(found))


def test_what_was_left_out_before_is_still_not_carried_after_an_edit() -> None:
    fault = Fault(
        code="rejected", phase=FaultPhase.RENDER, message="m", since=datetime(2026, 1, 1, tzinfo=UTC), left_out=True
    )
    edited = member(provisioning_status=ProvisioningStatus.PENDING_UPDATE, fault=fault)
    blamed = replace(edited, fault=replace(fault, left_out=False))
    assert [was_never_carried(tree(x), x) for x in (edited, blamed)] == [True, False]


def test_of_a_load_balancer_that_never_was_applied_nothing_is_carried() -> None:
    failed = member(provisioning_status=ProvisioningStatus.ERROR)
    assert was_never_carried(tree(failed, applied_generation=0), failed)


def test_a_tree_without_a_pool_has_nothing_that_leads_to_it() -> None:
    less = site().without({"other"})
    assert [x.id for x in less.pools] == ["pool"]
    assert (less.l7_policies, less.l7_rules) == ((), ())
    assert less.listeners == site().listeners
    less = site().without({"pool"})
    assert (less.members, less.health_monitors) == ((), ())
    assert [x.default_pool_id for x in less.listeners] == [None]
    assert site().without({ListenerId("listener")}).l7_rules == ()
    assert [x.id for x in site().without({L7PolicyId("policy")}).pools] == ["pool", "other"]
