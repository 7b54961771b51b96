"""The drivers `bridge` and `netns` keep every promise of their interfaces. Run by test_sandbox.py."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from frontinus.drivers import iproute
from frontinus.drivers.compute.netns.driver import NetnsCompute, NetnsSettings
from frontinus.drivers.network.bridge.administration import Administration, SubnetWish
from frontinus.drivers.network.bridge.driver import BridgeNetwork, BridgeSettings
from frontinus.drivers.network.bridge.records import Records
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, ProjectId, SubnetId
from frontinus.model.ports import Port, PortPurpose, PortRequest
from frontinus.testing import (
    attach_conformance,
    compute_conformance,
    network_conformance,
    placement_conformance,
    port_conformance,
)
from frontinus.testing.compute_conformance import ComputeBench
from frontinus.testing.exam import Check
from frontinus.testing.network_conformance import NetworkBench

SLEEPER = "import time; time.sleep(600)"
LOAD_BALANCER = LoadBalancerId("8a4c1a52-0000-4000-8000-000000000001")


def settings(state_dir: Path) -> BridgeSettings:
    return BridgeSettings(state_dir=state_dir)


def make_networks(state_dir: Path) -> dict[str, tuple[NetworkId, SubnetId]]:
    """`front` with a subnet of each family, `back` with one; by the name of the subnet."""
    administration = Administration(Records(state_dir / "networks"))
    made: dict[str, tuple[NetworkId, SubnetId]] = {}
    for network, name, cidr in (
        ("front", "front4", "10.20.0.0/24"),
        ("front", "front6", "fd20::/64"),
        ("back", "back4", "10.30.0.0/24"),
    ):
        if network not in {x.name for x in administration.networks()[0]}:
            administration.create_network(network)
        subnet = administration.create_subnet(network, SubnetWish(name=name, cidr=cidr))
        made[name] = (subnet.network_id, subnet.id)
    return made


@pytest.mark.parametrize(
    "subnet,check",
    [
        *(("front4", x) for x in (*network_conformance.CHECKS, *port_conformance.CHECKS)),
        *(("front6", x) for x in network_conformance.CHECKS if "address" in x.name),
    ],
    ids=str,
)
async def test_network(check: Check[NetworkBench], subnet: str, tmp_path: Path) -> None:
    made = make_networks(tmp_path)
    await check.run(NetworkBench(factory=lambda: BridgeNetwork(settings(tmp_path)), subnet_id=made[subnet][1]))
    assert_tidy(tmp_path)


@pytest.mark.parametrize(
    "check", [*compute_conformance.CHECKS, *attach_conformance.CHECKS, placement_conformance.CHECKS[0]], ids=str
)
async def test_compute(check: Check[ComputeBench], tmp_path: Path) -> None:
    made = make_networks(tmp_path)
    network = BridgeNetwork(settings(tmp_path))
    compute_settings = NetnsSettings(
        state_dir=tmp_path, agent_command=(sys.executable, "-S", "-c", SLEEPER), balancer="sleep"
    )

    async def port(amphora_id: AmphoraId, purpose: PortPurpose) -> Port:
        network_id, subnet_id = made["back4" if purpose is PortPurpose.MEMBER else "front4"]
        is_management = purpose is PortPurpose.MANAGEMENT
        return await network.create_port(
            PortRequest(
                amphora_id=amphora_id,
                load_balancer_id=LOAD_BALANCER,
                project_id=ProjectId("exam"),
                purpose=purpose,
                network_id=None if is_management else network_id,
                subnet_ids=() if is_management else (subnet_id,),
            )
        )

    async def unplug(amphora_id: AmphoraId, port: Port) -> None:
        iproute.change([["link", "delete", "dev", port.link]])

    async def stop(amphora_id: AmphoraId) -> None:
        for pid in pids_of(amphora_id):
            os.kill(pid, signal.SIGKILL)

    bench = ComputeBench(factory=lambda: NetnsCompute(compute_settings), stop=stop, port=port, unplug=unplug)
    await check.run(bench)
    assert_tidy(tmp_path)
    await network.release_owned(LOAD_BALANCER)
    await network.close()
    assert_tidy(tmp_path)
    # The bridge of management came with the first port and went with the last; `front` and `back` are the operator's.
    assert len([x for x in iproute.links() if x["ifname"].startswith("frbr")]) == 2


def pids_of(amphora_id: AmphoraId) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if amphora_id.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def assert_tidy(state_dir: Path) -> None:
    """No namespace is left, and no link but those of networks."""
    assert list(Path("/run/netns").iterdir() if Path("/run/netns").exists() else ()) == []
    names = [x["ifname"] for x in iproute.links()]
    assert [x for x in names if x.startswith("fr") and not x.startswith("frbr")] == []


@pytest.fixture(autouse=True)
def without_bridges() -> object:
    yield
    for link in iproute.links():
        if link["ifname"].startswith("frbr"):
            iproute.change([["link", "delete", "dev", link["ifname"]]])
