"""The amphora driver: renders configurations, carries them to amphorae, decodes what amphorae say.

The version of the interface grows with every change that an existing driver would notice; while it is experimental, drivers of other
distributions load only with the operator's word (DESIGN section 2; loading.py).
A driver knows nothing of compute, network or the store. Errors a driver may raise: Retry, Incompatible, Rejected,
BindRefused, Gone (frontinus.model.errors); anything else is a bug and is reported as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import ClassVar

import msgspec

from frontinus.model.belongings import Belonging
from frontinus.model.boot import BootFiles, Identity
from frontinus.model.capabilities import Capabilities
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.errors import Bug, Incompatible
from frontinus.model.findings import Finding
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.ids import AmphoraId, PortId
from frontinus.model.previews import Preview
from frontinus.model.tree import Amphora, LoadBalancerTree

INTERFACE_VERSION = 1
INTERFACE_MATURITY = "experimental"


class Refused(Exception):
    """A datagram that is not accepted. The reason goes to the log, never a digest, and counts are kept by it: it is one
    of a few fixed texts, and what is particular to one datagram stands in `detail`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class RenderedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file beside the configuration text. `name` is one path component, unique among the files of its amphora.

    A `private` file holds what nobody may see: it is kept in memory only, and appears in no log and no answer."""

    name: str
    content: bytes
    private: bool = True

    def __repr__(self) -> str:  # keeps private keys out of logs and tracebacks
        return f"RenderedFile(name={self.name!r}, private={self.private})"


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """What an amphora shall run. `digest` (sha256 hex) covers everything in it, text and files; same input, same
    digest."""

    text: str
    digest: str
    files: tuple[RenderedFile, ...] = ()


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """How an amphora got to a rendered configuration: unchanged, start, runtime, reload, or stop when nothing shall
    listen. `took_ms` is the agent's. `agent_version` is what it says of itself, None where it says nothing. `balancer_version` is what balances there, None where that was not told: it is kept with
    the amphora, for `render`. `identity` is what the amphora has from now on where that is not what is on record of it: it had
    come back with that of its start, say."""

    digest: str
    action: str
    took_ms: float = 0.0
    balancer_version: str | None = None
    agent_version: str | None = None
    identity: Identity | None = None


class AmphoraInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent answers for. `digest` is None where nothing was ever applied or the agent cannot tell."""

    agent_version: str
    balancer_version: str
    extension: int | None
    running: bool
    digest: str | None


