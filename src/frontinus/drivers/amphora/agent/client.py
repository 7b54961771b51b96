"""REST to agents: contract/amphora-agent.yaml and docs/reference/agent-extension.md, over mutual TLS.

One method per call, each told in our words; foreign exceptions and status codes stop here. A server certificate must
come from our authority and name the very amphora that is meant: connections are made, verified and kept by amphora id,
and the id is turned into an address only at the last moment. Decides nothing about configurations."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import aiohttp
import msgspec
import structlog
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from frontinus.drivers.amphora.agent.authority import Authority, Clock
from frontinus.drivers.amphora.agent.files import FileMark
from frontinus.drivers.amphora.agent.handshakes import IDENTITY_PATH, Handshakes
from frontinus.drivers.amphora.agent.octavia_authority import TakenOver
from frontinus.model.errors import BindRefused, Incompatible, RefusedBind, Rejected, Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.tree import Amphora

API_VERSION = "1.0"
EXTENSION = 1
LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes that are read of an answer at most; a configuration with thousands of members is 1 MB."""

TIME = "Frontinus-Time"
"""The header by which an agent is told the time, in seconds since the epoch."""

_JSON = {"Content-Type": "application/json"}
"""What Octavia's agent wants to see before it reads a body as JSON."""

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """See AgentDriverSettings for the meaning of each."""

    port: int
    controller_identity: str
    connect_timeout: timedelta
    apply_timeout: timedelta
    info_timeout: timedelta
    retry_after: timedelta
    parallel_requests: int
    keep_alive: timedelta


class AgentVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of itself. `extension` is None for a genuine Octavia agent, whose own version is unknown."""

    api: str
    extension: int | None = None
    agent: str = ""
    balancer: str = ""
    features: frozenset[str] = frozenset()


class AgentState(msgspec.Struct, frozen=True):
    """Answer of the extension's state call (agent-extension.md)."""

    digest: str | None
    running: bool
    pid: int | None = None
    workers: int = 0
    removing: tuple[str, ...] = ()
    files: tuple[FileMark, ...] = ()


class SentFile(msgspec.Struct, frozen=True):
    """A file of an apply. Without content: the agent is taken to have it."""

    name: str
    sha256: str
    private: bool
    content: bytes | None

    def __repr__(self) -> str:  # keeps private keys out of logs and tracebacks
        return f"SentFile(name={self.name!r}, private={self.private})"


class ApplyAnswer(msgspec.Struct, frozen=True):
    digest: str
    action: str
    fallback: str | None = None
    took_ms: float = 0.0


class AgentInfo(msgspec.Struct, frozen=True):
    haproxy_version: str = ""
    api_version: str = API_VERSION


class BaseMismatch(Exception):
    """What runs is not what the commands were computed against. Stays between client and driver."""


class _Version(msgspec.Struct):
    api_version: str


class _Interface(msgspec.Struct):
    interface: str


class _Shut(msgspec.Struct):
    shut: bool


class _Md5(msgspec.Struct):
    md5sum: str


class _Extension(msgspec.Struct):
    extension: int
    agent_version: str
    haproxy_version: str = ""
    features: frozenset[str] = frozenset()


class _Apply(msgspec.Struct):
    config: str
    digest: str
    base: str | None
    commands: Sequence[str]
    reload: bool
    files: Sequence[SentFile] | msgspec.UnsetType = msgspec.UNSET  # agents without the feature know no such key


class _Trouble(msgspec.Struct):
    """Error bodies: ours and Octavia's, and the framework's default one."""

    message: str = ""
    details: str = ""
    error: str = ""

    def text(self) -> str:
        return "; ".join(part for part in (self.message, self.details, self.error) if part) or "no reason given"


class _Bind(msgspec.Struct):
    frontend: str
    address: str
    port: int
    errno: str


class _Binds(msgspec.Struct):
    binds: tuple[_Bind, ...]


@dataclass(frozen=True)
class _Answer:
    status: int
    json: bool
    body: bytes

    def trouble(self) -> str:
        try:
            return msgspec.json.decode(self.body, type=_Trouble).text()[:2000]
        except msgspec.DecodeError:
            return self.body[:200].decode("utf-8", "replace") or "no reason given"


