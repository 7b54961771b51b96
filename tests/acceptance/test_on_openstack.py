"""A load balancer on a real OpenStack, from `openstack loadbalancer create` to nothing left: servers of Nova that run our image,
ports of Neutron, a certificate of Barbican, a tenant of Keystone's.

    make on-openstack

prints how long each step takes. It starts the lab (tests/openstack_lab.py) if it does not run; guests are emulated where there
is no KVM, so most of the time is theirs."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from frontinus.testing.certificates import TestAuthority

from tests.acceptance.on_openstack import (
    MEMBERS,
    PUBLIC,
    TENANTS,
    Here,
    Neighbour,
    OnOpenStack,
    Times,
    over_tls,
    qemu_of,
)
from tests.acceptance.support import ask, until
from tests.servers import serving

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

PATIENCE_S = 400
"""For a server to be made, to start and to be filled: some 40 s with nothing else to do."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnOpenStack]:
    with (
        serving("postgresql") as database,
        OnOpenStack(tmp_path_factory.mktemp("on-openstack"), database.make_database("frontinus")) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def members(site: OnOpenStack) -> Iterator[tuple[Neighbour, Neighbour]]:
    """One on the network of the VIPs, one on a tenant's own, which amphorae get an interface for."""
    near = Neighbour(site.admin, f"{site.installation}-near", site.subnet(PUBLIC).id)
    far = Neighbour(site.admin, f"{site.installation}-far", site.subnet(TENANTS).id)
    yield near, far
    for each in (near, far):
        each.remove()


def add_pool(site: OnOpenStack, listener: str, protocol: str, members: tuple[Neighbour, Neighbour]) -> None:
    name = f"{listener}-pool"
    site.cli.quiet(
        *("pool", "create", "--name", name, "--protocol", protocol, "--lb-algorithm", "ROUND_ROBIN"),
        *("--listener", listener, "--wait"),
    )
    for member, subnet in zip(members, (PUBLIC, TENANTS), strict=True):
        add_member(site, name, member, subnet)


def add_member(site: OnOpenStack, pool: str, member: Neighbour, subnet: str) -> None:
    site.cli.quiet(
        *("member", "create", "--name", member.name, "--address", member.address, "--protocol-port", "8080"),
        *("--subnet-id", subnet, "--wait", pool),
    )


def is_dropped(address: str, port: int) -> bool:
    """Whether nobody so much as refuses a connection: what comes there goes no further."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except TimeoutError:
        return True
    except ConnectionRefusedError:
        pass
    return False


def all_answer(everybody: set[str], question: Callable[[], str | None]) -> None:
    """Both members answer in turn, soon."""
    seen: list[str | None] = []

    def both() -> bool:
        seen[:] = [question() for _ in range(4)]
        return set(seen) == everybody

    try:
        until(both, 90, "both members answer", pause=0.2)
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}") from error


def test_a_load_balancer_lives_on_nova(site: OnOpenStack, members: tuple[Neighbour, Neighbour]) -> None:
    here, times, authority = Here(), Times(), TestAuthority()
    everybody = {x.name for x in members}
    name = f"{site.installation}-shop"

    with times.step("create: asked to ACTIVE (`openstack loadbalancer create`)"):
        site.cli.quiet("create", "--name", name, "--vip-subnet-id", PUBLIC)
        vip: str = site.settled(name, PATIENCE_S)["vip_address"]
    (server,) = site.servers()
    assert (server.status, server.image.id) == ("ACTIVE", site.image_id)
    assert len(site.groups()) == 1

    with times.step("HTTP listener, pool, 2 members (one on a network of its own): typed to served"):
        site.cli.quiet(
            *("listener", "create", "--name", "http", "--protocol", "HTTP", "--protocol-port", "80"), "--wait", name
        )
        add_pool(site, "http", "HTTP", members)
        all_answer(everybody, lambda: ask(vip, 80)[1])
    site.cli.quiet(
        *("healthmonitor", "create", "--type", "PING", "--delay", "5", "--timeout", "4", "--max-retries", "1"),
        *("--wait", "http-pool"),
    )

    def operating() -> set[str]:
        return {x["operating_status"] for x in site.cli.ask("member", "list", "http-pool")}

    with times.step("TERMINATED_HTTPS with a container of Barbican's: typed to served"):
        container = site.certificate(authority, vip)
        site.cli.quiet(
            *("listener", "create", "--name", "tls", "--protocol", "TERMINATED_HTTPS", "--protocol-port", "443"),
            *("--default-tls-container-ref", container, "--default-pool", "http-pool", "--wait", name),
        )
        all_answer(everybody, lambda: over_tls(vip, authority))
    assert len(site.consumers(container)) == 1

    with times.step("UDP through LVS in the guest's kernel: typed to served"):
        site.cli.quiet(
            *("listener", "create", "--name", "udp", "--protocol", "UDP", "--protocol-port", "5300"), "--wait", name
        )
        add_pool(site, "udp", "UDP", members)
        all_answer(everybody, lambda: here.ask_datagram(vip, 5300, "who"))

    assert operating() == {"ONLINE"}, "the guest pings both members"

    with times.step("allowed_cidrs: who is not named gets nothing through Neutron's filter, and then is let in"):
        site.cli.quiet(
            *("listener", "create", "--name", "few", "--protocol", "HTTP", "--protocol-port", "8081"),
            *("--allowed-cidr", "192.0.2.0/24", "--default-pool", "http-pool", "--wait", name),
        )
        assert [is_dropped(vip, port) for port in (80, 8081, 8082)] == [False, True, True]
        site.cli.quiet("listener", "set", "--allowed-cidr", f"{MEMBERS}/32", "--wait", "few")
        all_answer(everybody, lambda: ask(vip, 8081)[1])
    site.cli.quiet("listener", "delete", "--wait", "few")
    until(lambda: is_dropped(vip, 8081), 30, "what has no listener is closed")

    near, far = members
    with times.step("the last member on a network goes: its interface too; and comes again"):
        for pool in ("http-pool", "udp-pool"):
            site.cli.quiet("member", "delete", "--wait", pool, far.name)
        until(lambda: site.ports_on(TENANTS) == [], 60, "the amphora has a port still where it has no member")
        all_answer({near.name}, lambda: ask(vip, 80)[1])
        for pool in ("http-pool", "udp-pool"):
            add_member(site, pool, far, TENANTS)
        all_answer(everybody, lambda: ask(vip, 80)[1])
        all_answer(everybody, lambda: here.ask_datagram(vip, 5300, "who"))

    def serves() -> bool:
        return (
            ask(vip, 80, timeout=2)[1] in everybody
            and over_tls(vip, authority) in everybody
            and here.ask_datagram(vip, 5300, "who") in everybody
        )

    with times.step("server deleted behind Frontinus' back: to served by another"):
        site.ours.compute.delete_server(server.id)
        until(lambda: not ask(vip, 80, timeout=1)[0], 60, "it is away")
        until(serves, PATIENCE_S, f"it serves again:\n{site.log()}", pause=0.2)
    site.settled(name)
    (second,) = site.servers()
    assert second.id != server.id
    assert site.load_balancer(name)["vip_address"] == vip

    with times.step("QEMU killed: to served by another"):
        os.kill(qemu_of(second.id), signal.SIGKILL)
        until(serves, PATIENCE_S, f"it serves again:\n{site.log()}", pause=0.2)
    site.settled(name)
    (third,) = site.servers()
    assert third.id != second.id

    with times.step("`openstack server stop`: not replaced in half a minute"):
        site.ours.compute.stop_server(third.id)
        site.ours.compute.wait_for_server(third, status="SHUTOFF", interval=1, wait=120)
        time.sleep(30)  # far longer than the silence after which a dead one is replaced
        assert [x.id for x in site.servers()] == [third.id]
    with times.step("`openstack server start`: to served, by the same"):
        site.ours.compute.start_server(third.id)
        until(serves, PATIENCE_S, f"it serves again:\n{site.log()}", pause=0.2)
    site.settled(name)
    assert [x.id for x in site.servers()] == [third.id], "it boots, and is filled again"

    with times.step("failover asked for (`openstack loadbalancer failover`): to ACTIVE on another server"):
        site.operator.quiet("failover", name)
        until(lambda: [x.id for x in site.servers()] != [third.id], PATIENCE_S, "another server")
        site.settled(name, PATIENCE_S)
    assert serves()

    with times.step("delete --cascade: to nothing left in Nova and Neutron"):
        site.cli.quiet("delete", "--cascade", name)
        until(lambda: not site.cli.ask("list", "--name", name), PATIENCE_S, "it is gone")
        assert left(site) == {}
    # Two looks, a minute apart, so that no request that is under way is robbed.
    until(lambda: site.consumers(container) == [], 180, "the certificate has a consumer still", pause=1)


def servers_of(site: OnOpenStack, name: str) -> set[str]:
    """Ids of the servers of its amphorae."""
    names = {f"amphora-{x['id']}" for x in site.amphorae(name).values()}
    return {x.id for x in site.servers() if x.name in names}


def left(site: OnOpenStack) -> dict[str, list[str]]:
    """What is ours in OpenStack."""
    found = {
        "servers": [x.name for x in site.servers()],
        "groups": [x.name for x in site.groups()],
        "ports": [f"{x.name} {x.description}" for x in site.ports()],
        "security groups": [x.name for x in site.security_groups()],
    }
    return {kind: names for kind, names in found.items() if names}


@pytest.fixture
def router(site: OnOpenStack) -> Iterator[None]:
    """Between the tenant's network and the public one, so that there may be floating addresses."""
    network, subnet = site.admin.network, site.subnet(TENANTS)
    outside = {"network_id": site.subnet(PUBLIC).network_id}
    made = network.create_router(name=site.installation, external_gateway_info=outside)
    gateway = {"subnet_id": subnet.id, "ip_address": subnet.gateway_ip}  # by which amphorae answer who is outside
    port = network.create_port(network_id=subnet.network_id, fixed_ips=[gateway])
    network.put(f"/routers/{made.id}/add_router_interface", json={"port_id": port.id})
    yield
    for floating in network.ips(router_id=made.id):  # of a test that failed
        network.delete_ip(floating.id)
    network.put(f"/routers/{made.id}/remove_router_interface", json={"port_id": port.id})
    network.delete_router(made.id)


@pytest.fixture
def pairs(site: OnOpenStack) -> str:
    """A flavor for pairs."""
    profile = json.dumps({"loadbalancer_topology": "ACTIVE_STANDBY"})
    site.operator.quiet("flavorprofile", "create", "--name", "pair", "--provider", "amphora", "--flavor-data", profile)
    site.operator.quiet("flavor", "create", "--name", "pair", "--flavorprofile", "pair", "--enable")
    return "pair"


@pytest.mark.usefixtures("router")
def test_a_pair_on_a_tenants_network_outlives_its_master(
    site: OnOpenStack, members: tuple[Neighbour, Neighbour], pairs: str
) -> None:
    """Asked by a neighbour on that network; with a floating address."""
    times, name = Times(), f"{site.installation}-pair"
    everybody, client = {x.name for x in members}, members[1]

    def answer(timeout: float = 5) -> str | None:
        try:
            return client.get(f"http://{vip}/", timeout)
        except OSError:
            return None

    with times.step("pair on a tenant's network: asked to ACTIVE (two guests, one after the other)"):
        site.cli.quiet("create", "--name", name, "--vip-subnet-id", TENANTS, "--flavor", pairs)
        made = site.settled(name, 2 * PATIENCE_S)
    vip, port_id = made["vip_address"], made["vip_port_id"]
    assert len(servers_of(site, name)) == 2
    floating = site.tenant.network.create_ip(floating_network_id=site.subnet(PUBLIC).network_id, port_id=port_id)
    site.cli.quiet(
        *("listener", "create", "--name", "pair-http", "--protocol", "HTTP", "--protocol-port", "80", "--wait", name)
    )
    add_pool(site, "pair-http", "HTTP", members)
    all_answer(everybody, answer)

    def answer_from_outside() -> str | None:
        return ask(floating.floating_ip_address, 80, timeout=0.5)[1]

    with times.step("pair: a floating address on its VIP: from outside to served"):
        all_answer(everybody, answer_from_outside)

    master = site.amphorae(name)["MASTER"]
    (server,) = [x for x in site.servers() if x.name == f"amphora-{master['id']}"]
    with times.step("pair: QEMU of the MASTER killed: to served by the BACKUP"):
        os.kill(qemu_of(server.id), signal.SIGKILL)
        until(lambda: answer(0.5) in everybody, 60, "the BACKUP serves", pause=0.02)
    with times.step("pair: and by the floating address"):
        until(lambda: answer_from_outside() in everybody, 60, "the BACKUP serves who is outside", pause=0.02)
    with times.step("pair: whole again, on two servers"):
        until(lambda: server.id not in servers_of(site, name), PATIENCE_S, "the dead server is replaced")
        until(lambda: len(servers_of(site, name)) == 2, PATIENCE_S, "another server is there")
        site.settled(name, PATIENCE_S)
    all_answer(everybody, answer)
    all_answer(everybody, answer_from_outside)
    held = site.tenant.network.get_ip(floating.id)
    assert (held.port_id, held.fixed_ip_address) == (port_id, vip), "the floating address stays where it was"
    site.tenant.network.delete_ip(floating.id)

    with times.step("pair: delete --cascade, to nothing left"):
        site.cli.quiet("delete", "--cascade", name)
        until(lambda: not site.cli.ask("list", "--name", name), PATIENCE_S, "it is gone")
        assert left(site) == {}
