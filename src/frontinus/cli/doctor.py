"""`frontinus doctor`: look at everything that an installation needs, and say of each what to do.

Changes nothing, and works beside a running installation as well as before its first start."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from frontinus.cli.findings import conclude, show
from frontinus.cli.output import in_words, settings_or_exit
from frontinus.loading import DRIVER_KINDS
from frontinus.main import Drivers
from frontinus.main import check as check_settings
from frontinus.model.errors import FrontinusError, Invalid
from frontinus.model.findings import Finding, fine, trouble, warning
from frontinus.settings import Settings
from frontinus.store import controllers, diagnosis, health, receivers
from frontinus.store.engine import Store, Transaction

CLOCK_OFF = timedelta(seconds=1)
SLOW_DATABASE_S = 0.05
CONTROLLER_ALIVE = timedelta(seconds=15)
HEARD_LATELY = timedelta(seconds=15)
FREE_BYTES = 512 << 20


def run(file: Path | None, overrides: dict[str, object], *, as_json: bool) -> int:
    """Exit status 0 when there is no trouble, else 1; 2 for settings that cannot be."""
    settings = settings_or_exit(file, overrides)
    return conclude(asyncio.run(_collect(settings, as_json=as_json)), as_json=as_json)


async def _collect(settings: Settings, *, as_json: bool) -> list[Finding]:
    found = []
    async for finding in _examine(settings):
        found.append(finding)
        if not as_json:
            show(finding)
    return found


async def _examine(settings: Settings) -> AsyncIterator[Finding]:
    try:
        check_settings(settings)
    except Invalid as error:
        yield trouble("settings", str(error), "correct it; `frontinus config check` prints every setting")
        return
    yield fine("settings", "can work together")
    for finding in _state_directory(settings):
        yield finding
    async for finding in _database(settings):
        yield finding
    yield _api(settings)
    async for finding in _drivers(settings):
        yield finding


def _state_directory(settings: Settings) -> Iterator[Finding]:
    directory = settings.state_dir
    if not directory.is_dir():
        yield warning("state", f"{directory} does not exist yet", "it is made by the first start")
        return
    if not os.access(directory, os.W_OK | os.X_OK):
        yield trouble("state", f"this user may not write {directory}", "run as its owner, or give another --state-dir")
    elif directory.stat().st_mode & 0o077:
        yield trouble("state", f"others may look into {directory}", f"chmod go= {directory}")
    elif (free := shutil.disk_usage(directory).free) < FREE_BYTES:
        yield warning("state", f"{free >> 20} MiB are free on the disk of {directory}", "make room")
    else:
        yield fine("state", str(directory))


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    if not settings.database and not (settings.state_dir / "frontinus.sqlite").exists():
        yield warning("database", "there is none yet", "it is made by the first start")
        return
    store = Store.open(settings.database_url, connections=1)
    shown = settings.database.without_password() if settings.database else "SQLite in the state directory"
    try:
        missing = store.missing_steps()
        if missing:
            yield trouble("database", f"{shown} lacks {len(missing)} migrations", "frontinus db upgrade")
            return
        if missing is None:
            yield warning("database", f"{shown} was upgraded by a newer version", "install that version here too")
        started = time.perf_counter()
        there = await store.read(diagnosis.clock)
        took = time.perf_counter() - started
        if took > SLOW_DATABASE_S:
            yield warning("database", f"{shown} answers in {took * 1000:.0f} ms", "put it nearer, or see what holds it")
        else:
            yield fine("database", f"{shown}, answers in {took * 1000:.1f} ms")
        off = there - datetime.now(UTC)
        if abs(off) > CLOCK_OFF:
            yield trouble(
                "clock", f"it differs from the database's by {off.total_seconds():+.1f} s", "let NTP set both clocks"
            )
        else:
            yield fine("clock", "agrees with the database's")
        for finding in await store.read(_processes):
            yield finding
    except FrontinusError as error:
        yield trouble("database", f"{shown}: {in_words(error)}", "start it, or correct `database`")
    finally:
        await store.close()


def _processes(tx: Transaction) -> list[Finding]:
    now = datetime.now(UTC)
    found = []
    alive = [x for x in controllers.running(tx) if abs(now - x.seen_at) < CONTROLLER_ALIVE]
    names = sorted({f"{x.driver} {x.driver_version} on {x.host}" for x in alive})
    if alive:
        found.append(fine("controllers", ", ".join(names)))
    else:
        found.append(trouble("controllers", "none runs: nothing is changed or healed", "start `frontinus up`"))
    ears = [x for x in receivers.all_receivers(tx) if x.is_alive(now)]
    if not ears:
        found.append(trouble("receivers", "none runs: silence is not noticed", "start `frontinus up`"))
    for ear in ears:
        where = f"UDP port {ear.port} on {ear.host}"
        found.append(udp_path(where, ear.host, ear.port))
        if ear.braked:
            told = f"{where} brakes: {ear.silent} of {ear.watched} are silent at once"
            found.append(trouble("receivers", told, "look at the network between amphorae and receiver"))
    fleet = health.fleet(tx)
    heard = sum(x.seen_at is not None and now - x.seen_at < HEARD_LATELY for x in fleet)
    if heard == len(fleet):
        found.append(fine("heartbeats", f"{heard} of {len(fleet)} amphorae were heard lately"))
    else:
        told = f"{len(fleet) - heard} of {len(fleet)} amphorae were not heard for {HEARD_LATELY.seconds} s"
        found.append(warning("heartbeats", told, "see `frontinus status`; is UDP let through to the receivers?"))
    return found


def udp_path(where: str, host: str, port: int) -> Finding:
    """A datagram that nobody takes is answered by the kernel, where the receiver is on this machine or nothing filters. One
    on this machine may listen where only amphorae are (network driver `bridge`): the kernel is asked where."""
    address = _listened_on(port) or "127.0.0.1" if host == socket.gethostname() else host
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.2)
            probe.connect((address, port))
            probe.send(b"")  # no heartbeat: refused before anything of it is read
            with contextlib.suppress(TimeoutError):
                probe.recv(1)
    except OSError as error:
        return trouble("receivers", f"{where}: {in_words(error)}", "start it, or let UDP through")
    return fine("receivers", f"{where} can be reached from here")


def _listened_on(port: int) -> str | None:
    """The address of this machine where somebody takes datagrams for this port, by /proc/net/udp (proc(5))."""
    for table in ("udp", "udp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            words, _, number = line.split()[1].partition(":")
            if int(number, 16) == port:
                # Words of 32 bits, each as this machine has it.
                each = (int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
                address = ip_address(b"".join(each))
                if address.is_unspecified:
                    return "127.0.0.1" if address.version == 4 else "::1"
                return str(address)
    return None


def _api(settings: Settings) -> Finding:
    host, port = settings.api.bind_host, settings.api.bind_port
    if port == 0:
        return fine("api", "takes any free port")
    where = f"{host} port {port}"
    connection = http.client.HTTPConnection("127.0.0.1" if host == "0.0.0.0" else host, port, timeout=3)
    try:
        connection.request("GET", "/")
        body = json.loads(connection.getresponse().read())
        is_ours = isinstance(body, dict) and "versions" in body
    except ConnectionRefusedError:
        return warning("api", f"nothing listens on {where}", "start `frontinus up` or `frontinus api`")
    except (OSError, ValueError, http.client.HTTPException):
        is_ours = False
    finally:
        connection.close()
    if is_ours:
        return fine("api", f"answers on {where}")
    return trouble("api", f"another program listens on {where}", "set another api.bind_port")


async def _drivers(settings: Settings) -> AsyncIterator[Finding]:
    drivers = Drivers(settings, settings.health.bind_port)
    # Some make their directories when they are built, and nothing is to be changed here.
    kinds = DRIVER_KINDS if settings.state_dir.is_dir() else ("compute", "network")
    try:
        for kind in kinds:
            name = getattr(settings.drivers, kind)
            try:
                for finding in await getattr(drivers, kind).examine():
                    yield finding
            except FrontinusError as error:
                yield trouble(kind, f"driver {name}: {in_words(error)}", "see its settings in [driver_options]")
    finally:
        await drivers.close()
