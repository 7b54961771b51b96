"""What every driver of our agent does: carry files and texts to it, ask it, decode what it says. A driver adds how it
renders and what the smallest change is.

Holds nothing that cannot be asked again: what it remembers of an amphora only saves a question."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import ClassVar
from weakref import WeakValueDictionary

import structlog
from msgspec.structs import replace
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from frontinus.drivers.amphora.agent.authority import Authority, Clock, Phase, utc_now
from frontinus.drivers.amphora.agent.boot import AgentSettings, boot_files, issue_identity
from frontinus.drivers.amphora.agent.change import Change
from frontinus.drivers.amphora.agent.client import (
    AgentClient,
    AgentVersion,
    BaseMismatch,
    ClientSettings,
    SentFile,
    identity_body,
)
from frontinus.drivers.amphora.agent.files import FOR_LVS, KEEPALIVED, NGINX_FILES, FileMark, Live, digest, marks
from frontinus.drivers.amphora.agent.heartbeat import MAGIC, PART_MAGIC, claimed_sender, decode_plain, is_envelope
from frontinus.drivers.amphora.agent.heartbeat_keys import HeartbeatKeys
from frontinus.drivers.amphora.agent.leaving import Leaver, without_trouble
from frontinus.drivers.amphora.agent.octavia_authority import TakenOver
from frontinus.drivers.amphora.agent.plug import network_body, vip_body
from frontinus.drivers.amphora.agent.settings import AgentDriverSettings
from frontinus.drivers.amphora.interface import AmphoraDriver, AmphoraInfo, Applied, Refused, Rendered, RenderedFile
from frontinus.model.belongings import Belonging, BelongingKind
from frontinus.model.boot import BootFiles, Identity
from frontinus.model.errors import Incompatible, Invalid, Rejected, Retry, Subject
from frontinus.model.findings import Finding, fine, trouble, warning
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.ids import AmphoraId, PortId
from frontinus.model.ports import PortPurpose
from frontinus.model.tree import Amphora, LoadBalancerTree

FILES, NGINX, DATAGRAMS, LVS, PREPARED, VRRP = "files", "nginx", "datagrams", "lvs", "prepared", "vrrp"
IDENTITY, MEMORY = "identity", "memory"
HEARTBEAT_KEY = "identity-heartbeat-key"
"""The agent's features: an apply has files beside the text; it runs nginx; one for datagrams alone; it knows `@prepared`
in commands; it runs keepalived; its certificate and the authorities that it accepts can be replaced together; it
limits the memory of HAProxy; what replaces them brings a heartbeat key along."""

SHUT = "shut"
"""Agents that let nobody new in by themselves."""

HANDS_TABLES_ON = "fence"
"""Agents that know fences also tell a worker that begins what the one before had learnt of clients."""

AUTHORITY_ENDS_SOON = timedelta(days=180)

TRIES = 3
"""How often an apply begins anew because something else was found running."""

_log = structlog.get_logger(__name__)


class AgentDriver(AmphoraDriver):
    """Made anywhere; its asynchronous methods are used, and closed, within one event loop.

    Immutable: settings, authority. Owned by the loop: what is remembered of each amphora, and its lock."""

    amphora_versions: ClassVar[str] = ">=0.1,<1"
    introduces: ClassVar[bool] = True

    def __init__(self, settings: AgentDriverSettings, *, clock: Clock = utc_now) -> None:
        """Opens the authority, making it on first use. Raises Invalid naming the setting that cannot be."""
        settings.check()
        self._agent = settings
        self._clock = clock
        try:
            self._authority = Authority.open(settings.authority_directory, clock)
            self._octavia = TakenOver(settings.authority_directory, clock)
            self._octavia()
        except (OSError, ValueError) as error:
            raise Invalid("authority", f"cannot be used: {error}") from error
        self._client = AgentClient(
            ClientSettings(
                port=settings.agent_port,
                controller_identity=settings.controller_identity,
                connect_timeout=settings.connect_timeout,
                apply_timeout=settings.apply_timeout,
                info_timeout=settings.info_timeout,
                retry_after=settings.retry_after,
                parallel_requests=settings.parallel_requests,
                keep_alive=settings.keep_alive,
            ),
            self._authority,
            self._octavia,
            clock,
            self._fresh_identity,
        )
        self._agent_settings = AgentSettings(
            port=settings.agent_port,
            controller_identity=settings.controller_identity,
            heartbeat_destinations=settings.heartbeat_destinations,
            heartbeat_interval=settings.heartbeat_interval,
            certificate_validity=settings.server_certificate_validity,
            haproxy_command=settings.haproxy_command,
            nginx_command=settings.nginx_command,
            keepalived_command=settings.keepalived_command,
            network=settings.network,
        )
        self._heartbeat_keys = HeartbeatKeys(self._authority)
        self._live: OrderedDict[AmphoraId, Live] = OrderedDict()
        self._locks: WeakValueDictionary[AmphoraId, asyncio.Lock] = WeakValueDictionary()

    @abstractmethod
    def _change(self, before: Live, rendered: Rendered, balancer: str) -> Change:
        """The smallest change from what runs, by a balancer of this version (empty: not known). Pure."""

    @abstractmethod
    def _subject(self, complaint: str, rendered: Rendered, tree: LoadBalancerTree) -> Subject | None:
        """The object that the amphora means when it refuses the configuration; None where it cannot be told. Pure."""

    def _lacks(self, rendered: Rendered, features: Collection[str]) -> str | None:
        """What of the configuration an agent of our own with these features cannot do; None: nothing. Pure."""
        return None

    def _introduced(self, live: str, rendered: str) -> str:
        """The text that runs, with the other amphorae of the pair as they are in one that is rendered. Pure."""
        return live

    def _learns(self, live: str) -> bool:
        """Whether the text has clients remembered. Pure."""
        return False

    def _closing(self, live: str) -> str:
        """The text that runs, but so that no connection of a client is kept open between requests. Pure; repeating it changes
        nothing."""
        return live

    def boot_files(self, amphora_id: AmphoraId, management_address: str) -> BootFiles:
        return boot_files(amphora_id, management_address, self._authority, self._agent_settings)

    async def apply(self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        lock = self._locks.setdefault(amphora.id, asyncio.Lock())
        async with lock:
            version = await self._version(amphora)
            try:
                if rendered.files and version.extension is not None and FILES not in version.features:
                    self._client.forget(amphora.id)
                    raise Incompatible(version.agent, "agents that take files")
                self._need_nginx(amphora, rendered, version)
                self._need_keepalived(amphora, rendered, version)
                self._need_lvs(amphora, rendered, version)
                lacking = self._lacks(rendered, version.features)
                if lacking is not None:
                    raise Incompatible(version.agent, f"agents that {lacking}")
                if not rendered.text and not rendered.files:
                    applied = await self._stop(amphora, rendered, tree.fence)
                elif version.extension is None:
                    applied = await self._apply_plain(amphora, rendered)
                else:
                    applied = await self._apply_batch(amphora, rendered, version, tree.fence)
            except BaseException as error:  # also when cancelled: what runs now is not known any more
                self._live.pop(amphora.id, None)
                self._client.forget(amphora.id)
                if isinstance(error, Rejected):
                    error.subject = self._subject(error.reason, rendered, tree)
                raise
            applied = replace(applied, balancer_version=version.balancer or None, agent_version=version.agent or None)
            self._remember(amphora.id, Live(rendered.text, marks(rendered.files)))
            return replace(applied, identity=await self._own_identity(amphora))

    async def introduce(
        self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered, shut: Callable[[], Awaitable[bool]]
    ) -> Applied:
        lock = self._locks.setdefault(amphora.id, asyncio.Lock())
        async with lock:
            self._live.pop(amphora.id, None)
            version = await self._client.version(amphora)
            keepalived = [x for x in rendered.files if x.name == KEEPALIVED]
            if version.extension is None:
                return await self._introduce_plain(amphora, rendered, keepalived)
            if not {FILES, VRRP} <= version.features:
                raise Incompatible(version.agent, "agents that run keepalived")
            # Where the agent does not tell a worker that begins what is known, only the one before does, a moment later.
            quietly = None if HANDS_TABLES_ON in version.features else Leaver(self._client, self._agent, amphora, tree)
            applied = await self._introduce(amphora, tree.fence, rendered, keepalived, quietly, shut)
            return replace(applied, balancer_version=version.balancer or None, agent_version=version.agent or None)

    async def _introduce(
        self,
        amphora: Amphora,
        fence: int,
        rendered: Rendered,
        keepalived: Sequence[RenderedFile],
        quietly: Leaver | None,
        shut: Callable[[], Awaitable[bool]],
    ) -> Applied:
        is_shut = False
        for _ in range(TRIES):
            live, _runs = await self._read_live(amphora, takes_files=True)
            if live is None:
                raise Incompatible("that does not tell what it runs", "agents that do")
            text = self._introduced(live.text, rendered.text)
            kept = (x for x in live.files if x.name != KEEPALIVED)
            files = (*(SentFile(x.name, x.sha256, x.private, None) for x in kept), *_sent(keepalived))
            if not is_shut and quietly is not None and text != live.text and self._learns(live.text):
                is_shut = await shut()
            try:
                answer = await self._client.apply(
                    amphora,
                    amphora.load_balancer_id,
                    text=text,
                    digest=digest(text, (FileMark(x.name, x.sha256, x.private) for x in files)),
                    base=live.digest,
                    commands=(),
                    reload=text != live.text,
                    files=files,
                    fence=fence,
                )
            except BaseMismatch:
                continue
            if quietly is not None and is_shut:
                await quietly.one_worker()
            return Applied(digest=answer.digest, action=answer.action, took_ms=answer.took_ms)
        raise self._contended()

    async def _introduce_plain(
        self, amphora: Amphora, rendered: Rendered, keepalived: Sequence[RenderedFile]
    ) -> Applied:
        live = await self._client.read_text(amphora, amphora.load_balancer_id) or ""
        text = self._introduced(live, rendered.text)
        if text != live:
            await self._client.upload(amphora, amphora.load_balancer_id, text)
            await self._client.reload(amphora, amphora.load_balancer_id)
        for file in keepalived:
            await self._client.upload_keepalived(amphora, file.content)
        return Applied(digest=digest(text), action="unchanged" if text == live else "reload")

    async def leave(self, amphora: Amphora, tree: LoadBalancerTree, shut: Callable[[], Awaitable[bool]]) -> None:
        """Only HAProxy is waited for, and only by the extension. A standby has no connections. Trouble is none of the caller's,
        and least of all that the agent is of a version that is not served: for that it is replaced."""
        lock = self._locks.setdefault(amphora.id, asyncio.Lock())
        async with lock:
            self._live.pop(amphora.id, None)
            await without_trouble(self._leave(amphora, tree, shut), amphora)

    async def _leave(self, amphora: Amphora, tree: LoadBalancerTree, shut: Callable[[], Awaitable[bool]]) -> None:
        version = await self._client.version(amphora)
        if version.extension is None or FILES not in version.features:
            return
        if not await self._client.has_address(amphora, tree.load_balancer.vip.address):
            return
        live, _runs = await self._read_live(amphora, takes_files=True)
        if live is None or not live.text:
            return
        # A worker that has just begun knows no client yet, and would teach the other amphora whom it chose for him.
        closing = None if self._learns(live.text) else self._closing(live.text)
        by_itself = SHUT in version.features

        async def shut_somehow() -> bool:
            return (by_itself and await self._client.shut(amphora, amphora.load_balancer_id)) or await shut()

        await Leaver(self._client, self._agent, amphora, tree).leave(live, closing, shut_somehow)

    async def plug(self, amphora: Amphora, tree: LoadBalancerTree) -> Mapping[PortId, str]:
        names: dict[PortId, str] = {}
        for port in amphora.ports:
            if port.purpose is PortPurpose.MANAGEMENT:
                continue
            if port.purpose is PortPurpose.MEMBER:
                await self._client.plug_network(amphora, network_body(port, None))
            else:
                await self._client.plug_vip(amphora, tree.load_balancer.vip.address, vip_body(port, tree))
                # One that was plugged before may have had more addresses than it has now.
                if len(port.addresses) > 1 or port.interface is not None:
                    await self._client.plug_network(amphora, network_body(port, tree))
            names[port.id] = await self._client.interface(amphora, port.addresses[0].address)
        return names

    async def info(self, amphora: Amphora, tree: LoadBalancerTree) -> AmphoraInfo:
        async with asyncio.timeout(self._agent.info_timeout.total_seconds()) as limit:
            try:
                version = await self._version(amphora)
                if version.extension is None:
                    return await self._plain_info(amphora)
                state = await self._client.state(amphora, amphora.load_balancer_id)
            except asyncio.CancelledError as error:
                if limit.expired():
                    raise Retry(
                        f"the agent at {amphora.management_address} does not answer in time",
                        after=self._agent.retry_after.total_seconds(),
                        code="agent-unreachable",
                    ) from error
                raise
        return AmphoraInfo(
            agent_version=version.agent,
            balancer_version=version.balancer,
            extension=version.extension,
            running=state.running,
            digest=state.digest,
        )

    async def retire(self, amphora: Amphora, tree: LoadBalancerTree) -> None:
        lock = self._locks.setdefault(amphora.id, asyncio.Lock())
        async with lock:
            self._live.pop(amphora.id, None)
            try:
                await self._client.delete(amphora, amphora.load_balancer_id, tree.fence)
            finally:
                self._client.forget(amphora.id)

    @property
    def heartbeat_prefixes(self) -> tuple[bytes, ...]:
        return () if self._agent.accept_plain else (MAGIC, PART_MAGIC)

    def claimed_sender(self, datagram: bytes) -> AmphoraId | None:
        return claimed_sender(datagram)

    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        if is_envelope(datagram):
            return self._heartbeat_keys.decode(datagram, now)
        if self._agent.accept_plain:
            return decode_plain(datagram, self._agent.plain_heartbeat_key.encode())
        raise Refused("plain heartbeats are not accepted here")

    async def list_unused(self) -> tuple[Belonging, ...]:
        try:
            clients, scratch = self._authority.outlived_clients(), self._authority.scratch()
        except OSError as error:
            raise Retry(f"the authority cannot be looked through: {error.strerror}", after=5.0) from error
        return (
            *(
                Belonging(kind=BelongingKind.CERTIFICATE, name=str(x), proof="issued by our authority, and not renewed")
                for x in clients
            ),
            *(Belonging(kind=BelongingKind.FILE, name=str(x), proof="named as while it was written") for x in scratch),
        )

    async def discard(self, belonging: Belonging) -> None:
        if belonging in await self.list_unused():
            Path(belonging.name).unlink(missing_ok=True)

    async def examine(self) -> tuple[Finding, ...]:
        return tuple(self._examine())

    async def close(self) -> None:
        await self._client.close()

    async def _apply_batch(self, amphora: Amphora, rendered: Rendered, version: AgentVersion, fence: int) -> Applied:
        """By the extension: against what runs, in one request."""
        base = self._live.get(amphora.id)
        for _ in range(TRIES):
            if base is None:
                base, runs = await self._read_live(amphora, takes_files=FILES in version.features)
                # It came there by whoever was killed before he could write it down: it is not pushed twice.
                if runs and base is not None and base.digest == rendered.digest and not amphora.is_push_wished:
                    return Applied(digest=rendered.digest, action="unchanged")
            change = Change((), reload=True) if base is None else self._change(base, rendered, version.balancer)
            if PREPARED not in version.features and any(x.startswith("prepare ") for x in change.commands):
                change = Change((), reload=True)
            try:
                answer = await self._client.apply(
                    amphora,
                    amphora.load_balancer_id,
                    text=rendered.text,
                    digest=rendered.digest,
                    base=None if base is None else base.digest,
                    commands=change.commands,
                    reload=change.reload,
                    files=_sent_files(rendered, base),
                    fence=fence,
                )
            except BaseMismatch:
                base = None
                continue
            if answer.fallback is not None:
                _log.warning(
                    "a change that should need no reload took one",
                    amphora_id=amphora.id,
                    load_balancer_id=amphora.load_balancer_id,
                    reason=answer.fallback,
                )
            return Applied(digest=answer.digest, action=answer.action, took_ms=answer.took_ms)
        raise self._contended()

    def _contended(self) -> Retry:
        return Retry(
            "the amphora's configuration keeps changing under us; is another controller pushing to it?",
            after=self._agent.retry_after.total_seconds(),
            code="agent-contended",
        )

    async def _read_live(self, amphora: Amphora, *, takes_files: bool) -> tuple[Live | None, bool]:
        """What is on the amphora's disk, and whether it is known to run; None when there is nothing, or not the whole of
        it."""
        state = await self._client.state(amphora, amphora.load_balancer_id) if takes_files else None
        text = await self._client.read_text(amphora, amphora.load_balancer_id)
        if text is None or state is None:
            return None if text is None else Live(text), False
        found = Live(text, state.files)
        return (found, state.running) if found.digest == state.digest else (None, False)

    async def _apply_plain(self, amphora: Amphora, rendered: Rendered) -> Applied:
        """By Octavia's calls. Whether the file on disk is what runs cannot be asked: only a reload that we saw tells."""
        before, load_balancer_id = self._live.get(amphora.id), amphora.load_balancer_id
        keepalived = [x for x in rendered.files if x.name == KEEPALIVED]
        files = [x for x in rendered.files if x.name != KEEPALIVED]
        if any(not file.private for file in files):
            raise Incompatible("without the extension", "agents that take files")
        known = before == Live(rendered.text, marks(rendered.files))
        if known and await self._client.read_text(amphora, amphora.load_balancer_id) == rendered.text:
            return Applied(digest=rendered.digest, action="unchanged")
        for file in files:
            await self._client.upload_file(amphora, load_balancer_id, file.name, file.content)
        await self._client.upload(amphora, load_balancer_id, rendered.text)
        await self._client.reload(amphora, load_balancer_id)
        for file in keepalived:  # after the reload, with which the agent writes what keepalived tracks
            await self._client.upload_keepalived(amphora, file.content)
        kept = {KEEPALIVED, *(file.name for file in files)}
        for name in (x.name for x in (before.files if before is not None else ()) if x.name not in kept):
            await self._client.delete_file(amphora, load_balancer_id, name)
        return Applied(digest=rendered.digest, action="reload")

    def _need_nginx(self, amphora: Amphora, rendered: Rendered, version: AgentVersion) -> None:
        """Raises Retry when nginx shall run and the amphora has none: whoever keeps it can install one; Incompatible when its
        agent is too old."""
        wanted = any(file.name in NGINX_FILES for file in rendered.files)
        if wanted and version.extension is not None and NGINX not in version.features:
            self._client.forget(amphora.id)
            raise Retry(
                "the amphora has no nginx with its stream module: install nginx and libnginx-mod-stream there",
                after=self._agent.retry_after.total_seconds(),
                code="nginx-missing",
            )
        if wanted and version.extension is not None and DATAGRAMS not in version.features:
            self._client.forget(amphora.id)
            raise Incompatible(version.agent, "agents that run an nginx for datagrams alone")

    def _need_lvs(self, amphora: Amphora, rendered: Rendered, version: AgentVersion) -> None:
        """Raises Retry when LVS shall run and the amphora has none, as `_need_nginx`."""
        wanted = any(file.name in FOR_LVS for file in rendered.files)
        if wanted and version.extension is not None and LVS not in version.features:
            self._client.forget(amphora.id)
            raise Retry(
                "the amphora has no LVS: its kernel lacks ip_vs, or keepalived or ipvsadm is not installed there",
                after=self._agent.retry_after.total_seconds(),
                code="lvs-missing",
            )

    def _need_keepalived(self, amphora: Amphora, rendered: Rendered, version: AgentVersion) -> None:
        """Raises Retry when keepalived shall run and the amphora has none, as `_need_nginx`."""
        wanted = any(file.name == KEEPALIVED for file in rendered.files)
        if wanted and version.extension is not None and VRRP not in version.features:
            self._client.forget(amphora.id)
            raise Retry(
                "the amphora has no keepalived, which a pair needs: install keepalived there",
                after=self._agent.retry_after.total_seconds(),
                code="keepalived-missing",
            )

    async def _stop(self, amphora: Amphora, rendered: Rendered, fence: int) -> Applied:
        """Nothing shall listen: no haproxy runs. Asked each time, since another controller may have started one."""
        await self._client.delete(amphora, amphora.load_balancer_id, fence)
        return Applied(digest=rendered.digest, action="stop")

    async def _version(self, amphora: Amphora) -> AgentVersion:
        """Who answers, if we serve it. Raises Incompatible, Retry."""
        version = await self._client.version(amphora)
        if version.extension is not None and not serves(version.agent, self.amphora_versions):
            self._client.forget(amphora.id)
            raise Incompatible(version.agent, self.amphora_versions)
        return version

    async def _plain_info(self, amphora: Amphora) -> AmphoraInfo:
        info = await self._client.info(amphora)
        text = await self._client.read_text(amphora, amphora.load_balancer_id)
        return AmphoraInfo(
            agent_version=f"Octavia {info.api_version}",
            balancer_version=info.haproxy_version,
            extension=None,
            running=text is not None,  # the plain protocol tells no better
            digest=None if text is None else digest(text),
        )

    @property
    def identity_digest(self) -> str:
        return self._authority.digest

    @property
    def kept_identity_digest(self) -> str:
        octavia = self._octavia()
        return "" if octavia is None else octavia.digest

    async def renew_identity(self, amphora: Amphora) -> Identity:
        octavia = self._octavia()
        if octavia is not None and amphora.identity_digest == octavia.digest:
            expires_at = octavia.last_day(self._clock() + self._agent.server_certificate_validity)
            certificate = octavia.issue_server(amphora.id, self._agent.server_certificate_validity)
            await self._client.rotate_certificate(amphora, certificate)
            renew_at = expires_at - self._agent.server_certificate_validity / 2
            return Identity(digest=octavia.digest, expires_at=expires_at, renew_at=renew_at)
        version = await self._version(amphora)
        identity, certificate = issue_identity(amphora.id, self._authority, self._agent.server_certificate_validity)
        if IDENTITY in version.features:
            takes_key = HEARTBEAT_KEY in version.features
            if not takes_key and self._authority.phase is Phase.IN_USE and amphora.identity_digest != identity.digest:
                raise Incompatible(version.agent, "agents that take another heartbeat key")
            key = self._authority.heartbeat_key(amphora.id) if takes_key else None
            await self._client.replace_identity(amphora, identity_body(certificate, self._authority.bundle, key))
            return identity
        born_before_that = amphora.identity_digest is None and self._authority.phase is Phase.STEADY
        if not born_before_that and amphora.identity_digest != identity.digest:
            raise Incompatible(version.agent or f"API {version.api}", "agents that take other authorities")
        await self._client.rotate_certificate(amphora, certificate)
        return identity

    async def _own_identity(self, amphora: Amphora) -> Identity | None:
        """What an amphora is given that shows another certificate than it was given last, as a machine does that started
        again by itself: that of its birth ends before the time at which the other one would have been renewed. None for
        one that shows what it should. Trouble with it is no trouble of the push: then it is due at once."""
        until = amphora.certificate_expires_at
        if until is None or not amphora.identity_digest or amphora.identity_digest == self.kept_identity_digest:
            return None
        try:
            if await self._client.shows(amphora, until):
                return None
            _log.info("an amphora came back with another certificate", amphora_id=amphora.id)
            return await self.renew_identity(amphora)
        except (Retry, Incompatible) as error:
            _log.warning("an amphora's certificate was not renewed", amphora_id=amphora.id, reason=str(error))
            return Identity(digest=amphora.identity_digest, expires_at=until, renew_at=self._clock())

    def _fresh_identity(self, amphora_id: AmphoraId) -> bytes:
        """The body of the identity call."""
        _identity, certificate = issue_identity(amphora_id, self._authority, self._agent.server_certificate_validity)
        return identity_body(certificate, self._authority.bundle, self._authority.heartbeat_key(amphora_id))

    def _examine(self) -> Iterator[Finding]:
        now, directory = self._clock(), self._agent.authority_directory
        left = self._authority.issuing.not_valid_after_utc - now
        if left < AUTHORITY_ENDS_SOON:
            yield warning("authority", f"it ends in {left.days} days", "frontinus ca rotate")
        elif self._authority.phase is not Phase.STEADY:
            yield warning("authority", f"its change stands at {self._authority.phase}", "frontinus ca rotate goes on")
        else:
            yield fine("authority", f"{directory}, good for {left.days} days")
        octavia = self._octavia()
        if octavia is not None:
            until = min(
                octavia.client_certificate.not_valid_after_utc, octavia.last_day(datetime.max.replace(tzinfo=UTC))
            )
            if until - now < AUTHORITY_ENDS_SOON:
                yield warning(
                    "octavia",
                    f"what amphorae of Octavia trust ends in {(until - now).days} days",
                    "replace them by amphorae of ours before: openstack loadbalancer failover",
                )
            else:
                yield fine("octavia", f"its amphorae are asked by its certificate, good for {(until - now).days} days")
        open_to_others = [x.name for x in directory.rglob("*") if x.stat().st_mode & 0o077]
        if open_to_others:
            yield trouble("authority", f"others may read {', '.join(open_to_others)}", f"chmod -R go= {directory}")
        try:
            self._authority.client_pem(self._agent.controller_identity)
        except OSError as error:
            yield trouble(
                "authority", f"the controller has no certificate: {error}", f"let this user write {directory}"
            )
        if not self._agent.heartbeat_destinations:
            yield trouble("heartbeats", "amphorae are told of no receiver", "set heartbeat_destinations")

    def _remember(self, amphora_id: AmphoraId, live: Live) -> None:
        self._live[amphora_id] = live
        self._live.move_to_end(amphora_id)
        while len(self._live) > self._agent.remembered_texts:
            self._live.popitem(last=False)


def _sent_files(rendered: Rendered, base: Live | None) -> list[SentFile]:
    """The files of an apply: those that the amphora has are only named."""
    return _sent(rendered.files, frozenset(base.files if base is not None else ()))


def _sent(files: Sequence[RenderedFile], there: Collection[FileMark] = frozenset()) -> list[SentFile]:
    return [
        SentFile(mark.name, mark.sha256, mark.private, None if mark in there else file.content)
        for mark, file in zip(marks(files), files, strict=True)
    ]


@cache
def serves(agent_version: str, amphora_versions: str = AgentDriver.amphora_versions) -> bool:
    """Whether an agent of this version is within these (PEP 440); one that is no version is within none."""
    try:
        return SpecifierSet(amphora_versions).contains(Version(agent_version), prereleases=True)
    except InvalidVersion:
        return False
