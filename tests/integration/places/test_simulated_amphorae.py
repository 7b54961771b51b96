"""Simulated amphorae are amphorae to everybody who speaks to them: they sit the exams of real ones, and tell what came."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.interface import AmphoraDriver
from frontinus.model.errors import Rejected, Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, new_id
from frontinus.model.tree import Amphora
from frontinus.testing import amphora_conformance, compute_conformance
from frontinus.testing.amphora_conformance import AmphoraBench
from frontinus.testing.compute_conformance import ComputeBench
from frontinus.testing.exam import Check
from frontinus.testing.simulated.agent import Boot, Order, SimulatedAgent
from frontinus.testing.simulated.compute import SimulatedCompute, SimulatedSettings
from frontinus.testing.simulated.fleet import SimulatedFleet

from tests.unit.drivers.trees import LOAD_BALANCER, a_listener, a_load_balancer, a_member, a_pool, a_tree, an_amphora

PORT = 9443
WITHOUT_TRAFFIC = frozenset({"render is the same elsewhere", "hanging is retry", "traffic reaches the members"})
"""What the kit asks of driver and machine, and not of an agent: nobody simulates it."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet(hosts=2, agent_port=PORT) as made:
        yield made


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


def compute_of(fleet: SimulatedFleet) -> SimulatedCompute:
    return SimulatedCompute(SimulatedSettings(directory=fleet.directory, hosts=fleet.addresses))


@asynccontextmanager
async def placed(fleet: SimulatedFleet, driver: AmphoraDriver, amphora_id: AmphoraId) -> AsyncIterator[str]:
    compute = compute_of(fleet)
    address = compute.management_address(amphora_id)
    assert address is not None
    try:
        await compute.build(amphora_id, LoadBalancerId(LOAD_BALANCER), driver.boot_files(amphora_id, address))
        yield address
    finally:
        await compute.destroy(amphora_id)
        await compute.close()


def haproxy_driver(state_dir: Path, destination: str = "127.0.0.1:1") -> HaproxyDriver:
    return HaproxyDriver(HaproxySettings(state_dir=state_dir, agent_port=PORT, heartbeat_destinations=(destination,)))


def heartbeat(driver: AmphoraDriver, amphora_id: AmphoraId) -> bytes:
    """What the simulated agent of this amphora would send."""
    boot = Boot.read(driver.boot_files(amphora_id, "127.0.0.1").files)
    return SimulatedAgent(amphora_id, LoadBalancerId(LOAD_BALANCER), boot, 1).datagram()


@pytest.mark.parametrize("check", [x for x in compute_conformance.CHECKS if x.name != "an end is told"], ids=str)
async def test_their_compute_driver_sits_the_exam(
    check: Check[ComputeBench], fleet: SimulatedFleet, state_dir: Path
) -> None:
    driver = haproxy_driver(state_dir)

    async def stop(amphora_id: AmphoraId) -> None:
        await asyncio.to_thread(fleet.order, Order(stopped=True), [amphora_id])

    await check.run(
        ComputeBench(
            factory=lambda: compute_of(fleet), boot=lambda x, address: driver.boot_files(x, address or ""), stop=stop
        )
    )


@pytest.mark.parametrize("check", [x for x in amphora_conformance.CHECKS if x.name not in WITHOUT_TRAFFIC], ids=str)
async def test_the_haproxy_driver_sits_the_exam_on_them(
    check: Check[AmphoraBench], fleet: SimulatedFleet, state_dir: Path
) -> None:
    @contextmanager
    def hold_port(address: str, port: int) -> Iterator[None]:
        fleet.order(Order(taken=((address, port),)))
        try:
            yield
        finally:
            fleet.order(Order())

    await check.run(
        AmphoraBench(
            factory=lambda: haproxy_driver(state_dir),
            place=lambda driver, amphora_id: placed(fleet, driver, amphora_id),
            hold_port=hold_port,
            datagram=heartbeat,
        )
    )


def wished(amphora: Amphora) -> Amphora:
    """The amphora, after somebody asked for its configuration to be pushed whatever it has."""
    return replace(amphora, push_requested_at=datetime.now(UTC))


async def test_what_came_is_told_and_repeats_with_it(fleet: SimulatedFleet, state_dir: Path) -> None:
    driver, again = haproxy_driver(state_dir), haproxy_driver(state_dir)
    tree = a_tree(a_load_balancer(), listeners=[a_listener()], pools=[a_pool()], members=[a_member()])
    amphora_id = AmphoraId(new_id())
    async with placed(fleet, driver, amphora_id) as address:
        amphora = replace(an_amphora(address), id=amphora_id)
        rendered = driver.render(tree, amphora)
        await driver.apply(amphora, tree, rendered)
        await again.apply(amphora, tree, rendered)  # it reads that this runs already, and sends nothing
        await again.apply(wished(amphora), tree, rendered)
        await driver.renew_identity(amphora)
        record = (await asyncio.to_thread(fleet.report))[amphora_id]
    await driver.close()
    await again.close()
    seen = (record.pushes, record.repeats, record.digests, record.renewals, record.starts)
    assert seen == (1, 1, [rendered.digest], 1, 1)


