"""Amphorae as virtual machines: they outlive the controller, a planned stop is no failure, and nothing of them stays.

Needs root, QEMU and the image (`make image`); the machines hang on bridges of this host that lead nowhere."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import pytest

from frontinus.drivers.compute.interface import PlaceState
from frontinus.drivers.compute.qemu.driver import QemuCompute, QemuFlavor, QemuImage, QemuSettings
from frontinus.drivers.compute.qemu.machine import PID_FILE, QMP, tap_name
from frontinus.drivers.compute.qemu.qmp import monitor
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, PortId, SubnetId, new_id
from frontinus.model.placement import Placement
from frontinus.model.ports import Port, PortAddress, PortPurpose
from frontinus.testing import placement_conformance
from frontinus.testing.compute_conformance import CHECKS, ComputeBench
from frontinus.testing.exam import Check

pytestmark = pytest.mark.long

IMAGE = Path(__file__).parents[3] / ".cache" / "image"
NO_FILES = BootFiles(files={})


@pytest.fixture
def bridge() -> Iterator[str]:
    name = f"ftb{secrets.token_hex(4)}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


@pytest.fixture
async def compute(state_dir: Path) -> AsyncIterator[QemuCompute]:
    driver = QemuCompute(QemuSettings(state_dir=state_dir, image=IMAGE))
    yield driver
    for amphora_id in await driver.list_owned():
        await driver.destroy(amphora_id)
    await driver.close()


def port_on(bridge: str, amphora_id: AmphoraId, purpose: PortPurpose) -> Port:
    """The same for the same amphora and purpose."""
    number = uuid5(NAMESPACE_URL, f"{amphora_id} {purpose}")
    address = f"10.84.{number.bytes[0]}.{number.bytes[1] % 250 + 2}"
    return Port(
        id=PortId(str(number)),
        amphora_id=amphora_id,
        purpose=purpose,
        network_id=NetworkId(new_id()),
        mac=f"02:{number.bytes[:5].hex(':')}",
        mtu=1500,
        addresses=(PortAddress(address=address, prefix_length=16, subnet_id=SubnetId(new_id())),),
        attachment=bridge,
    )


def fresh() -> AmphoraId:
    return AmphoraId(new_id())


def machine_of(state_dir: Path, amphora_id: AmphoraId) -> Path:
    return state_dir / "machines" / amphora_id


def kill(state_dir: Path, amphora_id: AmphoraId) -> None:
    os.kill(int((machine_of(state_dir, amphora_id) / PID_FILE).read_text()), signal.SIGKILL)


async def until(driver: QemuCompute, amphora_id: AmphoraId, state: PlaceState, patience: float = 60.0) -> None:
    clock = asyncio.get_running_loop()
    deadline = clock.time() + patience
    while (place := await driver.get(amphora_id)).state is not state:
        assert clock.time() < deadline, place.state
        await asyncio.sleep(0.1)


def wait_for_line(path: Path, words: bytes, patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while words not in path.read_bytes():
        assert time.monotonic() < deadline, path.read_text()[-1000:]
        time.sleep(0.1)


@pytest.mark.parametrize("check", [*CHECKS, *placement_conformance.CHECKS], ids=str)
async def test_it_sits_the_exam(check: Check[ComputeBench], state_dir: Path, bridge: str, tmp_path: Path) -> None:
    other_image = tmp_path / "other"
    other_image.mkdir()
    for file in IMAGE.iterdir():
        (other_image / file.name).symlink_to(file)
    settings = QemuSettings(
        state_dir=state_dir,
        image=IMAGE,
        flavors=(QemuFlavor(name="large", memory_mib=320, cpus=2),),
        images=(QemuImage(tag="next", path=other_image),),
    )

    async def made_as(amphora_id: AmphoraId) -> Placement:
        """By the command line of its QEMU."""
        pid = int((machine_of(state_dir, amphora_id) / PID_FILE).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        is_large = [words[words.index(x) + 1] for x in ("-m", "-smp")] == ["320", "2"]
        is_other = any(x.startswith(str(other_image.resolve())) for x in words)
        return Placement(compute_flavor="large" if is_large else None, amp_image_tag="next" if is_other else None)

    async def stop(amphora_id: AmphoraId) -> None:
        kill(state_dir, amphora_id)

    async def port(amphora_id: AmphoraId, purpose: PortPurpose) -> Port:
        return port_on(bridge, amphora_id, purpose)

    await check.run(
        ComputeBench(
            factory=lambda: QemuCompute(settings),
            stop=stop,
            port=port,
            patience=20,
            placement=Placement(compute_flavor="large", amp_image_tag="next"),
            made_as=made_as,
        )
    )


async def test_a_planned_stop_is_told_from_a_failure(state_dir: Path, bridge: str, compute: QemuCompute) -> None:
    amphora_id = fresh()
    management = port_on(bridge, amphora_id, PortPurpose.MANAGEMENT)
    await compute.build(amphora_id, LoadBalancerId(new_id()), NO_FILES, (management,))
    console = machine_of(state_dir, amphora_id) / "console.log"
    await asyncio.to_thread(wait_for_line, console, b"amphora starts")
    with monitor(machine_of(state_dir, amphora_id), QMP, 5.0) as qemu:
        qemu.ask("system_powerdown")  # an operator presses the button
    await until(compute, amphora_id, PlaceState.STOPPED_ON_PURPOSE)
    await compute.build(amphora_id, LoadBalancerId(new_id()), NO_FILES, (management,))
    await until(compute, amphora_id, PlaceState.RUNNING)
    kill(state_dir, amphora_id)
    await until(compute, amphora_id, PlaceState.STOPPED)


async def test_the_image_is_never_written(state_dir: Path, bridge: str, compute: QemuCompute) -> None:
    amphora_id = fresh()
    before = (IMAGE / "amphora.raw").stat().st_mtime_ns
    await compute.build(
        amphora_id, LoadBalancerId(new_id()), NO_FILES, (port_on(bridge, amphora_id, PortPurpose.MANAGEMENT),)
    )
    with monitor(machine_of(state_dir, amphora_id), QMP, 5.0) as qemu:
        drives = {x["device"]: x["inserted"]["ro"] for x in qemu.ask("query-block")}
    assert drives == {"root": True, "config": True}
    assert (IMAGE / "amphora.raw").stat().st_mtime_ns == before


async def test_no_tap_outlives_its_machine(state_dir: Path, bridge: str, compute: QemuCompute) -> None:
    amphora_id = fresh()
    ports = [port_on(bridge, amphora_id, purpose) for purpose in (PortPurpose.MANAGEMENT, PortPurpose.VIP)]
    await compute.build(amphora_id, LoadBalancerId(new_id()), NO_FILES, tuple(ports))
    there = [Path("/sys/class/net", tap_name(port.id)) for port in ports]
    assert [path.exists() for path in there] == [True, True]
    kill(state_dir, amphora_id)
    await compute.destroy(amphora_id)
    assert [path.exists() for path in there] == [False, False]


async def test_a_missing_image_says_what_to_run(state_dir: Path, tmp_path: Path) -> None:
    driver = QemuCompute(QemuSettings(state_dir=state_dir, image=tmp_path))
    with pytest.raises(Retry, match="make image") as caught:
        await driver.build(fresh(), LoadBalancerId(new_id()), NO_FILES)
    assert caught.value.code == "image-missing"
    await driver.close()
