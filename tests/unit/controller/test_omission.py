"""One object cannot be carried: what else stays behind with it, and when nothing may."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.controller.omission import (
    carried_of,
    carries,
    omitted_with,
    omitted_without_secret,
    was_never_carried,
)
from frontinus.controller.plan import Verdict
from frontinus.model.certificates import SecretKind, SecretUse
from frontinus.model.enums import FaultPhase, Kind, ListenerProtocol, ProvisioningStatus
from frontinus.model.errors import Subject
from frontinus.model.ids import AmphoraId, L7PolicyId, ListenerId, LoadBalancerId, PoolId, ProjectId
from frontinus.model.tree import Amphora, Fault, LoadBalancerTree, Receipt

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


@pytest.mark.parametrize(
    "subject, expected",
    [
        pytest.param("member", {"member"}, id="a member alone"),
        pytest.param("listener", {"listener"}, id="a listener alone"),
        pytest.param("policy", {"policy", "listener"}, id="never a listener without its policy"),
        pytest.param("rule", {"rule", "policy", "listener"}, id="nor a policy without its rule"),
        pytest.param("pool", {"pool", "listener"}, id="a pool with the listener before it"),
        pytest.param("load_balancer", None, id="not the load balancer"),
    ],
)
def test_where_nobody_serves_whatever_cannot_be_carried_is_left_out(subject: str, expected: set[str] | None) -> None:
    found = omitted_with(site(), Subject(Kind.MEMBER, subject), served=False)
    assert expected == (None if found is None else set(found))


TLS = {**LIVE, "protocol": ListenerProtocol.TERMINATED_HTTPS}


def partly(*references: str) -> Fault:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    return Fault(code="secret-unreadable", phase=FaultPhase.SECRET, message="m", since=since, without=references)


def by(field: str, reference: str = "ref:x", object_id: str = "listener", kind: Kind = Kind.LISTENER) -> SecretUse:
    return SecretUse(SecretKind.CERTIFICATE, reference, kind, object_id, field)


OF_POOL = by("ca_tls_container_ref", object_id="pool", kind=Kind.POOL)


@pytest.mark.parametrize(
    "fields, use, served, expected",
    [
        pytest.param({}, by("sni_container_refs"), True, None, id="what is served stays whole: a name"),
        pytest.param({}, by("sni_container_refs"), False, {"listener": ("ref:x",)}, id="one name of several"),
        pytest.param(
            {"default_tls_container_ref": None, "sni_container_refs": ("ref:x",)},
            by("sni_container_refs"),
            False,
            {"listener": ()},
            id="the only certificate",
        ),
        pytest.param(
            {"default_tls_container_ref": None},
            by("sni_container_refs"),
            False,
            {"listener": ("ref:x",)},
            id="one name of two, and no default",
        ),
        pytest.param({}, by("default_tls_container_ref"), False, {"listener": ()}, id="the default"),
        pytest.param({}, by("default_tls_container_ref"), True, None, id="what is served stays whole: the default"),
        pytest.param({}, by("client_ca_tls_container_ref"), False, {"listener": ()}, id="whose clients to trust"),
        pytest.param({}, by("client_crl_container_ref"), False, {"listener": ()}, id="which of them not to"),
        pytest.param(
            {"fault": partly("ref:x")}, by("sni_container_refs"), True, {"listener": ("ref:x",)}, id="already without"
        ),
        pytest.param(
            {"fault": partly("ref:x")}, by("sni_container_refs", "ref:y"), True, None, id="another is served still"
        ),
        pytest.param(NEW, by("sni_container_refs"), True, {"listener": ("ref:x",)}, id="a name of a new listener"),
        pytest.param(NEW, by("default_tls_container_ref"), True, {"listener": ()}, id="the default of a new listener"),
        pytest.param({}, OF_POOL, False, {"pool": ("ref:x",), "member": ()}, id="a pool stays, without members"),
        pytest.param({}, OF_POOL, True, None, id="what is served stays whole: a pool"),
    ],
)
def test_what_goes_with_a_secret(
    fields: dict[str, Any], use: SecretUse, served: bool, expected: dict[str, tuple[str, ...]] | None
) -> None:
    held = {"default_tls_container_ref": "ref:d", "sni_container_refs": ("ref:x", "ref:y")}
    listening = listener(**{**TLS, **held, **fields})
    site = tree(listening, pool(**LIVE), member(**LIVE))
    assert expected == omitted_without_secret(site, use, served=served)


def test_a_pool_that_has_no_members_already_gets_none() -> None:
    site = tree(pool(**LIVE, fault=partly("ref:y")), member(**LIVE))
    assert omitted_without_secret(site, OF_POOL) == {"pool": ("ref:x",), "member": ()}


def test_what_is_carried_partly_is_carried_for_the_rest() -> None:
    listening = listener(
        **TLS, default_pool_id=PoolId("pool"), default_tls_container_ref="ref:d", sni_container_refs=("ref:x", "ref:y")
    )
    site = tree(
        listening, pool(**LIVE, ca_tls_container_ref="ref:x"), pool(id="other"), member(**LIVE), listener(id="l2")
    )
    left_out = {"listener": partly("ref:x"), "pool": partly("ref:x"), "l2": partly()}
    carried = carried_of(site, left_out)
    assert [(x.id, x.sni_container_refs) for x in carried.listeners] == [("listener", ("ref:y",))]
    assert carried.listeners[0].default_tls_container_ref == "ref:d"
    assert [(x.id, x.ca_tls_container_ref) for x in carried.pools] == [("pool", None), ("other", None)]
    assert carried.members == ()
    assert carried_of(site, {}) == site.wanted()


@pytest.mark.parametrize(
    "judged, has_receipt, expected",
    [
        pytest.param(Verdict.SERVING, True, True, id="it serves"),
        pytest.param(Verdict.SERVING, False, False, id="nothing was ever pushed"),
        pytest.param(Verdict.WAIT, True, True, id="it may serve"),
        pytest.param(Verdict.UNWANTED, True, True, id="it serves until it goes"),
        pytest.param(Verdict.STOPPED_ON_PURPOSE, True, True, id="it comes back as it was"),
        pytest.param(Verdict.REVIVE, True, True, id="its balancer serves"),
        pytest.param(Verdict.DEAD, True, False, id="dead"),
        pytest.param(Verdict.STARTING, False, False, id="not there yet"),
    ],
)
def test_who_carries_what_was_carried_before(judged: Verdict, has_receipt: bool, expected: bool) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    receipt = Receipt(generation=1, digest="d", driver_version="1", applied_at=now, action="reload")
    amphora = Amphora(
        id=AmphoraId("a"),
        load_balancer_id=LoadBalancerId("l"),
        project_id=ProjectId("p"),
        created_at=now,
        receipt=receipt if has_receipt else None,
    )
    assert expected == carries(amphora, judged)
