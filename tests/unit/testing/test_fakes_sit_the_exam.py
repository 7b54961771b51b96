"""The fakes keep every promise of their interfaces; the noop drivers all but those that they say they do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from frontinus.drivers.amphora.interface import AmphoraDriver
from frontinus.drivers.amphora.noop import NoopAmphoraDriver
from frontinus.drivers.compute.noop import NoopCompute
from frontinus.drivers.network.noop import NoopNetwork
from frontinus.drivers.secret.noop import NoopSecrets
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId, new_id
from frontinus.model.placement import Placement
from frontinus.model.ports import Port, PortPurpose, PortRequest
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.testing import (
    amphora_conformance,
    attach_conformance,
    compute_conformance,
    network_conformance,
    placement_conformance,
    port_conformance,
    secret_conformance,
)
from frontinus.testing.amphora_conformance import AmphoraBench
from frontinus.testing.compute_conformance import ComputeBench
from frontinus.testing.exam import Check
from frontinus.testing.fake_amphora import FakeAmphoraDriver
from frontinus.testing.fake_compute import FakeCompute, FakePlace, ShortSightedCompute
from frontinus.testing.fake_network import (
    FAKE_MEMBER_SUBNET,
    FAKE_SUBNET,
    FAKE_SUBNET_V6,
    FakeNetwork,
    FakePortNetwork,
)
from frontinus.testing.network_conformance import NetworkBench
from frontinus.testing.secret_conformance import SecretBench


def fake_compute_bench() -> ComputeBench:
    places: dict[AmphoraId, FakePlace] = {}

    async def stop(amphora_id: AmphoraId) -> None:
        places[amphora_id].kill()

    async def made_as(amphora_id: AmphoraId) -> Placement:
        return places[amphora_id].placement

    placement = Placement(compute_flavor="large", amp_image_tag="tested", compute_zone="east")
    return ComputeBench(factory=lambda: FakeCompute(places), stop=stop, placement=placement, made_as=made_as)


def short_sighted_bench(driver: type[ShortSightedCompute] = ShortSightedCompute) -> ComputeBench:
    places: dict[AmphoraId, FakePlace] = {}

    async def stop(amphora_id: AmphoraId) -> None:
        places[amphora_id].kill()

    async def hide(amphora_id: AmphoraId) -> None:
        places[amphora_id].hidden = True

    return ComputeBench(factory=lambda: driver(places), stop=stop, hide=hide, patience=0.2)


def fake_attaching_bench() -> ComputeBench:
    places: dict[AmphoraId, FakePlace] = {}
    network = FakePortNetwork()

    async def port(amphora_id: AmphoraId, purpose: PortPurpose) -> Port:
        subnet = FAKE_SUBNET if purpose is PortPurpose.VIP else FAKE_MEMBER_SUBNET
        return await network.create_port(
            PortRequest(
                amphora_id=amphora_id,
                load_balancer_id=LoadBalancerId("exam"),
                project_id=ProjectId("exam"),
                purpose=purpose,
                network_id=subnet.network_id,
                subnet_ids=(subnet.id,),
            )
        )

    async def unplug(amphora_id: AmphoraId, port: Port) -> None:
        places[amphora_id].unplug(port.id)

    return ComputeBench(factory=lambda: FakeCompute(places), port=port, unplug=unplug)


def fake_amphora_bench() -> AmphoraBench:
    places: dict[AmphoraId, FakePlace] = {}
    taken: set[int] = set()
    compute = FakeCompute(places)

    @asynccontextmanager
    async def place(driver: AmphoraDriver, amphora_id: AmphoraId) -> AsyncIterator[str]:
        address = compute.management_address(amphora_id)
        assert address is not None
        await compute.build(amphora_id, LoadBalancerId(new_id()), driver.boot_files(amphora_id, address))
        yield address
        await compute.destroy(amphora_id)

    @contextmanager
    def hold_port(address: str, port: int) -> Iterator[None]:
        taken.add(port)
        yield
        taken.remove(port)

    def datagram(driver: AmphoraDriver, amphora_id: AmphoraId) -> bytes:
        return FakeAmphoraDriver.heartbeat(
            Heartbeat(amphora_id=amphora_id, boot=1, sequence=0, incremental=False, listeners={}, pools={})
        )

    @contextmanager
    def hang(amphora_id: AmphoraId) -> Iterator[None]:
        places[amphora_id].agent_running = False
        yield
        places[amphora_id].agent_running = True

    async def digest_elsewhere(tree: LoadBalancerTree, amphora: Amphora) -> str:
        return FakeAmphoraDriver(places, taken).render(tree, amphora).digest

    return AmphoraBench(
        factory=lambda: FakeAmphoraDriver(places, taken),
        place=place,
        hold_port=hold_port,
        hang=hang,
        datagram=datagram,
        digest_elsewhere=digest_elsewhere,
    )


OF_FAKES = [
    x for x in amphora_conformance.CHECKS if x.name not in {"traffic reaches the members", "identity is renewed"}
]
"""A fake balances nothing, and has an identity only where a test wants one."""


OF_SIGHT = {"unseen place is known by its id", "list running names what runs"}
"""Of drivers that claim it, as the second fake does."""


@pytest.mark.parametrize(
    "check",
    [*(x for x in compute_conformance.CHECKS if x.name not in OF_SIGHT), *placement_conformance.CHECKS],
    ids=str,
)
async def test_fake_compute(check: Check[ComputeBench]) -> None:
    await check.run(fake_compute_bench())


@pytest.mark.parametrize("check", compute_conformance.CHECKS, ids=str)
async def test_fake_compute_that_loses_sight(check: Check[ComputeBench]) -> None:
    await check.run(short_sighted_bench())


@pytest.mark.parametrize("check", OF_FAKES, ids=str)
async def test_fake_amphora(check: Check[AmphoraBench]) -> None:
    await check.run(fake_amphora_bench())


OF_NETWORKS = [*network_conformance.CHECKS, *network_conformance.WHERE_OTHERS_SEE_PORTS]


@pytest.mark.parametrize("check", OF_NETWORKS, ids=str)
@pytest.mark.parametrize("subnet_id", [None, FAKE_SUBNET_V6.id], ids=["first subnet", "IPv6 subnet"])
async def test_fake_network(check: Check[NetworkBench], subnet_id: SubnetId | None) -> None:
    vips: dict[str, LoadBalancerId] = {}
    vip_ports: dict[str, PortId] = {}

    def made() -> FakeNetwork:
        return FakeNetwork(vips, vip_ports=vip_ports)

    await check.run(NetworkBench(factory=made, subnet_id=subnet_id, vanish=lambda x: made().vanish(x)))


@pytest.mark.parametrize("check", attach_conformance.CHECKS, ids=str)
async def test_fake_compute_attaches(check: Check[ComputeBench]) -> None:
    await check.run(fake_attaching_bench())


@pytest.mark.parametrize("check", [*OF_NETWORKS, *port_conformance.CHECKS], ids=str)
async def test_fake_network_with_ports(check: Check[NetworkBench]) -> None:
    vips: dict[str, LoadBalancerId] = {}
    vip_ports: dict[str, PortId] = {}
    ports: dict[PortId, Port] = {}
    owners: dict[PortId, LoadBalancerId] = {}
    elsewhere = NetworkId("5b0c7b5e-0000-4000-8000-000000000013")

    def made() -> FakePortNetwork:
        return FakePortNetwork(vips, vip_ports=vip_ports, ports=ports, port_owners=owners)

    bench = NetworkBench(factory=made, management_network=elsewhere, vanish=lambda x: made().vanish(x))
    await check.run(bench)


async def test_noop_compute_has_no_memory_and_keeps_the_other_promises() -> None:
    report = await compute_conformance.examine(ComputeBench(factory=NoopCompute))
    assert set(report.failed) == {
        "unknown is absent",
        "build repeats",  # by list_owned
        "many at once",
        "places outlive the driver",
        "list owned names places",
        "belongings are of owned places",
        "interrupted build is found",
        "known place is told",  # it was never built
    }, str(report)


async def test_noop_network_owns_nothing_and_keeps_the_other_promises() -> None:
    report = await network_conformance.examine(NetworkBench(factory=NoopNetwork))
    assert set(report.failed) == {
        "unknown subnet is invalid",
        "a preview takes nothing",
        "taken address is a conflict",
        "racing for one address",
        "address outside is invalid",
        "unknown references are invalid",
        "list owned names holders",
        "belongings are what is held",
        "released address is free",
        "release owned gives all back",
    }, str(report)


async def test_noop_amphora_driver_keeps_every_promise_that_needs_no_amphora() -> None:
    report = await amphora_conformance.examine(AmphoraBench(factory=NoopAmphoraDriver))
    # Nothing is out of its reach, and its configuration tells edits apart by their number alone.
    assert set(report.failed) == {
        "digest follows the configuration",
        "capabilities are honoured",
        "silence is retry",
    }, str(report)


async def test_noop_secrets_refuse_every_reference() -> None:
    report = await secret_conformance.examine(SecretBench(factory=NoopSecrets))
    assert report.passed, str(report)
    assert "unknown reference is invalid" not in report.skipped
