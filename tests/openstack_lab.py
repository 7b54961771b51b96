"""Real OpenStack services for tests: the lab that lies beside the project (its README says what is in it).

The lab is found by FRONTINUS_OPENSTACK_LAB, or as shared/lab/openstack beside the repository or above it. It is copied to
OST_ROOT (/var/tmp/ostack) and started there when it does not run: three minutes the first time, and it needs root. It is left
running, since starting it takes longer than most that is done with it: `down.sh` in that directory ends it."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openstack
import pytest
from keystoneauth1.session import TCPKeepAliveAdapter
from openstack.connection import Connection

from frontinus.drivers.openstack.cloud import open_connection
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.testing.faults import Killed

REPOSITORY = Path(__file__).resolve().parents[1]
ROOT = Path(os.environ.get("OST_ROOT", "/var/tmp/ostack"))
START_TIMEOUT_S = 900
SERVICES = {"keystone": 17050, "neutron": 17096, "nova": 17074, "glance": 17092, "barbican": 17011}

ADMIN, OURS, TENANT = "ost-admin", "ost-lbaas", "ost-demo"
"""Entries of its clouds.yaml: an administrator, the account that Frontinus works as, and a tenant."""


def clouds_file(level: int = 1) -> Path:
    """clouds.yaml of a lab that runs; started if it does not. Ends the test, saying why, where that cannot be.

    `level` 1: services with hosts that run nothing; 2: a host beside them whose servers are real, and routers."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several who want it at once one starts it
        if not _answers() or (level > 1 and not _runs_real_servers()):
            _start(_found(), level)
    return ROOT / "state" / "clouds.yaml"


def connect(cloud: str) -> Connection:
    """For looking behind the driver's back."""
    os.environ["OS_CLIENT_CONFIG_FILE"] = str(clouds_file())
    return openstack.connect(cloud=cloud)


class Deadly(TCPKeepAliveAdapter):
    """Whoever sends by it dies just before the request of this number, and at every later one; 0: never. `made` counts."""

    def __init__(self, fatal: int) -> None:
        super().__init__()
        self.fatal, self.made = fatal, 0

    def send(self, *words: Any, **named: Any) -> Any:
        self.made += 1
        if self.fatal and self.made >= self.fatal:
            raise Killed
        return super().send(*words, **named)


def over(adapter: TCPKeepAliveAdapter) -> Callable[[OpenStackSettings], Connection]:
    """The connection of a driver whose requests all go through this adapter."""

    def connect(settings: OpenStackSettings) -> Connection:
        connection = open_connection(settings)
        sending: Any = connection.session.session
        sending.mount("http://", adapter)
        return connection

    return connect


def _address() -> str:
    return f"{os.environ.get('OST_NET', '10.64')}.255.2"


def _answers() -> bool:
    if not (ROOT / "state" / "clouds.yaml").exists():
        return False
    for port in SERVICES.values():
        try:
            socket.create_connection((_address(), port), timeout=2).close()
        except OSError:
            return False
    return True


def _runs_real_servers() -> bool:
    return all((ROOT / "state" / "pid" / name).exists() for name in ("nova-tcg1", "l3-agent"))


def _found() -> Path:
    named = os.environ.get("FRONTINUS_OPENSTACK_LAB")
    places = [Path(named)] if named else [x / "shared" / "lab" / "openstack" for x in REPOSITORY.parents]
    for place in places:
        if (place / "up.sh").is_file():
            return place
    pytest.fail(
        f"this test needs real OpenStack services, and there is no lab at {places[0]}: set FRONTINUS_OPENSTACK_LAB to the "
        "directory that has its up.sh"
    )


def _start(lab: Path, level: int) -> None:
    if os.geteuid() != 0:
        pytest.fail("this test starts OpenStack services in namespaces, for which it must be run as root")
    own = ROOT / "lab"  # the lab may lie where nothing can be written
    if not own.exists():
        shutil.copytree(lab, own)
        for path in own.rglob("*"):
            path.chmod(path.stat().st_mode | 0o200)
    wanted = max(level, int(os.environ.get("OST_LEVEL", "1")))
    environment = {"OST_L3": "1", **os.environ, "OST_LEVEL": str(wanted), "OST_ROOT": str(ROOT)}
    with (ROOT / "up.log").open("w") as log:
        done = subprocess.run(
            [own / "up.sh"], env=environment, stdout=log, stderr=log, timeout=START_TIMEOUT_S, check=False
        )
    if done.returncode != 0 or not _answers():
        pytest.fail(f"the lab did not start; {ROOT / 'up.log'} ends with:\n{(ROOT / 'up.log').read_text()[-2000:]}")
