"""One simulated agent: what the control plane can see of an amphora (docs/reference/agent-extension.md), and nothing else.

A request in, an answer out; no socket and no clock. It keeps text and digest as a real one does, and remembers what came,
so that a push that was made twice is seen. Next: host.py."""

from __future__ import annotations

import configparser
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import msgspec

from frontinus.model.ids import AmphoraId, ListenerId, LoadBalancerId, MemberId, PoolId
from frontinus.testing.simulated_amphorae import SimulatedAmphora

AGENT_VERSION = "0.1.0"
HAPROXY_VERSION = "2.6.12"
FEATURES = (
    "apply",
    "state",
    "heartbeat-envelope",
    "files",
    "prepared",
    "identity",
    "fence",
    "nginx",
    "datagrams",
    "vrrp",
)

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_SECTION = re.compile(rf"^(?:frontend ({_UUID})$|backend ({_UUID}):({_UUID})$|    server ({_UUID}) )", re.MULTILINE)
_BINDS = re.compile(rf"^(?:frontend ({_UUID})$|    bind (\S+):(\d+))", re.MULTILINE)


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an agent behaves from now on. One without words is a healthy agent."""

    refuse: str = ""
    """Every configuration is refused with these words, as one that its haproxy does not take."""
    fail: str = ""
    """Every apply fails by itself, with these words."""
    delay: float = 0.0
    """Seconds until an apply is answered."""
    silent: bool = False
    """No heartbeat is sent."""
    deaf: bool = False
    """No connection is taken; those that are there are broken off."""
    stopped: bool = False
    """Its place is there, and nothing runs in it; the next build starts it."""
    requests_per_beat: int = 0
    """So many connections are counted on every listener between two heartbeats."""
    errors_per_beat: int = 0
    """And so many of these were errors."""
    agent_version: str = AGENT_VERSION
    taken: tuple[tuple[str, int], ...] = ()
    """Addresses and ports that its kernel does not give."""


class Record(msgspec.Struct, kw_only=True):
    """What came to an amphora since it was built."""

    load_balancer_id: str
    pushes: int = 0
    """Applies that changed what runs, or stopped it."""
    repeats: int = 0
    """Applies of just that which ran already."""
    refused: int = 0
    fenced: int = 0
    """Changes asked for by a controller that had lost the load balancer to another."""
    renewals: int = 0
    starts: int = 0
    digests: list[str] = msgspec.field(default_factory=list)
    """Of the pushes, in order."""
    running: bool = False


class _File(msgspec.Struct):
    name: str
    sha256: str
    private: bool
    content: bytes | None = None


class _Apply(msgspec.Struct):
    config: str
    digest: str
    base: str | None
    commands: list[str]
    reload: bool
    files: list[_File] = []


class _Identity(msgspec.Struct):
    certificate: str
    client_ca: str


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    is_text: bool = False
    delay: float = 0.0


Handler: TypeAlias = "Callable[[SimulatedAgent, bytes], Answer]"


class Nonsense(Exception):
    """What an agent cannot start with. Says why."""


@dataclass(frozen=True)
class Boot:
    """What its boot files tell an agent."""

    certificate: bytes
    client_ca: bytes
    controller: str
    destinations: tuple[tuple[str, int], ...]
    interval: float
    key: bytes

    @classmethod
    def read(cls, files: Mapping[str, bytes]) -> Boot:
        """Raises Nonsense."""
        parser = configparser.ConfigParser(interpolation=None, default_section="")
        try:
            parser.read_string(files["agent.conf"].decode())
            agent, health = parser["amphora_agent"], parser["health_manager"]
            return cls(
                certificate=files[agent["agent_server_cert"].removeprefix("{place}/")],
                client_ca=files[agent["agent_server_ca"].removeprefix("{place}/")],
                controller=parser["frontinus"]["controller_identity"],
                destinations=tuple(
                    (host.strip().strip("[]"), int(port))
                    for host, _, port in (x.rpartition(":") for x in health["controller_ip_port_list"].split(",") if x)
                ),
                interval=float(health["heartbeat_interval"]),
                key=health["heartbeat_key"].encode(),
            )
        except (KeyError, ValueError, configparser.Error) as error:
            raise Nonsense(f"these are not the boot files of an agent: {error!r}") from error


@dataclass
class SimulatedAgent:
    """One amphora. `identity` is its certificate with key, and whose clients it takes; it is another object after each
    change."""

    amphora_id: AmphoraId
    load_balancer_id: LoadBalancerId
    boot: Boot
    started_at: int
    """Nanoseconds since the epoch."""
    order: Order = field(default_factory=Order)
    record: Record = field(init=False)
    identity: tuple[bytes, bytes] = field(init=False)
    text: str | None = None
    files: tuple[_File, ...] = ()
    fence: int = 0
    beats: SimulatedAmphora = field(init=False)
    _connections: int = 0
    _errors: int = 0

    def __post_init__(self) -> None:
        self.record = Record(load_balancer_id=self.load_balancer_id)
        self.start(self.boot, self.started_at)

    def start(self, boot: Boot, started_at: int) -> None:
        """It comes up with these boot files; what is on its disk is still there, and runs."""
        self.boot, self.started_at = boot, started_at
        self.identity = (boot.certificate, boot.client_ca)
        self.beats = SimulatedAmphora(self.amphora_id, boot.key, boot=started_at)
        self._serve()
        self.record.starts += 1

    @property
    def digest(self) -> str | None:
        return None if self.text is None else _digest(self.text, self.files)

    @property
    def is_reachable(self) -> bool:
        return not (self.order.deaf or self.order.stopped)

    @property
    def is_heard(self) -> bool:
        return not (self.order.silent or self.order.stopped) and bool(self.boot.destinations)

    def datagram(self) -> bytes:
        """The next heartbeat."""
        if self.order.requests_per_beat or self.order.errors_per_beat:
            self._connections += self.order.requests_per_beat
            self._errors += self.order.errors_per_beat
            self.beats.say(connections=self._connections, errors=self._errors)
        return self.beats.datagram()

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """What the agent says to a request of its controller."""
        path, _, query = path.partition("?")
        fence = int(query.removeprefix("fence=") or 0)
        if fence:
            if fence < self.fence:
                self.record.fenced += 1
                return _json(412, {"message": "fenced", "fence": self.fence})
            self.fence = fence
        handler = self._routes.get((method, path))
        if handler is None:
            for of_method, pattern, known in self._patterns:
                if of_method == method and pattern.fullmatch(path):
                    handler = known
        if handler is None:
            return _json(404, {"message": "Not Found", "details": f"{method} {path}"})
        return handler(self, body)

    # What it answers

    def _versions(self, _: bytes) -> Answer:
        return _json(200, {"api_version": "1.0"})

    def _extension(self, _: bytes) -> Answer:
        facts = {"extension": 1, "agent_version": self.order.agent_version, "haproxy_version": HAPROXY_VERSION}
        return _json(200, {**facts, "features": FEATURES})

    def _info(self, _: bytes) -> Answer:
        name = f"amphora-{self.amphora_id}"
        return _json(200, {"hostname": name, "haproxy_version": HAPROXY_VERSION, "api_version": "1.0"})

    def _state(self, _: bytes) -> Answer:
        runs = self.text is not None
        files = [{"name": x.name, "sha256": x.sha256, "private": x.private} for x in self.files]
        facts = {"digest": self.digest, "running": runs, "pid": 2 if runs else None, "workers": int(runs)}
        return _json(200, {**facts, "removing": [], "files": files})

    def _config(self, _: bytes) -> Answer:
        if self.text is None:
            return _json(404, {"message": "Listener Not Found", "details": "no load balancer is here"})
        return Answer(200, self.text.encode(), is_text=True)

    def _apply(self, body: bytes) -> Answer:
        """The batch apply, in the order of docs/reference/agent-extension.md."""
        try:
            change = msgspec.json.decode(body, type=_Apply)
        except msgspec.MsgspecError as error:
            return _json(400, {"message": "Invalid request", "details": str(error)})
        files = tuple(sorted((_File(x.name, x.sha256, x.private) for x in change.files), key=lambda x: x.name))
        if _digest(change.config, files) != change.digest:
            return _json(400, {"message": "Invalid request", "details": "it is not the digest of text and files"})
        before = self.digest
        if before == change.digest:
            self.record.repeats += 1
            return self._applied("unchanged")
        here = {(x.name, x.sha256) for x in self.files}
        missing = [x.name for x in change.files if x.content is None and (x.name, x.sha256) not in here]
        if missing or (change.base is not None and change.base != before):
            return _json(409, {"current": before, "missing": missing})
        if self.order.refuse:
            self.record.refused += 1
            return _json(400, {"message": "Invalid request", "details": self.order.refuse})
        if self.order.fail:
            self.record.refused += 1
            return _json(500, {"message": "Error reloading haproxy", "details": self.order.fail})
        binds = [x for x in _binds(change.config) if (x["address"], x["port"]) in self.order.taken]
        if binds:
            self.record.refused += 1
            return _json(422, {"message": "Ports are taken", "details": "", "binds": binds})
        self.text, self.files = change.config, files
        self._serve()
        if before is None:
            return self._applied("start")
        return self._applied("reload" if change.reload or change.base is None else "runtime")

    def _applied(self, action: str) -> Answer:
        digest = self.digest or ""
        if action != "unchanged":
            self.record.pushes += 1
            self.record.digests.append(digest)
            self.record.running = True
        facts = {"digest": digest, "action": action, "fallback": None, "took_ms": self.order.delay * 1000}
        return _json(200, facts, delay=self.order.delay)

    def _delete(self, _: bytes) -> Answer:
        if self.text is not None:
            self.record.pushes += 1
            self.record.running = False
        self.text, self.files = None, ()
        self._serve()
        return _json(200, {"message": "OK"})

    def _replace_identity(self, body: bytes) -> Answer:
        try:
            identity = msgspec.json.decode(body, type=_Identity)
        except msgspec.MsgspecError as error:
            return _json(400, {"message": "Invalid certificate", "details": str(error)})
        self.identity = (identity.certificate.encode(), identity.client_ca.encode())
        self.record.renewals += 1
        return _json(200, {"message": "OK"})

    def _rotate_certificate(self, body: bytes) -> Answer:
        self.identity = (body, self.identity[1])
        self.record.renewals += 1
        return _json(202, {"message": "OK"})

    def _serve(self) -> None:
        """Heartbeats tell of what runs."""
        listeners: list[ListenerId] = []
        pools: dict[PoolId, list[MemberId]] = {}
        members: list[MemberId] = []
        for listener, pool, _, member in _SECTION.findall(self.text or ""):
            if listener:
                listeners.append(ListenerId(listener))
            elif pool:
                # A pool stands once for each of its listeners; the last one's members are the same.
                members = pools[PoolId(pool)] = []
            else:
                members.append(MemberId(member))
        self.beats.serve(listeners, list(pools.items()) if listeners else [])

    _routes: ClassVar[dict[tuple[str, str], Handler]] = {
        ("GET", "/"): _versions,
        ("GET", "/frontinus"): _extension,
        ("GET", "/1.0/info"): _info,
        ("PUT", "/frontinus/1/identity"): _replace_identity,
        ("PUT", "/1.0/certificate"): _rotate_certificate,
    }
    _patterns: ClassVar[tuple[tuple[str, re.Pattern[str], Handler], ...]] = (
        ("GET", re.compile(f"/frontinus/1/loadbalancer/{_UUID}"), _state),
        ("PUT", re.compile(f"/frontinus/1/loadbalancer/{_UUID}"), _apply),
        ("GET", re.compile(f"/1.0/loadbalancer/{_UUID}/haproxy"), _config),
        ("DELETE", re.compile(f"/1.0/listeners/{_UUID}"), _delete),
    )


def _digest(text: str, files: tuple[_File, ...]) -> str:
    """As docs/reference/agent-extension.md has it, under Files."""
    of_text = hashlib.sha256(text.encode()).hexdigest()
    if not files:
        return of_text
    lines = [f"{x.name} {x.sha256} {'private' if x.private else 'public'}\n" for x in files]
    return hashlib.sha256("".join((f"{of_text}\n", *lines)).encode()).hexdigest()


def _binds(text: str) -> list[dict[str, Any]]:
    found, listener = [], ""
    for name, address, port in _BINDS.findall(text):
        listener = name or listener
        if address:
            bind = {"frontend": listener, "address": address.strip("[]"), "port": int(port), "errno": "EADDRINUSE"}
            found.append(bind)
    return found


def _json(status: int, content: object, *, delay: float = 0.0) -> Answer:
    return Answer(status, msgspec.json.encode(content), delay=delay)
