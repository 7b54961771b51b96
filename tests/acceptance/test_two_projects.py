"""Two projects of one OpenStack, each with tokens of its own, and a Frontinus between real services: what one has the other
can neither use nor see nor change, and what is refused has changed nothing.

    pytest -rP tests/acceptance/test_two_projects.py

prints what was tried and what was answered. By openstacksdk (its session, so that no client's own look keeps a request from
coming), and by the `openstack` command as it is typed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.foreign_wishes import (
    OF_BARBICAN,
    OF_FRONTINUS,
    OF_NEUTRON,
    TYPED,
    Belongings,
    Try,
    World,
    new_listener,
    new_load_balancer,
)
from tests.acceptance.openstack_tenants import SETTLED_S, Answer, frontinus_on_openstack
from tests.acceptance.support import report, until

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning"),
]

ONE_MORE_LOOK_S = 200
"""Controllers look once a minute which secrets nobody uses any more, and let go of what was idle at two looks."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with frontinus_on_openstack(tmp_path_factory.mktemp("openstack")) as site:
        a, b = Belongings(site.project("a")), Belongings(site.project("b"))
        for each in (a, b):
            each.with_policy(site)
        a.build()
        b.build()
        yield World(site, a, b)


@pytest.mark.parametrize(
    "attempts",
    [
        pytest.param(OF_NEUTRON, id="of Neutron"),
        pytest.param(OF_BARBICAN, id="of Barbican"),
        pytest.param(OF_FRONTINUS, id="of Frontinus"),
    ],
)
def test_b_can_use_nothing_of_a(world: World, attempts: list[Try]) -> None:
    a, b = world.a, world.b
    before = world.seen()
    for attempt in attempts:
        answer = b.project.call(*attempt.ask(a, b))
        report(f"B asks for {attempt.what}: {answer.status} {answer.told}")
        assert answer.status == attempt.status, (attempt.what, answer)
        assert attempt.names in answer.told, attempt.what
        _require_nobody_told_of(a, answer, attempt)
    _require_unchanged(world, before)


def _require_nobody_told_of(a: Belongings, answer: Answer, attempt: Try) -> None:
    """A refusal does not tell what A has, but what was asked for."""
    asked = str(attempt.ask(a, a))
    for told in (a.project.name, a.project.id):
        assert told not in answer.told or told in asked, (attempt.what, answer.told)


def _require_unchanged(world: World, before: dict[str, Any]) -> None:
    after = world.seen()
    for what, was in before.items():
        assert after[what] == was, f"{what} changed"


def test_b_sees_and_changes_nothing_of_a(world: World) -> None:
    a, b = world.a, world.b
    before = world.seen()
    for path in a.paths:
        collection = path.rpartition("/")[0]
        key = {"loadbalancers": "loadbalancer", "l7policies": "l7policy"}.get(collection) or collection.rpartition("/")[
            2
        ][:-1]
        for method, body in (("GET", None), ("PUT", {key: {"admin_state_up": False}}), ("DELETE", None)):
            answer = b.project.call(method, path, body)
            report(f"B: {method} {collection}/(A's): {answer.status} {answer.told}")
            assert answer.status == 403, (method, path, answer)
        shown = b.project.call("GET", collection)
        if "/" in collection:
            assert shown.status == 403
            continue
        listed = {x["id"] for x in shown.one(collection)}
        assert b.ids[collection] in listed
        assert not listed & set(a.ids.values())
    assert b.project.call("DELETE", f"loadbalancers/{a.ids['loadbalancers']}?cascade=true").status == 403
    _require_unchanged(world, before)


def test_b_types_in_vain(world: World) -> None:
    a, b = world.a, world.b
    before = world.seen()
    cli = b.project.cli(world.site.frontinus.endpoint)
    try:
        for words in TYPED:
            typed = [x.format(a=a, b=b) for x in words]
            status, _, error = cli.run(*typed)
            # 2 is for what the client does not know, and for nobody who answers.
            assert status == 1, f"{words}: not refused, or mistyped (status {status}): {error}"
            told = error.strip().splitlines()
            report(f"$ openstack loadbalancer {' '.join(words)}\n  {told[-1] if told else ''}")
        names = {x["name"] for x in cli.ask("list")}
        assert names == {b.project.name}
    finally:
        cli.close()
    _require_unchanged(world, before)


