"""`frontinus adopt octavia`: take over the load balancers of an Octavia, or tell what that would be.

Joins what adoption/ judges with the settings, the drivers and the store of this installation. Nothing outside is touched: no
amphora is spoken to, and Octavia's database is only read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from frontinus.adoption.octavia import Findings, LeftAlone, judge
from frontinus.adoption.octavia_settings import OctaviaSettings, read_settings
from frontinus.adoption.snapshot import Snapshot, read
from frontinus.cli.output import complain, in_words, say, settings_or_exit
from frontinus.drivers.amphora.agent.octavia_authority import OctaviaAuthority, digest_of, plain_authority
from frontinus.drivers.amphora.agent.settings import AgentDriverSettings
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.compute.interface import ADOPTS
from frontinus.drivers.secret.interface import SecretDriver
from frontinus.main import Drivers
from frontinus.main import check as check_settings
from frontinus.model.capabilities import with_network
from frontinus.model.certificates import SecretKind, SecretUse, secret_uses
from frontinus.model.errors import CallerError, Conflict, FrontinusError, Invalid, Retry
from frontinus.model.ids import ProjectId
from frontinus.model.tree import LoadBalancerTree
from frontinus.settings import Settings
from frontinus.store import adoption
from frontinus.store.engine import Store

QUIET_S = 60
"""An Octavia whose health manager noted a heartbeat so lately still runs. Its own amphorae beat every ten seconds."""


def run(
    file: Path | None, overrides: dict[str, object], *, db: str | None, octavia_config: Path, carry_out: bool
) -> int:
    """Exit status 0: it is done, or could be; 1: something is in the way, or something is left alone; 2: what can never
    be."""
    settings = settings_or_exit(file, overrides)
    try:
        theirs = read_settings(octavia_config)
        url = db or theirs.connection
        if url is None:
            raise Invalid("db", f"is not given, and {octavia_config} has no [database] connection")
        return asyncio.run(_adopt(settings, theirs, url, carry_out=carry_out))
    except Invalid as error:
        complain(str(error))
        return 2
    except (FrontinusError, OSError, ValueError) as error:
        complain(in_words(error))
        return 1


async def _adopt(settings: Settings, theirs: OctaviaSettings, url: str, *, carry_out: bool) -> int:
    ours = _agent_settings(settings)
    authority = plain_authority(theirs.server_authority, theirs.server_authority_key, theirs.passphrase)
    snapshot = await read(url)
    drivers = Drivers(settings, settings.health.bind_port)
    now = datetime.now(UTC)
    try:
        capabilities = with_network(drivers.amphora.offers(), drivers.network.features)
        findings = judge(snapshot, capabilities, digest_of(authority), now)
        obstacles = list(_obstacles(snapshot, settings, ours, theirs, adopts=ADOPTS in drivers.compute.features))
        trees, unreadable = await _readable(findings.trees, drivers.secret)
    finally:
        await drivers.close()
    left = (*findings.left_alone, *unreadable)
    _tell(findings, trees, left, theirs)
    for obstacle in obstacles:
        complain(obstacle)
    if not carry_out:
        say("Nothing was done. With --yes it is.")
        return 1 if obstacles or left else 0
    if obstacles:
        complain("nothing was done")
        return 1
    OctaviaAuthority.keep(ours.authority_directory, authority, theirs.client)
    return await _carry_out(settings, findings, trees, now) or (1 if left else 0)


async def _carry_out(settings: Settings, findings: Findings, trees: Sequence[LoadBalancerTree], now: datetime) -> int:
    """Each thing in a transaction of its own: what was interrupted is gone on with by the same command."""
    store = Store.open(settings.database_url, connections=1)
    taken = there = trouble = 0
    try:
        if settings.is_embedded:
            store.upgrade()
        for offer in findings.offers:
            try:
                await store.transact(partial(adoption.add_offer, offer=offer))
            except Conflict as error:
                complain(f"{offer.kind.replace('_', ' ')} {offer.name} is left alone: {error.reason}")
                trouble = 1
        for project_id, limits in findings.quotas.items():
            await store.transact(partial(adoption.add_quota, project_id=project_id, limits=limits, now=now))
        for tree in trees:
            if await store.transact(partial(adoption.add_tree, tree=tree)):
                taken += 1
            else:
                there += 1
    finally:
        await store.close()
    say(f"Taken over: {taken} load balancers. Here already: {there}.")
    return trouble


def _agent_settings(settings: Settings) -> AgentDriverSettings:
    found = check_settings(settings).get(settings.drivers.amphora)
    if not isinstance(found, HaproxySettings):
        raise Invalid(
            "drivers.amphora", f"{settings.drivers.amphora!r} does not speak to amphorae of Octavia; haproxy does"
        )
    return found


def _obstacles(
    snapshot: Snapshot, settings: Settings, ours: AgentDriverSettings, theirs: OctaviaSettings, *, adopts: bool
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
    if not adopts:
        found.append(
            f"compute driver {settings.drivers.compute} does not know the servers that Octavia built, and would take its "
            "amphorae for vanished: set drivers.compute to one that does"
        )
    return found


async def _readable(
    trees: Sequence[LoadBalancerTree], secret: SecretDriver
) -> tuple[list[LoadBalancerTree], list[LeftAlone]]:
    """Those whose certificates our secret driver can read: the others could not be pushed."""
    readable: list[LoadBalancerTree] = []
    left: list[LeftAlone] = []
    for tree in trees:
        try:
            for use in secret_uses(tree):
                await _look_at(use, tree.load_balancer.project_id, secret)
        except (CallerError, Retry) as error:
            load_balancer = tree.load_balancer
            reason = f"a secret that it uses cannot be read by secret driver {secret.name}: {in_words(error)}"
            left.append(LeftAlone(kind="load balancer", id=load_balancer.id, name=load_balancer.name, reason=reason))
        else:
            readable.append(tree)
    return readable, left


async def _look_at(use: SecretUse, project_id: ProjectId, secret: SecretDriver) -> None:
    match use.kind:
        case SecretKind.CERTIFICATE:
            await secret.certificate(use.reference, project_id)
        case SecretKind.AUTHORITIES:
            await secret.authorities(use.reference, project_id)
        case SecretKind.REVOCATIONS:
            await secret.revocations(use.reference, project_id)


def _tell(
    findings: Findings, trees: Sequence[LoadBalancerTree], left: Sequence[LeftAlone], theirs: OctaviaSettings
) -> None:
    for tree in trees:
        load_balancer, amphorae = tree.load_balancer, ", ".join(x.id for x in tree.amphorae)
        say(f"take over  load balancer {load_balancer.id} {load_balancer.name} with its amphorae {amphorae}")
    for note in findings.notes:
        say(f"note       {note.kind} {note.id} {note.name}: {note.text}")
    for offer in findings.offers:
        say(f"take over  {offer.kind.replace('_', ' ')} {offer.name}")
    if findings.quotas:
        say(f"take over  quotas of {len(findings.quotas)} projects")
    for alone in left:
        say(f"leave      {alone.kind} {alone.id} {alone.name}: {alone.reason}")
    say(
        f"{len(trees)} load balancers can be taken over; {len(left)} things are left alone. Their heartbeats go to "
        f"{', '.join(theirs.heartbeat_receivers) or 'nobody'}: health receivers must listen there."
    )