class AgentClient:
    """Made anywhere; used, and closed, within one event loop. Every call may be repeated and may run beside others.

    Every call raises Retry when the agent cannot be reached, is not who it should be, or fails by itself; Incompatible
    when it speaks another protocol version."""

    def __init__(
        self,
        settings: ClientSettings,
        authority: Authority,
        octavia: TakenOver,
        clock: Clock,
        issue: Callable[[AmphoraId], bytes],
    ) -> None:
        """`issue` makes the body of the identity call, with a fresh certificate."""
        self._settings = settings
        self._clock = clock
        self._handshakes = Handshakes(settings.controller_identity, authority, octavia, clock, issue)
        self._resolver = _Resolver()
        self._session: aiohttp.ClientSession | None = None
        self._versions: dict[AmphoraId, AgentVersion] = {}

    async def version(self, amphora: Amphora) -> AgentVersion:
        """Who answers. Asked once per amphora, and again after any trouble with it."""
        known = self._versions.get(amphora.id)
        if known is not None:
            return known
        timeout = self._settings.info_timeout
        answer = await self._ask(amphora, "GET", "/frontinus", timeout=timeout)
        if answer.status != 404:
            # Whoever has the extension speaks Octavia's protocol in that version: one question less for each.
            extension = self._decode(answer, _Extension)
            if extension.extension != EXTENSION:
                raise Incompatible(f"extension {extension.extension}", f"extension {EXTENSION}")
            version = AgentVersion(
                api=API_VERSION,
                extension=extension.extension,
                agent=extension.agent_version,
                balancer=extension.haproxy_version,
                features=extension.features,
            )
        else:
            answer = await self._ask(amphora, "GET", "/", timeout=timeout)
            # Octavia's rule: an agent without discovery is of version 0.5.
            api = "0.5" if answer.status == 404 else self._decode(answer, _Version).api_version
            if api != API_VERSION:
                raise Incompatible(f"API {api}", f"API {API_VERSION}")
            version = AgentVersion(api=api)
        self._versions[amphora.id] = version
        return version

    def forget(self, amphora_id: AmphoraId) -> None:
        """Ask again who it is next time."""
        self._versions.pop(amphora_id, None)

    async def state(self, amphora: Amphora, load_balancer_id: LoadBalancerId) -> AgentState:
        """Extension only: what is on disk and whether it runs."""
        path = f"/frontinus/1/loadbalancer/{load_balancer_id}"
        answer = await self._ask(amphora, "GET", path, timeout=self._settings.info_timeout)
        return self._decode(answer, AgentState)

    async def info(self, amphora: Amphora) -> AgentInfo:
        answer = await self._ask(amphora, "GET", "/1.0/info", timeout=self._settings.info_timeout)
        return self._decode(answer, AgentInfo)

    async def read_text(self, amphora: Amphora, load_balancer_id: LoadBalancerId) -> str | None:
        """The configuration on the amphora's disk, None when there is none."""
        path = f"/1.0/loadbalancer/{load_balancer_id}/haproxy"
        answer = await self._ask(amphora, "GET", path, timeout=self._settings.apply_timeout)
        if answer.status == 404 and answer.json:
            return None
        self._expect_success(answer)
        try:
            return answer.body.decode()
        except UnicodeDecodeError as error:
            raise self._retry("the agent's configuration is not UTF-8", "agent-error") from error

    async def apply(
        self,
        amphora: Amphora,
        load_balancer_id: LoadBalancerId,
        *,
        text: str,
        digest: str,
        base: str | None,
        commands: Sequence[str],
        reload: bool,
        files: Sequence[SentFile] = (),
        fence: int = 0,
    ) -> ApplyAnswer:
        """Extension only: the batch apply. Raises BaseMismatch (also for files that the agent has not), BindRefused (nothing changed), Rejected with what
        HAProxy says of the text, or Retry when it came to nothing and what ran before still runs."""
        path = f"/frontinus/1/loadbalancer/{load_balancer_id}"
        body = msgspec.json.encode(
            _Apply(
                config=text,
                digest=digest,
                base=base,
                commands=commands,
                reload=reload,
                files=files or msgspec.UNSET,
            )
        )
        answer = await self._ask(amphora, "PUT", path + _fence(fence), body=body, timeout=self._settings.apply_timeout)
        self._refuse_fenced(answer)
        if answer.status == 409:
            raise BaseMismatch
        if answer.status == 422:
            refused = self._parse(answer, _Binds).binds
            raise BindRefused(tuple(RefusedBind(x.frontend, x.address, x.port, x.errno) for x in refused))
        self._refuse_rejected(answer)
        return self._decode(answer, ApplyAnswer)

    async def upload(self, amphora: Amphora, load_balancer_id: LoadBalancerId, text: str) -> None:
        """Plain protocol: the text is checked and put on disk. Raises Rejected."""
        path = f"/1.0/loadbalancer/{amphora.id}/{load_balancer_id}/haproxy"
        answer = await self._ask(amphora, "PUT", path, body=text.encode(), timeout=self._settings.apply_timeout)
        self._refuse_rejected(answer)
        self._expect_success(answer)

    async def reload(self, amphora: Amphora, load_balancer_id: LoadBalancerId) -> None:
        """Plain protocol: what is on disk is made to run."""
        path = f"/1.0/loadbalancer/{load_balancer_id}/reload"
        self._expect_success(await self._ask(amphora, "PUT", path, body=b"", timeout=self._settings.apply_timeout))

    async def shut(self, amphora: Amphora, load_balancer_id: LoadBalancerId) -> bool:
        """Extension, feature `shut`: HAProxy takes no new connection, and refuses none. Whether that is so."""
        path = f"/frontinus/1/loadbalancer/{load_balancer_id}/shut"
        answer = await self._ask(amphora, "PUT", path, body=b"", timeout=self._settings.info_timeout)
        return self._decode(answer, _Shut).shut

    async def stop(self, amphora: Amphora, load_balancer_id: LoadBalancerId) -> None:
        """Plain protocol: HAProxy ends, whoever is connected; the addresses stay."""
        path = f"/1.0/loadbalancer/{load_balancer_id}/stop"
        self._expect_success(await self._ask(amphora, "PUT", path, body=b"", timeout=self._settings.apply_timeout))

    async def delete(self, amphora: Amphora, load_balancer_id: LoadBalancerId, fence: int = 0) -> None:
        """Nothing of the load balancer runs or is stored any more. Unknown ones are done already."""
        path = f"/1.0/listeners/{load_balancer_id}{_fence(fence)}"
        answer = await self._ask(amphora, "DELETE", path, timeout=self._settings.apply_timeout)
        self._refuse_fenced(answer)
        if answer.status != 404:
            self._expect_success(answer)

    async def upload_file(self, amphora: Amphora, load_balancer_id: LoadBalancerId, name: str, content: bytes) -> None:
        """Plain protocol: a file among the load balancer's certificates; one that is there already is not sent."""
        path = f"/1.0/loadbalancer/{load_balancer_id}/certificates/{name}"
        answer = await self._ask(amphora, "GET", path, timeout=self._settings.info_timeout)
        wanted = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if answer.status != 404 and self._decode(answer, _Md5).md5sum == wanted:
            return
        self._expect_success(await self._ask(amphora, "PUT", path, body=content, timeout=self._settings.apply_timeout))

    async def delete_file(self, amphora: Amphora, load_balancer_id: LoadBalancerId, name: str) -> None:
        """Plain protocol: the file is not there any more."""
        path = f"/1.0/loadbalancer/{load_balancer_id}/certificates/{name}"
        self._expect_success(await self._ask(amphora, "DELETE", path, timeout=self._settings.info_timeout))

    async def replace_identity(self, amphora: Amphora, body: bytes) -> None:
        """Extension, feature `identity`: the agent serves with another certificate, accepts clients of these authorities, and
        (feature `identity-heartbeat-key`) signs its heartbeats with this key, from now on (`identity_body`)."""
        self._expect_success(
            await self._ask(amphora, "PUT", IDENTITY_PATH, body=body, timeout=self._settings.info_timeout)
        )

    async def shows(self, amphora: Amphora, until: datetime) -> bool:
        """Whether the certificate that the agent shows ends just then. Asked of a connection of its own where the one that
        was seen last does not: it may have been replaced by another controller meanwhile."""
        address = amphora.management_address
        if self._handshakes.shown_until(amphora.id) != until and address is not None:
            try:
                async with asyncio.timeout(self._settings.info_timeout.total_seconds()):
                    await self._handshakes.shake(amphora, address, self._settings.port)
            except OSError as error:  # TimeoutError is one
                raise self._retry(f"{self._name(amphora)} cannot be reached: {error}", "agent-unreachable") from error
        return self._handshakes.shown_until(amphora.id) == until

    async def rotate_certificate(self, amphora: Amphora, certificate: bytes) -> None:
        """The agent serves with this certificate and key from now on."""
        path = "/1.0/certificate"
        self._expect_success(
            await self._ask(amphora, "PUT", path, body=certificate, timeout=self._settings.info_timeout)
        )

    async def upload_keepalived(self, amphora: Amphora, text: bytes) -> None:
        """Plain protocol: keepalived runs by this text from now on. VIPs that it has it keeps meanwhile."""
        path, timeout = "/1.0/vrrp/upload", self._settings.apply_timeout
        self._expect_success(await self._ask(amphora, "PUT", path, body=text, timeout=timeout))
        # While it runs, a start is a reload (contract, control_vrrp).
        self._expect_success(await self._ask(amphora, "PUT", "/1.0/vrrp/start", body=b"", timeout=timeout))

    async def plug_vip(self, amphora: Amphora, vip: str, body: Mapping[str, object]) -> None:
        """The interface with the body's MAC carries the VIPs. Raises Retry, also while there is no such interface."""
        await self._plug(amphora, f"/1.0/plug/vip/{vip}", body)

    async def plug_network(self, amphora: Amphora, body: Mapping[str, object]) -> None:
        """The interface with the body's MAC has these addresses. Raises Retry, also while there is no such interface."""
        await self._plug(amphora, "/1.0/plug/network", body)

    async def _plug(self, amphora: Amphora, path: str, body: Mapping[str, object]) -> None:
        content = msgspec.json.encode(body)
        answer = await self._ask(
            amphora, "POST", path, body=content, timeout=self._settings.apply_timeout, headers=_JSON
        )
        if answer.status == 404:
            raise self._retry(f"{self._name(amphora)} sees no interface {body['mac_address']} yet", "no-interface")
        if answer.status != 409:  # it is plugged already
            self._expect_success(answer)

    async def interface(self, amphora: Amphora, address: str) -> str:
        """What the amphora calls the interface that has this address."""
        path = f"/1.0/interface/{address}"
        return self._decode(
            await self._ask(amphora, "GET", path, timeout=self._settings.info_timeout), _Interface
        ).interface

    async def has_address(self, amphora: Amphora, address: str) -> bool:
        """Whether the address is on one of the amphora's interfaces now."""
        answer = await self._ask(amphora, "GET", f"/1.0/interface/{address}", timeout=self._settings.info_timeout)
        if answer.status == 404:
            return False
        self._expect_success(answer)
        return True

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(
        self,
        amphora: Amphora,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        timeout: timedelta,
        headers: Mapping[str, str] | None = None,
    ) -> _Answer:
        address = amphora.management_address
        if address is None:
            raise self._retry("the amphora has no management address yet", "agent-unreachable")
        self._resolver.addresses[amphora.id] = address
        ask = partial(self._ask_once, amphora, method, path, body, timeout, headers or {})
        try:
            return await ask()
        except (aiohttp.ClientError, OSError) as error:
            self.forget(amphora.id)
            if not await self._gives_identity(amphora, address, error):
                raise self._trouble(amphora, error) from error
        try:
            return await ask()
        except (aiohttp.ClientError, OSError) as error:
            raise self._trouble(amphora, error) from error

    def _trouble(self, amphora: Amphora, error: Exception) -> Retry:
        name = self._name(amphora)
        if isinstance(error, TimeoutError):
            return self._retry(f"{name} does not answer in time", "agent-unreachable")
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return self._retry(f"{name} is not who it should be: {error.certificate_error}", "agent-identity")
        return self._retry(f"{name} cannot be reached: {error}", "agent-unreachable")

    async def _gives_identity(self, amphora: Amphora, address: str, error: Exception) -> bool:
        """Give another identity to who came back with that of its birth, where `error` may be of that; whether it was done.
        Nothing else is ever asked of it over such a connection."""
        if not self._handshakes.may_be_reborn(amphora, error):
            return False
        try:
            async with asyncio.timeout(self._settings.info_timeout.total_seconds()):
                given = await self._handshakes.give_identity(amphora, address, self._settings.port)
        except OSError as trouble:  # TimeoutError is one
            _log.warning("an identity was not replaced", amphora_id=amphora.id, reason=str(trouble))
            return False
        if given:
            _log.warning("the identity of a restarted machine was replaced", amphora_id=amphora.id)
        return given

    async def _ask_once(
        self,
        amphora: Amphora,
        method: str,
        path: str,
        body: bytes | None,
        timeout: timedelta,
        headers: Mapping[str, str],
    ) -> _Answer:
        """Raises Retry, aiohttp.ClientError, OSError."""
        async with self._open_session().request(
            method,
            f"https://{amphora.id}:{self._settings.port}{path}",
            data=body,
            headers={**headers, TIME: f"{self._clock().timestamp():.3f}"},
            ssl=self._handshakes.context(amphora),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                total=timeout.total_seconds(), connect=self._settings.connect_timeout.total_seconds()
            ),
        ) as response:
            content = await response.content.read(LARGEST_ANSWER + 1)
            while len(content) <= LARGEST_ANSWER and (more := await response.content.read(LARGEST_ANSWER)):
                content += more
            if len(content) > LARGEST_ANSWER:
                raise self._retry("the agent's answer is too large", "agent-error")
            return _Answer(response.status, response.content_type == "application/json", content)

    def _name(self, amphora: Amphora) -> str:
        return f"the agent at {amphora.management_address} port {self._settings.port}"

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._settings.parallel_requests,
                    resolver=self._resolver,
                    socket_factory=_impatient_socket,
                    use_dns_cache=False,
                    keepalive_timeout=self._settings.keep_alive.total_seconds(),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"Frontinus/{API_VERSION}", "Content-Type": "application/octet-stream"},
            )
        return self._session

    def _refuse_fenced(self, answer: _Answer) -> None:
        if answer.status == 412:
            raise self._retry("another controller has taken the load balancer over", "fenced")

    def _refuse_rejected(self, answer: _Answer) -> None:
        if answer.status in (400, 413):
            raise Rejected("configuration", answer.trouble())

    def _expect_success(self, answer: _Answer) -> None:
        # Octavia's driver takes 200 and 202 for the same (contract, caller_status_handling).
        if answer.status in (401, 403):
            reason = f"the agent does not accept this controller's identity: {answer.trouble()}"
            raise self._retry(reason, "agent-identity")
        if not 200 <= answer.status < 300:
            raise self._retry(f"the agent failed ({answer.status}): {answer.trouble()}", "agent-error")

    def _decode(self, answer: _Answer, kind: type[_T]) -> _T:
        self._expect_success(answer)
        return self._parse(answer, kind)

    def _parse(self, answer: _Answer, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except msgspec.DecodeError as error:
            raise self._retry(f"the agent's answer makes no sense: {error}", "agent-error") from error

    def _retry(self, reason: str, code: str) -> Retry:
        return Retry(reason, after=self._settings.retry_after.total_seconds(), code=code)


def identity_body(certificate: bytes, client_ca: bytes, heartbeat_key: str | None) -> bytes:
    """Of the identity call; the key only for agents with the feature `identity-heartbeat-key`."""
    identity = {"certificate": certificate.decode(), "client_ca": client_ca.decode()}
    return msgspec.json.encode(identity if heartbeat_key is None else {**identity, "heartbeat_key": heartbeat_key})


def _fence(number: int) -> str:
    """The query that carries it; agents that know no fences pass over queries."""
    return f"?fence={number}" if number else ""


def _impatient_socket(address: AddrInfoType) -> socket.socket:
    """A socket that notices within seconds that nobody is there any more. An apply may take long, and whoever waits for
    one holds the load balancer; a host that vanished says nothing."""
    made = socket.socket(family=address[0], type=address[1], proto=address[2])
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000),
    ):
        made.setsockopt(level, option, value)
    return made


class _Resolver(AbstractResolver):
    """Amphora id to management address. With the id as the host of the URL, aiohttp asks for that name in TLS, checks
    the certificate against it, and never lends one amphora's connection to another."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        address = self.addresses[host]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing to let go of."""
