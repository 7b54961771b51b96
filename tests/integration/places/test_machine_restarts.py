"""A virtual machine that restarts by itself, long after its certificate ended and with a clock that is far behind, is restored by
one push, like any other."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.agent.authority import Clock
from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.compute.qemu import driver as qemu
from frontinus.drivers.compute.qemu import machine
from frontinus.model.boot import BootFiles
from frontinus.model.tree import Amphora

from tests.integration.places.machine_world import (
    AGENT,
    HERE,
    MEMBERS,
    VIP,
    MachineWorld,
    answering,
    machine_world,
    plugged,
)
from tests.unit.drivers.trees import AMPHORA, a_listener, a_load_balancer, a_member, a_pool, a_tree, an_amphora

pytestmark = pytest.mark.long

BEHIND, BORN = timedelta(days=100), timedelta(days=40)
PATIENCE_S = 60
TREE = a_tree(
    a_load_balancer(VIP),
    listeners=[a_listener()],
    pools=[a_pool()],
    members=[a_member(50, address=MEMBERS["one"])],
)


async def born(state_dir: Path, heartbeats_to: int, clock: Clock) -> tuple[BootFiles, Amphora]:
    """What a machine was made of at that time, and what is on record of it after a renewal since."""
    driver = HaproxyDriver(
        HaproxySettings(state_dir=state_dir, network="own", heartbeat_destinations=(f"{HERE}:{heartbeats_to}",)),
        clock=clock,
    )
    boot = driver.boot_files(AMPHORA, AGENT)
    await driver.close()
    assert boot.identity is not None
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=20)
    return boot, an_amphora(
        AGENT,
        created_at=clock(),
        identity_digest=boot.identity.digest,
        birth_fingerprint=boot.identity.fingerprint,
        certificate_expires_at=expires_at,
        certificate_renew_at=expires_at - timedelta(days=15),
    )


async def assert_restored(world: MachineWorld, began: datetime) -> None:
    applied = await world.apply(TREE)
    assert world.ask_http(80) == b"one"
    assert applied.identity is not None
    assert applied.identity.expires_at > began + timedelta(days=29)
    world.amphora = replace(world.amphora, certificate_expires_at=applied.identity.expires_at)
    async with asyncio.timeout(PATIENCE_S):
        while (heard := await world.heartbeat()).boot is None or heard.boot < began.timestamp() * 1e9:
            pass  # of before its clock was set
    assert not heard.empty


async def test_it_is_restored_by_one_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = datetime.now(UTC)

    def with_an_old_clock(**told: Any) -> list[str]:
        base = (began - BEHIND).strftime("%Y-%m-%dT%H:%M:%S")
        return [*machine.arguments(**told), "-rtc", f"base={base}"]

    monkeypatch.setattr(qemu, "arguments", with_an_old_clock)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    boot, amphora = await born(tmp_path, port, lambda: began - BORN)
    async with machine_world(tmp_path, "http", boot=boot, amphora=amphora, heartbeats_to=port) as world:
        await assert_restored(world, began)
        again = datetime.now(UTC)
        monkeypatch.chdir(tmp_path / "machines" / AMPHORA)  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect("monitor")
            monitor.sendall(b"system_reset\n")
            async with asyncio.timeout(PATIENCE_S):  # the connection stays: QEMU passes over what a lost one has said
                while not (await world.heartbeat()).empty:
                    pass
        await answering(world.driver, world.amphora, TREE, tmp_path)
        await plugged(world.driver, world.amphora, TREE)
        await assert_restored(world, again)
