"""The driver: everything that Frontinus asks of an amphora type, in one class.

Renders a JSON text, carries it over a connection that both sides prove themselves on, decodes heartbeats. What each
method promises stands in frontinus/drivers/amphora/interface.py, and `frontinus driver check` examines it. Keeps nothing
of an amphora in memory, so any controller can do the next step."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from frontinus.drivers.amphora.interface import AmphoraDriver, AmphoraInfo, Applied, Refused, Rendered
from frontinus.model.boot import BootFiles
from frontinus.model.capabilities import Capabilities
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.enums import HealthMonitorType, LbAlgorithm, ListenerProtocol, PoolProtocol
from frontinus.model.errors import BindRefused, Incompatible, Invalid, RefusedBind, Rejected, Retry
from frontinus.model.heartbeat import Counters, Heartbeat, ListenerReport, PoolReport
from frontinus.model.ids import AmphoraId
from frontinus.model.previews import Preview, unified
from frontinus.model.tree import Amphora, Listener, LoadBalancerTree, Pool
from frontinus_trickle import __version__, wire

PROTOCOL = 1

CAPABILITIES = Capabilities(
    listener_protocols=frozenset({ListenerProtocol.TCP}),
    pool_protocols=frozenset({PoolProtocol.TCP}),
    lb_algorithms=frozenset({LbAlgorithm.ROUND_ROBIN, LbAlgorithm.LEAST_CONNECTIONS, LbAlgorithm.SOURCE_IP}),
    health_monitor_types=frozenset({HealthMonitorType.TCP}),
    features=frozenset({"allowed_cidrs", "connection_limit"}),
)
"""Start with little: what does not stand here the API refuses by name, and a tenant can be refused nothing that is ignored."""


@dataclass(frozen=True)
class TrickleSettings:
    """[driver_options.trickle] in the configuration file. The first three are filled in by Frontinus."""

    state_dir: Path = Path()
    """Where the master key is kept, in `trickle.key`; all controllers and health receivers need the same."""

    heartbeat_destinations: tuple[str, ...] = ()
    """Where amphorae send their heartbeats, as address:port."""

    heartbeat_interval: timedelta = timedelta(seconds=1)

    agent_port: int = 9444
    """Where amphorae listen on their management addresses."""

    apply_timeout: timedelta = timedelta(seconds=20)

    def check(self) -> None:
        """Raise Invalid for what cannot be; `frontinus config check` asks."""
        if not 0 < self.agent_port < 65_536:
            raise Invalid("agent_port", f"must be from 1 to 65535, not {self.agent_port}")


class TrickleDriver(AmphoraDriver):
    """See the interface, whose docstrings are the law."""

    Settings: ClassVar[type[TrickleSettings]] = TrickleSettings
    name: ClassVar[str] = "trickle"
    version: ClassVar[str] = __version__
    interface: ClassVar[int] = 1
    amphora_versions: ClassVar[str] = ">=1,<2"
    capabilities: ClassVar[Capabilities] = CAPABILITIES

    def __init__(self, settings: TrickleSettings) -> None:
        self._settings = settings
        self._master = _master_key(settings.state_dir / "trickle.key")

    @property
    def heartbeat_prefixes(self) -> tuple[bytes, ...]:
        return (wire.MAGIC,)

    # On paper

    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        wanted = tree.wanted()
        up = wanted.load_balancer.admin_state_up
        listeners = [x for x in wanted.listeners if x.admin_state_up and up]
        pools = {pool.id: _pool(pool, wanted) for x in listeners for pool in wanted.pools_of(x)}
        document = {
            "load_balancer": wanted.id,
            "listeners": [_listener(x, wanted) for x in sorted(listeners, key=lambda x: x.id)],
            "pools": pools,
        }
        # Indented, so that a preview's diff is one line for each thing that changed; sorted, so that it is always the same.
        text = json.dumps(document, indent=1, sort_keys=True) + "\n"
        return Rendered(text=text, digest=sha256(text.encode()).hexdigest())

    def preview(self, before: Rendered | None, after: Rendered | None) -> Preview:
        old, new = ("" if x is None else x.text for x in (before, after))
        if old == new:
            return Preview(action="unchanged")
        return Preview(action=_action(_listens(old), _listens(new)), diff=unified(old, new, "trickle"))

    def boot_files(self, amphora_id: AmphoraId, management_address: str) -> BootFiles:
        settings = {
            "amphora_id": amphora_id,
            "key": wire.key_of(self._master, amphora_id).hex(),
            "host": management_address,
            "port": self._settings.agent_port,
            "directory": "{place}",
            "heartbeat_destinations": list(self._settings.heartbeat_destinations),
            "heartbeat_interval": self._settings.heartbeat_interval.total_seconds(),
        }
        return BootFiles(files={"agent.conf": json.dumps(settings, indent=1).encode()})

    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        try:
            beat = wire.opened_beat(self._master, datagram)
        except wire.Forged as forged:
            raise Refused(str(forged)) from None
        try:
            told = _BODY.decode(beat.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused("message makes no sense", str(error)) from error
        return Heartbeat(
            amphora_id=AmphoraId(beat.amphora_id),
            boot=beat.boot,
            sequence=beat.sequence,
            incremental=False,
            listeners={
                listener_id: ListenerReport(
                    status=x.status,
                    counters=Counters(
                        bytes_in=x.bytes_in,
                        bytes_out=x.bytes_out,
                        active_connections=x.active,
                        total_connections=x.total,
                        request_errors=x.errors,
                    ),
                    since=x.since,
                )
                for listener_id, x in told.listeners.items()
            },
            pools={pool_id: PoolReport(status=x.status, members=x.members) for pool_id, x in told.pools.items()},
        )

    # An amphora

    async def apply(self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        body = {"digest": rendered.digest, "text": rendered.text}
        told = await self._ask(amphora, "apply", body, self._settings.apply_timeout)
        if told.get("refused_binds"):
            raise BindRefused(tuple(RefusedBind(**bind) for bind in told["refused_binds"]))
        if "rejected" in told:
            raise Rejected("text", str(told["rejected"]))
        return Applied(digest=rendered.digest, action=told["action"], balancer_version=told["version"])

    async def info(self, amphora: Amphora, tree: LoadBalancerTree) -> AmphoraInfo:
        told = await self._ask(amphora, "info", {}, timedelta(seconds=2))
        return AmphoraInfo(
            agent_version=told["version"],
            balancer_version=told["version"],
            extension=None,
            running=told["running"],
            digest=told["digest"],
        )

    async def retire(self, amphora: Amphora, tree: LoadBalancerTree) -> None:
        await self._ask(amphora, "retire", {}, self._settings.apply_timeout)

    async def _ask(self, amphora: Amphora, verb: str, body: Mapping[str, Any], limit: timedelta) -> dict[str, Any]:
        """One exchange. Raises Retry when the agent does not answer as it should, and Incompatible."""
        where = amphora.management_address or "no address"
        try:
            async with asyncio.timeout(limit.total_seconds()):
                answer = await self._exchange(where, wire.key_of(self._master, amphora.id), {"verb": verb, **body})
        except (OSError, TimeoutError, EOFError, ValueError, wire.Forged) as error:
            raise Retry(
                f"the agent at {where} does not answer: {type(error).__name__} {error}; read agent.log in its place",
                after=1.0,
                code="agent-unreachable",
            ) from error
        if answer.get("protocol") != PROTOCOL:
            raise Incompatible(str(answer.get("version")), self.amphora_versions)
        return answer

    async def _exchange(self, address: str, key: bytes, question: dict[str, Any]) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection(address, self._settings.agent_port, limit=wire.LARGEST_LINE)
        try:
            nonce = (await reader.readuntil()).decode().strip()
            writer.write(wire.sealed(key, nonce, "question", question))
            await writer.drain()
            return wire.opened(key, nonce, "answer", await reader.readuntil())
        finally:
            writer.close()


# Rendering


def _listener(listener: Listener, tree: LoadBalancerTree) -> dict[str, object]:
    limit = listener.connection_limit
    return {
        "id": listener.id,
        "address": tree.load_balancer.vip.address,
        "port": listener.protocol_port,
        "pool": listener.default_pool_id,
        "limit": None if limit in (None, -1) else limit,
        "allowed_cidrs": sorted(listener.allowed_cidrs),
        "client_timeout_ms": listener.timeout_client_data,
        "connect_timeout_ms": listener.timeout_member_connect,
        "member_timeout_ms": listener.timeout_member_data,
    }


def _pool(pool: Pool, tree: LoadBalancerTree) -> dict[str, object]:
    members = [x for x in tree.members_of(pool.id) if x.admin_state_up] if pool.admin_state_up else []
    monitor = tree.health_monitor_of(pool.id)
    return {
        "algorithm": pool.lb_algorithm,
        "members": [
            {
                "id": x.id,
                "address": x.address,
                "port": x.protocol_port,
                "weight": 1 if x.weight is None else x.weight,
            }
            for x in sorted(members, key=lambda x: x.id)
        ],
        "monitor": None
        if monitor is None or not monitor.admin_state_up
        else {
            "delay_s": monitor.delay,
            "timeout_s": monitor.timeout,
            "rise": monitor.max_retries,
            "fall": monitor.max_retries_down,
        },
    }


def _listens(text: str) -> bool:
    return bool(text) and bool(json.loads(text)["listeners"])


def _action(before: bool, after: bool) -> str:
    """As amphora.py does it: whatever runs takes a new configuration without a new start of anything."""
    match before, after:
        case False, True:
            return "start"
        case True, True:
            return "runtime"
        case True, False:
            return "stop"
        case _:
            return "unchanged"


# Heartbeats

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Listener(msgspec.Struct):
    status: str
    bytes_in: _Count
    bytes_out: _Count
    active: _Count
    total: _Count
    errors: _Count
    since: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Pool(msgspec.Struct):
    status: str
    members: dict[str, str]


class _Body(msgspec.Struct):
    listeners: dict[str, _Listener]
    pools: dict[str, _Pool]


_BODY = msgspec.json.Decoder(_Body)


def _master_key(file: Path) -> bytes:
    """The key of the installation, made on first use: whole or not at all, and the first to make it wins."""
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        scratch.touch(mode=0o600)
        scratch.write_bytes(secrets.token_bytes(32))
        try:
            file.hardlink_to(scratch)
        except FileExistsError:
            pass
        finally:
            scratch.unlink()
    return file.read_bytes()