class AmphoraDriver(ABC):
    """One amphora type. Construct, use, `close`; every method may be called from many tasks at once."""

    name: ClassVar[str]
    version: ClassVar[str]
    interface: ClassVar[int] = INTERFACE_VERSION
    """The version of this interface that it was written for; a driver of another distribution says it itself."""
    amphora_versions: ClassVar[str]
    """Which agent versions it serves, as a PEP 440 specifier set."""
    capabilities: ClassVar[Capabilities]
    introduces: ClassVar[bool] = False
    """Whether it has `introduce`."""

    @property
    def heartbeat_prefixes(self) -> tuple[bytes, ...]:
        """The four bytes with which every datagram begins that `decode` may take, one for each format; empty when nothing
        can be said. The receiver has the kernel drop what begins otherwise."""
        return ()

    def claimed_sender(self, datagram: bytes) -> AmphoraId | None:
        """Whom a datagram names as its sender, before anything of it is verified; None where that cannot be told at once.
        While more datagrams come than can be verified, those in the name of an unknown amphora are not. Pure."""
        return None

    def offers(self) -> Capabilities:
        """What is published: `capabilities`, or what its settings make of them. Pure."""
        return self.capabilities

    @abstractmethod
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        """The configuration of this amphora for the wanted tree. Pure: no clock, no I/O; same input, same digest.

        `secrets` has what is behind every reference of the tree (model/certificates.py, secret_uses). Raises Rejected
        naming field and object (model.errors.blaming) when what a tenant asked cannot be expressed."""

    @abstractmethod
    def preview(self, before: Rendered | None, after: Rendered | None) -> Preview:
        """What `apply` would do to an amphora that runs `before` (None: nothing yet) so that it runs `after` (None: it is
        to be removed). Pure, and called from any thread.

        A tenant reads the answer: nothing private of `files` may be in it, in commands as little as in the diff."""

    @abstractmethod
    def boot_files(self, amphora_id: AmphoraId, management_address: str) -> BootFiles:
        """Agent configuration and fresh certificate for a place about to be built or started. Safe to repeat: an
        amphora may be started with the files of any call."""

    @abstractmethod
    async def apply(self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        """Bring the amphora to `rendered` by the smallest change that gets there; when it returns, that is what runs.

        Idempotent. Raises BindRefused with nothing changed when the kernel gives some listeners no port; Rejected when
        the balancer refuses the text; Retry when the agent cannot be reached; Incompatible when this amphora is too old to run
        it; Gone never (ask compute)."""

    async def introduce(
        self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered, shut: Callable[[], Awaitable[bool]]
    ) -> Applied:
        """Tell an amphora of a pair, of which `apply` has said that it cannot run `rendered`, who the other one is in it; all
        else is left as it runs. Idempotent. A driver that can says so by `introduces`; with others a pair that is too old for
        a change goes on as it is, and the change is a fault.

        `shut` is as in `leave`, for one that must not meet a new client meanwhile; they are let in again when this has
        returned. Raises Retry; Incompatible when this amphora cannot even take that."""
        raise Incompatible(self.name, "drivers that introduce the amphorae of a pair to each other")

    async def plug(self, amphora: Amphora, tree: LoadBalancerTree) -> Mapping[PortId, str]:
        """Have the amphora configure its attached ports (`amphora.ports`, but for management): addresses, routes, and
        that it can listen on the VIPs. Gives what it calls their interfaces. Called before the first configuration is
        applied, and whenever ports change; idempotent, traffic on what stays goes on undisturbed.

        Only where network and compute have ports. Raises Retry, also while a link has not appeared yet."""
        raise Bug(f"amphora driver {self.name} plugs no ports")

    @abstractmethod
    async def info(self, amphora: Amphora, tree: LoadBalancerTree) -> AmphoraInfo:
        """Ask the agent. Returns within about two seconds. Raises Retry when it does not answer."""

    @property
    def identity_digest(self) -> str:
        """The digest of the identity (model.boot.Identity) that every amphora should have now; another one when, say, the
        authority that vouches for amphorae changes. Empty: they have none that could be renewed."""
        return ""

    @property
    def kept_identity_digest(self) -> str:
        """The digest of an identity of amphorae that were taken over from elsewhere, which they keep: they are given fresh
        certificates of it in time, and never another one. Empty: there are none."""
        return ""

    async def renew_identity(self, amphora: Amphora) -> Identity:
        """Give a running amphora a fresh identity of `identity_digest`, or of `kept_identity_digest` if that is
        what it has; nothing that it carries is disturbed. Called when
        what it has is due or of another digest. Raises Retry; Incompatible when this amphora cannot take it."""
        raise Incompatible(self.name, "drivers that have an identity")

    async def leave(  # noqa: B027 - one that cannot wait for connections cuts them
        self, amphora: Amphora, tree: LoadBalancerTree, shut: Callable[[], Awaitable[bool]]
    ) -> None:
        """Have the connections of this amphora end, since it is about to be retired while the other one of its pair serves:
        those that are kept open between requests first, and what has begun is waited for. It returns after a bounded time,
        also where some go on. Called before `retire`, maybe more than once; traffic goes on meanwhile.

        `shut`, which may be called once and late, has the network let no new TCP connection in any more, without a word to
        whoever asks for one (he asks again, and the other one answers), and those that are there go on; it says whether
        it did. Raises Retry or Incompatible, which the caller may ignore."""

    @abstractmethod
    async def retire(self, amphora: Amphora, tree: LoadBalancerTree) -> None:
        """Stop balancing on this amphora; its place is about to be destroyed. Raises Retry when it does not answer,
        which the caller may ignore: destroying the place stops it too."""

    @abstractmethod
    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        """Verify, then parse. Raises Refused. Never blocks, never allocates more than a bounded amount."""

    async def list_unused(self) -> tuple[Belonging, ...]:
        """What this driver itself made outside of amphorae and nobody uses any more: certificates of controllers that are
        no more, the rest of a file whose writer was killed. Raises Retry."""
        return ()

    async def discard(self, belonging: Belonging) -> None:
        """What `list_unused` named is gone, if it would still name it. Safe to repeat. Raises Retry."""
        raise Bug(f"amphora driver {self.name} has nothing to discard")

    async def examine(self) -> tuple[Finding, ...]:
        """What on this machine stands in the driver's way, or will, and what does not; `frontinus doctor` asks. Changes
        nothing, and raises nothing that a finding could say."""
        return ()

    async def close(self) -> None:  # noqa: B027 - a driver without connections has nothing to close
        """Let go of connections. The amphorae are not touched."""
