"""Sweeping namespaces and their links: ours without a row go, those that are only named alike stay. Run by test_sandbox.py."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from frontinus.controller.hands import Hands
from frontinus.controller.settings import ControllerSettings
from frontinus.controller.sweeper import Sweeper
from frontinus.drivers import iproute
from frontinus.drivers.compute.host.place import amphorae_in
from frontinus.drivers.compute.netns.driver import NetnsCompute, NetnsSettings
from frontinus.drivers.network.bridge.driver import BridgeNetwork, BridgeSettings
from frontinus.model.belongings import BelongingKind
from frontinus.model.boot import BootFiles
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, ProjectId, SubnetId, new_id
from frontinus.model.network import VipRequest
from frontinus.model.ports import PortPurpose, PortRequest
from frontinus.store.engine import Store
from frontinus.testing.fake_amphora import FakeAmphoraDriver
from frontinus.testing.fake_secret import FakeSecrets

from tests.integration.netns.stories_kits import SLEEPER, make_networks, pids_of
from tests.integration.places.machine import until

NAMES = Path("/run/netns")


@dataclass
class Machine:
    hands: Hands
    compute: NetnsCompute
    network: BridgeNetwork
    state_dir: Path
    now: datetime
    subnets: dict[str, tuple[NetworkId, SubnetId]]

    async def build(self) -> tuple[AmphoraId, LoadBalancerId]:
        """An amphora with ports on two networks and a VIP, of which the store knows nothing."""
        amphora_id, load_balancer_id = AmphoraId(new_id()), LoadBalancerId(new_id())
        network_id, subnet_id = self.subnets["front4"]
        await self.network.allocate_vip(load_balancer_id, ProjectId("exam"), VipRequest(subnet_id=subnet_id))
        ports = [
            await self.network.create_port(
                PortRequest(
                    amphora_id=amphora_id,
                    load_balancer_id=load_balancer_id,
                    project_id=ProjectId("exam"),
                    purpose=purpose,
                    network_id=None if purpose is PortPurpose.MANAGEMENT else network_id,
                    subnet_ids=() if purpose is PortPurpose.MANAGEMENT else (subnet_id,),
                )
            )
            for purpose in (PortPurpose.MANAGEMENT, PortPurpose.VIP)
        ]
        await self.compute.build(amphora_id, load_balancer_id, BootFiles(files={}), tuple(ports))
        return amphora_id, load_balancer_id


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    store = Store.open(f"sqlite:///{tmp_path / 'frontinus.sqlite'}")
    store.upgrade()
    compute = NetnsCompute(
        NetnsSettings(state_dir=tmp_path, agent_command=(sys.executable, "-S", "-c", SLEEPER), balancer="sleep")
    )
    network = BridgeNetwork(BridgeSettings(state_dir=tmp_path))
    hands = Hands(
        store=store,
        amphora_driver=FakeAmphoraDriver({}),
        compute=compute,
        network=network,
        secret=FakeSecrets(),
        settings=ControllerSettings(),
        now=lambda: made.now,
    )
    made = Machine(hands, compute, network, tmp_path, datetime.now(UTC), make_networks(tmp_path))
    yield made
    await network.dismantle()
    await compute.close()
    await network.close()
    await store.close()


async def swept(machine: Machine) -> None:
    await Sweeper(machine.hands).sweep()
    machine.now += machine.hands.settings.orphan_grace
    await Sweeper(machine.hands).sweep()


async def test_namespaces_links_and_ports_without_a_row_go(machine: Machine) -> None:
    amphora_id, load_balancer_id = await machine.build()
    survey = await Sweeper(machine.hands).look()
    kinds = {x.owner.id: sorted(y.kind for y in x.belongings) for x in survey.orphans}
    assert kinds[load_balancer_id] == [BelongingKind.ADDRESS]
    assert kinds[amphora_id] == sorted(
        [*("directory", "memory", "namespace", "process"), "link", "link", "port", "port"]
    )
    await swept(machine)
    assert list(NAMES.iterdir()) == []
    assert pids_of(amphora_id) == []
    assert [x["ifname"] for x in iproute.links() if x["ifname"].startswith("fr") and "br" not in x["ifname"]] == []
    assert await machine.network.list_owned() == ()


async def test_a_namespace_whose_place_was_removed_is_ours_by_its_name(machine: Machine) -> None:
    amphora_id, _ = await machine.build()
    shutil.rmtree(machine.state_dir / "amphorae")
    for pid in pids_of(amphora_id):
        os.kill(pid, signal.SIGKILL)
    await swept(machine)
    assert list(NAMES.iterdir()) == []


async def test_namespaces_that_are_only_named_alike_stay(machine: Machine) -> None:
    amphora_id, _ = await machine.build()
    [ours] = NAMES.iterdir()
    prefix = ours.name.removesuffix(amphora_id)
    alike = [f"{prefix}left-by-hand", f"frontinus-00000000-{amphora_id}", f"frontinus-{amphora_id}", f"x{ours.name}"]
    inside = []
    for name in alike:
        iproute.change([["netns", "add", name]])
        inside.append(await asyncio.create_subprocess_exec("ip", "netns", "exec", name, "sleep", "600"))
    await swept(machine)
    assert sorted(x.name for x in NAMES.iterdir()) == sorted(alike)
    assert [x.returncode for x in inside] == [None] * len(alike)
    for process, name in zip(inside, alike, strict=True):
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        iproute.change([["netns", "delete", name]])


BUILDER = """
import asyncio, sys
from tests.integration.netns.stories_sweep import build_for_ever
asyncio.run(build_for_ever(sys.argv[1]))
"""


async def test_a_build_that_is_cut_off_leaves_what_is_swept(machine: Machine) -> None:
    """At several moments; each leaves something else."""
    places = machine.state_dir / "amphorae"
    for number in range(4):
        before = set(amphorae_in(places))
        builder = await asyncio.create_subprocess_exec(sys.executable, "-c", BUILDER, str(machine.state_dir))
        await until(lambda before=before: set(amphorae_in(places)) - before, 60)  # type: ignore[misc]
        await asyncio.sleep(0.01 * number)
        builder.kill()
        await builder.wait()
    sweeper = Sweeper(machine.hands)
    assert len((await sweeper.look()).orphans) >= 4
    machine.now += machine.hands.settings.orphan_grace
    await sweeper.delete((await sweeper.look()).due(machine.now))
    assert list(NAMES.iterdir() if NAMES.exists() else ()) == []
    assert await machine.compute.list_owned() == ()


async def build_for_ever(state_dir: str) -> None:
    compute = NetnsCompute(
        NetnsSettings(state_dir=Path(state_dir), agent_command=(sys.executable, "-S", "-c", SLEEPER), balancer="sleep")
    )
    while True:
        await compute.build(AmphoraId(new_id()), LoadBalancerId(new_id()), BootFiles(files={}))
