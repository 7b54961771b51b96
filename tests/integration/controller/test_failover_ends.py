"""A failover always ends: whatever stands in its way is told, and when it is gone the failover goes on by itself."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from frontinus.model.enums import Topology
from frontinus.model.errors import FrontinusError, Gone, Retry
from frontinus.model.ids import LoadBalancerId, PortId, new_id
from frontinus.model.network import VipRequest
from frontinus.model.tree import AdditionalVip, Vip
from frontinus.testing.faults import Killed, When

from tests.integration.controller.world import SETTINGS, World
from tests.servers import Server, empty

LONG = timedelta(minutes=10)

PENDING_AT_MOST = SETTINGS.lease_duration + SETTINGS.retry_budget


@pytest.fixture(params=[pytest.param(False, id="no ports"), pytest.param(True, id="ports", marks=pytest.mark.long)])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made = World(tmp_path, has_ports=request.param)
    await made.register()
    yield made
    await made.store.close()


async def dead(
    world: World, topology: Topology = Topology.SINGLE, *, request: VipRequest | None = None
) -> LoadBalancerId:
    """A load balancer that served, and of which every amphora has died."""
    load_balancer_id = await world.create(80, topology=topology, request=request)
    await world.converge()
    await world.assert_served(load_balancer_id)
    for place in world.places.values():
        place.kill()
    await world.suspect(load_balancer_id)
    return load_balancer_id


async def goes_wrong(world: World, load_balancer_id: LoadBalancerId, code: str) -> None:
    """For ten minutes it is tried and tried, by one controller after the other; what it waits for is told all the time."""
    began, ended = world.now, world.now + LONG
    while world.now < ended:
        await world.turn()
        world.restart()
        tree = await world.tree(load_balancer_id)
        assert tree is not None
        fault = tree.load_balancer.fault
        assert fault is not None
        assert (fault.code, fault.permanent) == (code, False), fault.message
        if world.now - began > PENDING_AT_MOST:
            # As it was, where nothing could even be begun; never PENDING for long.
            assert tree.load_balancer.provisioning_status in ("ERROR", "ACTIVE")
        world.now += PENDING_AT_MOST


async def ports_of_vips(world: World, load_balancer_id: LoadBalancerId) -> list[PortId]:
    """Those on record."""
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    further = [x.port_id for x in tree.load_balancer.additional_vips if x.port_id is not None]
    return [tree.load_balancer.vip.port_id, *further]


async def assert_ends(world: World, load_balancer_id: LoadBalancerId) -> None:
    began = world.now
    await world.converge()
    await world.assert_served(load_balancer_id)
    assert world.now - began < timedelta(minutes=3), "it was put off for long"


CAUSES = [
    pytest.param("build", Retry("no host has room", after=5.0, code="compute-full"), id="compute is full"),
    pytest.param("build", Retry("quota of servers", after=600.0, code="compute-quota"), id="the quota is used up"),
    pytest.param("build", Retry("no image", after=30.0, code="image-missing"), id="the image is missing"),
    pytest.param("get", Retry("no answer", after=1.0, code="compute-away"), id="compute is away"),
    pytest.param("destroy", Retry("it does not end", after=1.0, code="process-stuck"), id="the old one does not go"),
    pytest.param("apply", Retry("disk full", after=1.0, code="agent-error"), id="the new one takes no push"),
    pytest.param("apply", Gone("it is not there"), id="the new one is gone at once"),
    pytest.param("allocate_vip", Retry("no answer", after=1.0, code="network-away"), id="the network is away"),
    pytest.param("create_port", Retry("none left", after=30.0, code="no-free-address"), id="no address is left"),
    pytest.param("attach", Retry("no link", after=1.0, code="plug-failed"), id="a port cannot be attached"),
]


@pytest.mark.parametrize("topology", [Topology.SINGLE, pytest.param(Topology.ACTIVE_STANDBY, marks=pytest.mark.long)])
@pytest.mark.parametrize("method, error", CAUSES)
async def test_a_cause_that_lasts_and_goes(
    world: World, method: str, error: FrontinusError, topology: Topology
) -> None:
    load_balancer_id = await dead(world, topology)
    if method in ("create_port", "attach") and not world.hands.has_ports:
        method = "build"  # where there are no ports, who builds gives the address
    world.faults.fail_always(method, error)
    await goes_wrong(world, load_balancer_id, error.code if isinstance(error, Retry) else "amphora-gone")
    world.faults.clear()
    await assert_ends(world, load_balancer_id)


@pytest.mark.parametrize("topology", list(Topology))
async def test_a_vip_that_vanished_is_taken_again(world: World, topology: Topology) -> None:
    load_balancer_id = await dead(world, topology)
    world.network.vips.clear()
    await assert_ends(world, load_balancer_id)


async def test_ports_of_vips_that_are_made_again_are_on_record(world: World) -> None:
    """The address is as before, and so is what is answered for it; the port is not."""
    first, second = world.network.subnets[:2]
    further = AdditionalVip(address="", subnet_id=second.id)
    load_balancer_id = await dead(world, request=VipRequest(subnet_id=first.id, additional=(further,)))
    before = await ports_of_vips(world, load_balancer_id)
    assert len(before) == 2
    for port_id in before:
        await world.network.vanish(port_id)
    await assert_ends(world, load_balancer_id)
    after = await ports_of_vips(world, load_balancer_id)
    assert after == [world.network.vip_ports[x] for x, owner in world.network.vips.items() if owner == load_balancer_id]
    assert not set(after) & set(before)


async def test_a_users_port_with_other_addresses_beside_is_held_at_the_one_that_is_the_vips(world: World) -> None:
    subnet, port_id = world.network.subnets[0], PortId(new_id())
    vip = Vip(address="198.51.100.77", subnet_id=subnet.id, network_id=subnet.network_id, port_id=port_id)
    world.network.brought_ports, world.network.of_several = {port_id: vip}, {port_id}
    load_balancer_id = await dead(world, request=VipRequest(port_id=port_id, address=vip.address))
    await assert_ends(world, load_balancer_id)


async def test_a_vip_that_somebody_else_has_is_waited_for(world: World) -> None:
    load_balancer_id = await dead(world)
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    world.network.vips[tree.load_balancer.vip.address] = LoadBalancerId(new_id())
    await goes_wrong(world, load_balancer_id, "vip-gone")
    world.network.vips.clear()
    await assert_ends(world, load_balancer_id)


@pytest.fixture
def fresh(
    engine: str,
    server_of: Callable[[str], Server],
    migrated_of: Callable[[str], str],
    tmp_path: Path,
) -> Callable[..., World]:
    """A world whose database is empty, as often as it is asked for."""
    numbers = itertools.count()
    url = "" if engine == "sqlite" else migrated_of(engine)

    def make(*, has_ports: bool) -> World:
        if url:
            empty(server_of(engine), "frontinus")
            return World(tmp_path, has_ports=has_ports, url=url)
        directory = tmp_path / str(next(numbers))
        directory.mkdir()
        return World(directory, has_ports=has_ports)

    return make


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("has_ports", [False, True], ids=["no ports", "ports"])
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
async def test_killed_at_every_call_outside_with_a_vip_that_vanished(
    fresh: Callable[..., World], when: When, has_ports: bool
) -> None:
    """Both of a pair are dead, and its address is gone: the controller dies before or after each call of a driver, and of
    the store."""
    outside = ["allocate_vip", "build", "info", "apply", "destroy", "retire", "get"]
    outside += ["create_port", "attach", "plug"] if has_ports else []
    moments = [(method, number) for method in outside for number in (1, 2)]
    moments += [("transact", number) for number in range(1, 31)]
    for method, number in moments:
        one = fresh(has_ports=has_ports)
        await one.register()
        load_balancer_id = await dead(one, Topology.ACTIVE_STANDBY)
        one.network.vips.clear()
        one.faults.fail(method, number, when=when, error=Killed())
        await one.converge()
        await one.assert_served(load_balancer_id)
        await one.store.close()
