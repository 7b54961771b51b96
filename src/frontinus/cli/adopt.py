"""`frontinus adopt octavia`: take over the load balancers of an Octavia, or tell what that would be.

Joins what adoption/ judges with the settings, the drivers and the store of this installation. Nothing outside is touched: no
amphora is spoken to, and Octavia's database is only read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from frontinus.adoption.octavia import judge
from frontinus.adoption.octavia_settings import OctaviaSettings, read_settings
from frontinus.adoption.snapshot import Snapshot, read
from frontinus.cli.adopt_ports import hang
from frontinus.cli.adopt_report import Report, report_of, tell, tell_json
from frontinus.cli.adopt_secrets import register, sort_by_readable
from frontinus.cli.output import complain, in_words, say, settings_or_exit
from frontinus.drivers.amphora.agent.octavia_authority import OctaviaAuthority, digest_of, plain_authority
from frontinus.drivers.amphora.agent.settings import AgentDriverSettings
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.compute.interface import ADOPTS
from frontinus.drivers.network.interface import ADOPTS as ADOPTS_PORTS
from frontinus.drivers.secret.interface import SecretDriver
from frontinus.main import Drivers
from frontinus.main import check as check_settings
from frontinus.model.capabilities import with_compute, with_network
from frontinus.model.errors import Conflict, FrontinusError, Invalid
from frontinus.model.ports import PORTS
from frontinus.settings import Settings
from frontinus.store import adoption
from frontinus.store.engine import Store

QUIET_S = 60
"""An Octavia whose health manager noted a heartbeat so lately still runs. Its own amphorae beat every ten seconds."""


def run(
    file: Path | None,
    overrides: dict[str, object],
    *,
    db: str | None,
    octavia_config: Path,
    carry_out: bool,
    as_json: bool,
) -> int:
    """Exit status 0: it is done, or could be; 1: something is in the way, or something is left alone; 2: what can never
    be."""
    settings = settings_or_exit(file, overrides)
    try:
        theirs = read_settings(octavia_config)
        url = db or theirs.connection
        if url is None:
            raise Invalid("db", f"is not given, and {octavia_config} has no [database] connection")
        return asyncio.run(_adopt(settings, theirs, url, carry_out=carry_out, as_json=as_json))
    except Invalid as error:
        complain(str(error))
        return 2
    except (FrontinusError, OSError, ValueError) as error:
        complain(in_words(error))
        return 1


async def _adopt(settings: Settings, theirs: OctaviaSettings, url: str, *, carry_out: bool, as_json: bool) -> int:
    ours = _agent_settings(settings)
    authority = plain_authority(theirs.server_authority, theirs.server_authority_key, theirs.passphrase)
    snapshot = await read(url)
    drivers = Drivers(settings, settings.health.bind_port)
    now = datetime.now(UTC)
    try:
        offered = with_network(drivers.amphora.offers(), drivers.network.features)
        capabilities = with_compute(offered, drivers.compute.placement_words)
        findings = judge(snapshot, capabilities, digest_of(authority), now)
        obstacles = list(_obstacles(snapshot, settings, ours, theirs, drivers))
        readable, unreadable = await sort_by_readable(findings.trees, drivers.secret)
        if finds_ports(drivers):
            trees, unhung = await hang(readable, drivers.network)
        else:
            trees, unhung = readable, []
        report = report_of(findings, trees, (*findings.left_alone, *unreadable, *unhung), obstacles, theirs)
        if not as_json:
            tell(report)
        status = 1 if report.obstacles or report.left else 0
        taken = there = trouble = 0
        does = carry_out and not report.obstacles
        if does:
            OctaviaAuthority.keep(ours.authority_directory, authority, theirs.client)
            taken, there, trouble = await _carry_out(settings, report, drivers.secret)
    finally:
        await drivers.close()
    if as_json:
        tell_json(report, done=does, taken=taken, there=there)
    elif does:
        say(f"Taken over: {taken} load balancers. Here already: {there}.")
    else:
        say("Nothing was done." if carry_out else "Nothing was done. With --yes it is.")
    return trouble or status


async def _carry_out(settings: Settings, report: Report, secret: SecretDriver) -> tuple[int, int, int]:
    """Each thing in a transaction of its own: what was interrupted is gone on with by the same command. How many load balancers
    were taken over, how many were here already, and exit status 1 when an offer could not be."""
    store, now = Store.open(settings.database_url, connections=1), datetime.now(UTC)
    taken = there = trouble = 0
    try:
        if settings.is_embedded:
            store.upgrade()
        for offer in report.findings.offers:
            try:
                await store.transact(partial(adoption.add_offer, offer=offer))
            except Conflict as error:
                complain(f"{offer.kind.replace('_', ' ')} {offer.name} is left alone: {error.reason}")
                trouble = 1
        for project_id, limits in report.findings.quotas.items():
            await store.transact(partial(adoption.add_quota, project_id=project_id, limits=limits, now=now))
        for tree in report.trees:
            await register(tree, secret)
            if await store.transact(partial(adoption.add_tree, tree=tree)):
                taken += 1
            else:
                there += 1
    finally:
        await store.close()
    return taken, there, trouble


def finds_ports(drivers: Drivers) -> bool:
    """Whether the ports of amphorae that somebody else built are known, or there is nothing to be known."""
    return PORTS not in drivers.network.features or ADOPTS_PORTS in drivers.network.features


def _agent_settings(settings: Settings) -> AgentDriverSettings:
    found = check_settings(settings).get(settings.drivers.amphora)
    if not isinstance(found, HaproxySettings):
        raise Invalid(
            "drivers.amphora", f"{settings.drivers.amphora!r} does not speak to amphorae of Octavia; haproxy does"
        )
    return found


def _obstacles(
    snapshot: Snapshot, settings: Settings, ours: AgentDriverSettings, theirs: OctaviaSettings, drivers: Drivers
) -> Sequence[str]:
    """Why nothing is to be taken over yet, and what to do about each."""
    option = f"driver_options.{settings.drivers.amphora}"
    found: list[str] = []
    if snapshot.heard_s is not None and snapshot.heard_s < QUIET_S:
        found.append(
            f"Octavia's health manager noted a heartbeat {snapshot.heard_s} s ago: stop its API, workers, housekeeping and "
            f"health managers, all of them, and wait {QUIET_S} s; two controllers of one amphora undo each other's work"
        )
    if not ours.accept_plain or ours.plain_heartbeat_key != theirs.heartbeat_key:
        found.append(
            f"the amphorae's heartbeats would be refused: set {option}.accept_plain = true and {option}.plain_heartbeat_key "
            "to [health_manager] heartbeat_key of Octavia, for controllers and health receivers"
        )
    if ours.plain_base_path.rstrip("/") != theirs.base_path.rstrip("/"):
        found.append(f"set {option}.plain_base_path to {theirs.base_path}, where Octavia's amphorae keep things")
    if ADOPTS not in drivers.compute.features:
        found.append(
            f"compute driver {settings.drivers.compute} does not know the servers that Octavia built, and would take its "
            "amphorae for vanished: set drivers.compute to one that does"
        )
    if not finds_ports(drivers):
        found.append(
            f"network driver {settings.drivers.network} makes ports, and does not find those of Octavia's amphorae: it would give "
            "each a second one; set drivers.network to one that does"
        )
    return found