async def test_the_driver_hands_the_fence_on(fleet: SimulatedFleet, state_dir: Path) -> None:
    driver, late = haproxy_driver(state_dir), haproxy_driver(state_dir)
    tree = a_tree(a_load_balancer(), listeners=[a_listener()], pools=[a_pool()], members=[a_member()])
    bare = replace(tree, listeners=(), fence=1)
    amphora_id = AmphoraId(new_id())
    async with placed(fleet, driver, amphora_id) as address:
        amphora = replace(an_amphora(address), id=amphora_id)
        newer = replace(tree, fence=2)
        await driver.apply(amphora, newer, driver.render(newer, amphora))
        for work in (
            late.apply(amphora, bare, late.render(bare, amphora)),
            late.apply(wished(amphora), replace(tree, fence=1), late.render(tree, amphora)),
            late.retire(amphora, bare),
        ):
            with pytest.raises(Retry) as raised:
                await work
            assert raised.value.code == "fenced"
        assert (await driver.info(amphora, newer)).digest == driver.render(newer, amphora).digest
    await driver.close()
    await late.close()


@pytest.mark.parametrize(
    "order, error, code",
    [
        pytest.param(Order(refuse="no such word"), Rejected, None, id="refuses"),
        pytest.param(Order(fail="no memory"), Retry, "agent-error", id="fails"),
        pytest.param(Order(deaf=True), Retry, "agent-unreachable", id="is deaf"),
    ],
)
async def test_trouble_comes_on_order(
    order: Order, error: type[Rejected | Retry], code: str | None, fleet: SimulatedFleet, state_dir: Path
) -> None:
    driver = haproxy_driver(state_dir)
    tree = a_tree(a_load_balancer(), listeners=[a_listener()], pools=[a_pool()], members=[a_member()])
    amphora_id = AmphoraId(new_id())
    async with placed(fleet, driver, amphora_id) as address:
        amphora = replace(an_amphora(address), id=amphora_id)
        await asyncio.to_thread(fleet.order, order, [amphora_id])
        with pytest.raises(error) as raised:
            await driver.apply(amphora, tree, driver.render(tree, amphora))
        await asyncio.to_thread(fleet.order, Order(), [amphora_id])
        await driver.apply(amphora, tree, driver.render(tree, amphora))
    await driver.close()
    assert getattr(raised.value, "code", None) == code


async def test_heartbeats_tell_of_what_was_pushed(fleet: SimulatedFleet, state_dir: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.setblocking(False)
        driver = haproxy_driver(state_dir, f"127.0.0.1:{ear.getsockname()[1]}")
        tree = a_tree(a_load_balancer(), listeners=[a_listener()], pools=[a_pool()], members=[a_member()])
        amphora_id = AmphoraId(new_id())
        async with placed(fleet, driver, amphora_id) as address:
            amphora = replace(an_amphora(address), id=amphora_id)
            await driver.apply(amphora, tree, driver.render(tree, amphora))
            await asyncio.to_thread(fleet.order, Order(requests_per_beat=10, errors_per_beat=3), [amphora_id])
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(10):
                while True:
                    heartbeat = driver.decode(await loop.sock_recv(ear, 65_536), datetime.now(UTC))
                    counters = [x.counters for x in heartbeat.listeners.values()]
                    if counters and counters[0].total_connections:
                        break
        await driver.close()
    assert heartbeat.amphora_id == amphora_id
    assert set(heartbeat.listeners) == {x.id for x in tree.listeners}
    assert {x: set(y.members) for x, y in heartbeat.pools.items()} == {
        x.id: {y.id for y in tree.members} for x in tree.pools
    }
    assert counters[0].request_errors * 10 == counters[0].total_connections * 3


async def test_others_than_the_controller_are_refused(fleet: SimulatedFleet, state_dir: Path) -> None:
    """As a real agent: its authority alone does not make a client the controller."""
    driver = haproxy_driver(state_dir)
    amphora_id = AmphoraId(new_id())
    async with placed(fleet, driver, amphora_id) as address:
        stranger = HaproxyDriver(
            HaproxySettings(state_dir=state_dir, agent_port=PORT, controller_identity="somebody-else")
        )
        with pytest.raises(Retry) as raised:
            await stranger.info(replace(an_amphora(address), id=amphora_id), a_tree(a_load_balancer()))
        assert raised.value.code == "agent-identity"
        await stranger.close()
    await driver.close()