def test_what_a_shares_b_may_use(world: World) -> None:
    """A network that an administrator shares with all; one that A shares with B, though not A's ports on it; and neither
    before."""
    a, b, admin = world.a, world.b, world.site.admin
    network: Any = admin.network
    closed = network.create_network(name=f"{world.site.word}-closed")
    try:
        subnet = network.create_subnet(network_id=closed.id, cidr="10.73.0.0/24", ip_version=4)
        refused = b.project.call(*new_load_balancer(vip_subnet_id=subnet.id))
        assert (refused.status, "vip_subnet_id" in refused.told) == (400, True), refused
        network.update_network(closed.id, is_shared=True)
        for who in (a, b):
            made = who.project.create("loadbalancers", "loadbalancer", vip_subnet_id=subnet.id)
            who.project.settled(made["id"])
            assert network.get_port(made["vip_port_id"]).project_id == who.project.id
            assert who.project.call("DELETE", f"loadbalancers/{made['id']}").status == 204
            who.project.gone(made["id"])
        report("a network that is shared with all: A and B have VIPs on it, each a port in his own project")
    finally:
        network.delete_network(closed.id)
    lent: Any = a.project.cloud.network
    policy = lent.create_rbac_policy(
        object_type="network",
        object_id=a.project.network_id,
        action="access_as_shared",
        target_project_id=b.project.id,
    )
    try:
        made = b.project.create("loadbalancers", "loadbalancer", vip_subnet_id=a.project.subnet_ids[0])
        b.project.settled(made["id"])
        for port in (a.port, a.vip_port):
            answer = b.project.call(*new_load_balancer(vip_port_id=port))
            assert (answer.status, "vip_port_id" in answer.told) == (400, True), answer
        # And A, whose network it is and who therefore sees B's port there, may not use it either.
        answer = a.project.call(*new_load_balancer(vip_port_id=made["vip_port_id"]))
        assert (answer.status, "vip_port_id" in answer.told) == (400, True), answer
        assert b.project.call("DELETE", f"loadbalancers/{made['id']}").status == 204
        b.project.gone(made["id"])
        report("a network that A shares with B: B has a VIP on it; neither may use the other's ports there")
    finally:
        lent.delete_rbac_policy(policy.id)
    refused = b.project.call(*new_load_balancer(vip_subnet_id=a.project.subnet_ids[0]))
    assert (refused.status, "vip_subnet_id" in refused.told) == (400, True), refused


def test_a_secret_that_its_owner_lets_b_read_b_may_use(world: World) -> None:
    """As Octavia has it: the ACL must name B's user; ours as well, since B may not write A's ACLs."""
    a, b, account = world.a, world.b, world.site.account
    lent = a.project.secret(_together(a))
    wanted = new_listener(b, default_tls_container_ref=lent, protocol_port=9444)
    refused = b.project.call(*wanted)
    assert (refused.status, "may not read it" in refused.told) == (400, True), refused
    a.project.let_read(lent, b.project.user_id)
    refused = b.project.call(*wanted)
    assert (refused.status, "openstack acl user add" in refused.told) == (400, True), refused
    log = world.site.frontinus.state_dir.parent / "up.log"
    looks = log.read_text().count("secrets changed")
    a.project.let_read(lent, b.project.user_id, account)
    made = b.project.call(*wanted).one("listener")
    b.project.settled(b.ids["loadbalancers"])
    (user,) = a.project.secrets()[lent[lent.index("/secrets/") :]]["consumers"]
    assert b.project.id in user
    assert b.ids["loadbalancers"] in user
    report(f"a secret that A's ACL lets B's user and our account read: B's listener has it, and A sees {user}")

    def fault() -> dict[str, Any]:
        return dict(b.project.load_balancer(b.ids["loadbalancers"]).get("fault") or {})

    # What was readable only between two looks is not missed.
    until(lambda: log.read_text().count("secrets changed") > looks, ONE_MORE_LOOK_S, "nobody looks at secrets", pause=1)
    a.project.let_read(lent, b.project.user_id)
    told = until(fault, ONE_MORE_LOOK_S, "nobody notices that A has taken our account's access back", pause=1)
    assert (told["code"], lent in told["message"]) == ("secret-unreadable", True), told
    a.project.let_read(lent, b.project.user_id, account)
    until(lambda: not fault(), ONE_MORE_LOOK_S, "nobody notices that A has given it again", pause=1)
    b.project.settled(b.ids["loadbalancers"])
    report(f"A took our account out of the ACL: {told['message']}; and put it in again: B's load balancer is well")
    assert b.project.call("DELETE", f"listeners/{made['id']}").status == 204
    b.project.settled(b.ids["loadbalancers"])
    until(
        lambda: not a.project.secrets()[lent[lent.index("/secrets/") :]]["consumers"],
        ONE_MORE_LOOK_S,
        "B is still registered as using A's secret",
        pause=2,
    )
    report("B's listener is deleted: A's secret has no consumer any more")


