"""Load balancers on virtual machines, from the API to the answer: HTTP, TLS and UDP, boots measured, a machine stopped on
purpose, and one that dies. Run by test_sandbox.py."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from frontinus.drivers.compute.qemu.qmp import monitor

from tests.acceptance.support import report
from tests.integration.netns.hosts import installation
from tests.integration.netns.shop import IMAGE, SERVED, VIP, Shop

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

OPTIONS = f"""
[controller]
spares = 0
[driver_options.qemu]
image = "{IMAGE}"
"""


def cpu_of(machine: Path) -> float:
    """Seconds of CPU that the machine has used."""
    fields = Path(f"/proc/{(machine / 'qemu.pid').read_text().strip()}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_machine_serves_http_tls_and_udp(tmp_path: Path) -> None:
    with installation(tmp_path, "qemu", OPTIONS) as frontinus:
        shop = Shop(frontinus)
        asked = time.monotonic()
        made = shop.create()
        frontinus.settled(made, 120)
        first = shop.machine(made)
        report(f"created to ACTIVE: {time.monotonic() - asked:.1f} s, {cpu_of(first):.1f} s of CPU")
        assert shop.answers() == SERVED

        # Stopped on purpose: nothing is torn down, and it serves again when it is started again.
        with monitor(first, "qmp", 5) as qemu:
            qemu.ask("stop")
        time.sleep(10)  # far longer than the silence after which a dead one is replaced
        assert shop.machine(made) == first
        with monitor(first, "qmp", 5) as qemu:
            qemu.ask("cont")
        frontinus.until(lambda: shop.answers() == SERVED, "it serves again", 30)

        # Started anew by itself: it has lost everything, and is filled again, or another takes its place.
        with monitor(first, "qmp", 5) as qemu:
            qemu.ask("system_reset")
        frontinus.until(lambda: not shop.client.reaches(VIP, 80), "it is away", 30)
        frontinus.until(lambda: shop.answers() == SERVED, "it serves again", 120)
        frontinus.settled(made, 60)
        first = shop.machine(made)

        # Killed: another one takes its place.
        killed = time.monotonic()
        os.kill(int((first / "qemu.pid").read_text()), signal.SIGKILL)
        frontinus.until(lambda: shop.machine(made) != first, "another machine", 30)
        frontinus.settled(made, 120)
        report(f"killed to served by another: {time.monotonic() - killed:.1f} s")
        assert shop.answers() == SERVED
        assert not first.exists()

        frontinus.call("DELETE", f"/v2.0/lbaas/loadbalancers/{made}?cascade=true")
        frontinus.until(lambda: not frontinus.call("GET", "/v2.0/octavia/amphorae")["amphorae"], "it is gone")
        assert list((tmp_path / "machines").iterdir()) == []
