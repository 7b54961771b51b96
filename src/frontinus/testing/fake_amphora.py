"""An amphora driver that speaks to the places of FakeCompute, with faults on order.

Renders a text that a person can read in a failed assertion: one line per object, without anything that is a report
(statuses, generations, times). Heartbeats are JSON behind a digest; `heartbeat` makes one. Next: fake_network.py."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import ClassVar

import msgspec

from frontinus.drivers.amphora.interface import AmphoraDriver, AmphoraInfo, Applied, Refused, Rendered, RenderedFile
from frontinus.model.boot import BootFiles, Identity
from frontinus.model.capabilities import FEATURES, Capabilities
from frontinus.model.certificates import NO_SECRETS, Certificate, SecretKind, Secrets, secret_uses
from frontinus.model.enums import (
    AmphoraRole,
    AmphoraStatus,
    HealthMonitorType,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
    Topology,
)
from frontinus.model.errors import BindRefused, Incompatible, RefusedBind, Rejected, Retry, blaming
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.ids import AmphoraId, PortId
from frontinus.model.ports import PortPurpose
from frontinus.model.previews import Preview, unified
from frontinus.model.tree import Amphora, LoadBalancerTree, TreeObject
from frontinus.testing.fake_compute import FakePlace
from frontinus.testing.faults import Faults

_REPORTS = frozenset(
    {
        "provisioning_status",
        "operating_status",
        "generation",
        "applied_generation",
        "changed_generation",
        "delete_requested",
        "fault",
        "created_at",
        "updated_at",
        # Words for people: a balancer does not act on them.
        "name",
        "description",
        "tags",
        "deletion_protection",
        "project_id",
    }
)
_KEY = b"the key of every fake amphora"
_LONGEST_DATAGRAM = 65_535


@dataclass
class FakeVouching:
    """Who vouches for amphorae, to be changed by a test: whoever has another `digest` is to be renewed. `outgrown`: agents
    cannot take it."""

    now: Callable[[], datetime]
    digest: str = "first"
    validity: timedelta = timedelta(days=30)
    outgrown: bool = False
    reborn: set[AmphoraId] = field(default_factory=set)
    """Who came back with the identity of its birth: it is given another one with the next push."""

    def identity(self) -> Identity:
        expires_at = self.now() + self.validity
        return Identity(digest=self.digest, expires_at=expires_at, renew_at=expires_at - self.validity / 2)


class FakeAmphoraDriver(AmphoraDriver):
    """`places` is FakeCompute's world. Listeners whose port is in `taken_ports` are refused by its kernel, unless that
    listener balances on the port already. Objects whose id is in `unspeakable` cannot be rendered.
    Amphorae in `outgrown` take no push; of a pair they are told their peers all the same, and let go of their connections,
    unless it does not speak to them (`speaks_to_outgrown`): their agents are of another extension.
    What balances everywhere is of `balancer_version`, and what is rendered is for one version."""

    name: ClassVar[str] = "fake"
    version: ClassVar[str] = "1.0.0"
    amphora_versions: ClassVar[str] = ">=0"
    introduces: ClassVar[bool] = True
    speaks_to_outgrown: ClassVar[bool] = True
    capabilities: ClassVar[Capabilities] = Capabilities(
        topologies=frozenset(Topology),
        listener_protocols=frozenset(ListenerProtocol),
        pool_protocols=frozenset(PoolProtocol),
        lb_algorithms=frozenset(LbAlgorithm),
        health_monitor_types=frozenset(HealthMonitorType),
        session_persistence_types=frozenset(SessionPersistenceType),
        features=frozenset(FEATURES),
    )

    def __init__(
        self,
        places: Mapping[AmphoraId, FakePlace] | None = None,
        taken_ports: set[int] | None = None,
        faults: Faults | None = None,
        unspeakable: set[str] | None = None,
        vouching: FakeVouching | None = None,
        outgrown: set[AmphoraId] | None = None,
    ) -> None:
        self.places: Mapping[AmphoraId, FakePlace] = {} if places is None else places
        self.taken_ports: set[int] = set() if taken_ports is None else taken_ports
        self.faults = Faults() if faults is None else faults
        self.unspeakable: set[str] = set() if unspeakable is None else unspeakable
        self.balancer_version = "1"
        self.vouching = vouching
        self.outgrown: set[AmphoraId] = set() if outgrown is None else outgrown

    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        wanted = tree.wanted()
        for child in wanted.children():
            with blaming(child.kind, child.id):
                if child.id in self.unspeakable:
                    raise Rejected("name", "there are no words for it")
        lines = [f"amphora {amphora.role} with {amphora.balancer_version}", _line(wanted.load_balancer)]
        lines += sorted(_line(child) for child in wanted.children())
        if amphora.role is not AmphoraRole.STANDALONE:
            others = (x for x in tree.amphorae if x.id != amphora.id and x.status is not AmphoraStatus.PENDING_DELETE)
            lines += sorted(f"peer {x.vrrp_address}" for x in others if x.vrrp_address is not None)
        text = "\n".join(lines) + "\n"
        files = tuple(_files(wanted, secrets))
        return Rendered(text=text, digest=_digest(text, files), files=files)

    def preview(self, before: Rendered | None, after: Rendered | None) -> Preview:
        old, new = ("" if x is None else x.text for x in (before, after))
        change = unified(old, new, "fake")
        if before is not None and after is not None and before.digest == after.digest:
            return Preview(action="unchanged")
        if after is None or not _binds(new):
            return Preview(action="stop" if before is not None else "unchanged", diff=change)
        action = _action(before, after) if _binds(old) else "start"
        return Preview(action=action, reason="it is structure" if action == "reload" else "", diff=change)

    def boot_files(self, amphora_id: AmphoraId, management_address: str) -> BootFiles:
        return BootFiles(
            files={"agent.conf": f"id = {amphora_id}\naddress = {management_address}\nplace = {{place}}\n".encode()},
            identity=None if self.vouching is None else self.vouching.identity(),
        )

    @property
    def identity_digest(self) -> str:
        return "" if self.vouching is None else self.vouching.digest

    async def renew_identity(self, amphora: Amphora) -> Identity:
        async with self.faults.around("renew_identity"):
            place = self._agent_of(amphora)
            if self.vouching is None or self.vouching.outgrown:
                raise Incompatible("fake", "agents that take an identity")
            place.identity = self.vouching.identity()
            return place.identity

    async def apply(self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        async with self.faults.around("apply"):
            place = self._agent_of(amphora)
            if amphora.id in self.outgrown:
                raise Incompatible("0.1", "agents of today")
            if rendered.digest != _digest(rendered.text, rendered.files):
                raise Rejected("digest", "it is not the digest of text and files")
            before = place.runs
            if not _binds(rendered.text):
                # Nothing shall listen, so no balancer runs: there is no configuration for one without a bind.
                action = "stop"
                place.on_disk = None
                place.kill_balancer()
            elif before is not None and before.digest == rendered.digest:
                action = "unchanged"
            else:
                self._try_binds(tree, before, rendered)
                action = _action(before, rendered)
                place.on_disk = rendered
                place.balancing = True
            place.history.append(action)
            identity = None
            if self.vouching is not None and amphora.id in self.vouching.reborn:
                self.vouching.reborn.discard(amphora.id)
                place.identity = identity = self.vouching.identity()
        return Applied(digest=rendered.digest, action=action, balancer_version=self.balancer_version, identity=identity)

    async def introduce(
        self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered, shut: Callable[[], Awaitable[bool]]
    ) -> Applied:
        async with self.faults.around("introduce"):
            place = self._agent_of(amphora)
            self._speak_to(amphora)
            await shut()
            before = Rendered(text="", digest="") if place.on_disk is None else place.on_disk
            lines = [x for x in before.text.splitlines() if not x.startswith("peer ")]
            lines += [x for x in rendered.text.splitlines() if x.startswith("peer ")]
            text = "\n".join(lines) + "\n"
            place.on_disk = Rendered(text=text, digest=_digest(text, before.files), files=before.files)
            place.history.append("introduce")
        return Applied(digest=place.on_disk.digest, action="reload")

    async def leave(self, amphora: Amphora, tree: LoadBalancerTree, shut: Callable[[], Awaitable[bool]]) -> None:
        async with self.faults.around("leave"):
            place = self._agent_of(amphora)
            self._speak_to(amphora)
            await shut()
            place.history.append("leave")

    async def plug(self, amphora: Amphora, tree: LoadBalancerTree) -> Mapping[PortId, str]:
        async with self.faults.around("plug"):
            place = self._agent_of(amphora)
            links = {port.mac for port in place.attached.values()}
            ports = [x for x in amphora.ports if x.purpose is not PortPurpose.MANAGEMENT]
            for port in ports:
                if port.mac not in links:
                    raise Retry(
                        f"amphora {amphora.id} sees no interface {port.mac} yet", after=0.0, code="no-interface"
                    )
            place.configured |= {x.mac: x for x in ports}
        return {x.id: f"eth{number}" for number, x in enumerate(ports, 1)}

    async def info(self, amphora: Amphora, tree: LoadBalancerTree) -> AmphoraInfo:
        async with self.faults.around("info"):
            place = self._agent_of(amphora)
        return AmphoraInfo(
            agent_version="1.0.0",
            balancer_version=self.balancer_version,
            extension=1,
            running=place.balancing,
            digest=None if place.on_disk is None else place.on_disk.digest,
        )

    async def retire(self, amphora: Amphora, tree: LoadBalancerTree) -> None:
        async with self.faults.around("retire"):
            self._agent_of(amphora).kill_balancer()

    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        if len(datagram) > _LONGEST_DATAGRAM:
            raise Refused("longer than any datagram")
        body, digest = datagram[:-32], datagram[-32:]
        if not hmac.compare_digest(hmac.digest(_KEY, body, "sha256"), digest):
            raise Refused("wrong digest")
        try:
            return msgspec.json.decode(body, type=Heartbeat)
        except msgspec.MsgspecError as error:
            raise Refused("not a heartbeat") from error

    @staticmethod
    def heartbeat(heartbeat: Heartbeat) -> bytes:
        """The datagram that an amphora would send."""
        body = msgspec.json.encode(heartbeat)
        return body + hmac.digest(_KEY, body, "sha256")

    def _agent_of(self, amphora: Amphora) -> FakePlace:
        """The place whose agent answers at the address on record. The address matters: that is how agents are found."""
        place = self.places.get(amphora.id)
        if place is None or not place.agent_running or amphora.management_address != place.address:
            where = amphora.management_address or "no address"
            raise Retry(f"the agent of amphora {amphora.id} does not answer at {where}", after=0.0, code="agent-silent")
        return place

    def _speak_to(self, amphora: Amphora) -> None:
        if amphora.id in self.outgrown and not self.speaks_to_outgrown:
            raise Incompatible("extension 0", "extension 1")

    def _try_binds(self, tree: LoadBalancerTree, before: Rendered | None, rendered: Rendered) -> None:
        held = set() if before is None else _binds(before.text)
        refused = tuple(
            RefusedBind(listener_id=listener_id, address=tree.load_balancer.vip.address, port=port, errno="EADDRINUSE")
            for listener_id, port in sorted(_binds(rendered.text) - held)
            if port in self.taken_ports
        )
        if refused:
            raise BindRefused(refused)


class _Bind(msgspec.Struct, frozen=True):
    id: str
    protocol_port: int
    admin_state_up: bool


def _line(value: TreeObject) -> str:
    facts = {k: v for k, v in msgspec.structs.asdict(value).items() if k not in _REPORTS}
    return f"{value.kind} {msgspec.json.encode(facts, order='deterministic').decode()}"


def _files(wanted: LoadBalancerTree, secrets: Secrets) -> Iterator[RenderedFile]:
    """One file for each reference, named by it. Raises Rejected for one that was not resolved."""
    contents = {
        SecretKind.CERTIFICATE: lambda ref: _pem(secrets.certificates[ref]),
        SecretKind.AUTHORITIES: lambda ref: b"".join(secrets.authorities[ref].certificates),
        SecretKind.REVOCATIONS: lambda ref: b"".join(secrets.revocations[ref].lists),
    }
    for kind, reference in sorted({(use.kind, use.reference) for use in secret_uses(wanted)}):
        try:
            content = contents[kind](reference)
        except KeyError as error:
            raise Rejected(kind, f"{reference} was not resolved") from error
        yield RenderedFile(name=f"{kind}-{sha256(reference.encode()).hexdigest()[:16]}.pem", content=content)


def _pem(certificate: Certificate) -> bytes:
    return b"".join((certificate.certificate, certificate.private_key, *certificate.intermediates))


def _digest(text: str, files: tuple[RenderedFile, ...]) -> str:
    whole = sha256(text.encode())
    for file in files:
        whole.update(f"{file.name} {file.private} {sha256(file.content).hexdigest()}\n".encode())
    return whole.hexdigest()


def _binds(text: str) -> set[tuple[str, int]]:
    """Listener id and port of every enabled listener in a rendered text."""
    found = set()
    for line in text.splitlines():
        kind, _, facts = line.partition(" ")
        if kind == "listener":
            bind = msgspec.json.decode(facts, type=_Bind)
            if bind.admin_state_up:
                found.add((bind.id, bind.protocol_port))
    return found


def _action(before: Rendered | None, after: Rendered) -> str:
    if before is None:
        return "start"
    changed = set(before.text.splitlines()) ^ set(after.text.splitlines())
    # The contents of a file that stays change as members do: without a new start of anything.
    same_files = {x.name for x in before.files} == {x.name for x in after.files}
    return "runtime" if same_files and all(line.startswith("member ") for line in changed) else "reload"