def _together(a: Belongings) -> bytes:
    issued = a.authority.issue("lent.example.org")
    return issued.certificate + issued.private_key


def test_what_a_does_itself_works_and_goes(world: World) -> None:
    """Everything of A's is as A asked, looked up past Frontinus; nobody typed an ACL."""
    a, network = world.a, world.site.admin.network
    port = network.get_port(a.vip_port)
    assert port.project_id == a.project.id
    shown = a.project.load_balancer(a.ids["loadbalancers"])
    assert (shown["vip_sg_ids"], shown["vip_qos_policy_id"]) == ([a.group], a.policy)
    (amphora,) = list(network.ports(description=_mark(world, a, "vip")))
    assert a.group in amphora.security_group_ids
    assert amphora.qos_policy_id == a.policy
    assert {x["subnet_id"] for x in amphora.fixed_ips} == set(a.project.subnet_ids)
    for path, secret in a.project.secrets().items():
        if world.site.account in secret["readers"]:
            report(f"A's {path}: readers {len(secret['readers'])}, consumers {len(secret['consumers'])}")
    used = [x for x in a.project.secrets().values() if a.ids["loadbalancers"] in " ".join(x["consumers"])]
    assert len(used) == 4, "a container and its certificate, authorities, a revocation list"
    brought = a.project.create("loadbalancers", "loadbalancer", vip_port_id=a.port)
    a.project.settled(brought["id"])
    assert a.project.call("DELETE", f"loadbalancers/{brought['id']}").status == 204
    a.project.gone(brought["id"])
    kept = network.get_port(a.port)
    assert (kept.device_id, kept.device_owner, kept.tags) == ("", "", [])
    report("A's own port was a VIP, and is A's own again")


def test_a_floating_ip_of_the_vip_outlives_a_failover(world: World) -> None:
    """It is put on the VIP's port, which is the same whatever amphora answers for it."""
    a, network = world.a, world.site.admin.network
    public: Any = network.find_network("public", ignore_missing=False)
    router: Any = network.create_router(name=world.site.word, external_gateway_info={"network_id": public.id})
    try:
        network.add_interface_to_router(router, a.project.subnet_ids[0])
        floating = network.create_ip(floating_network_id=public.id, port_id=a.vip_port, project_id=a.project.id)
        try:
            before = network.get_port(a.vip_port)
            (old,) = network.ports(description=_mark(world, a, "vip"))
            path = f"{world.site.frontinus.endpoint}/v2/lbaas/loadbalancers/{a.ids['loadbalancers']}"
            world.site.admin.session.put(f"{path}/failover")
            replaced = until(lambda: _replaced(world, a, old.id), SETTLED_S, "no other amphora comes", pause=1)
            a.project.settled(a.ids["loadbalancers"])
            after, kept = network.get_port(a.vip_port), network.get_ip(floating.id)
            assert (after.id, after.fixed_ips, after.mac_address) == (before.id, before.fixed_ips, before.mac_address)
            assert (kept.port_id, kept.fixed_ip_address) == (a.vip_port, before.fixed_ips[0]["ip_address"])
            report(
                f"failed over from port {old.id} to {replaced}; {kept.floating_ip_address} is on the VIP's port as before"
            )
        finally:
            network.delete_ip(floating.id)
    finally:
        network.remove_interface_from_router(router, a.project.subnet_ids[0])
        network.delete_router(router)


def _replaced(world: World, who: Belongings, old: str) -> str:
    found = [x.id for x in world.site.admin.network.ports(description=_mark(world, who, "vip"))]
    return found[0] if len(found) == 1 and found[0] != old else ""


def _mark(world: World, who: Belongings, purpose: str) -> str:
    return f"frontinus:{world.site.word}:{purpose}:{who.ids['loadbalancers']}"
