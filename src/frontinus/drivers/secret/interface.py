"""The secret driver: certificates behind references. Nothing it returns is ever logged or stored by us in clear."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar, assert_never

from frontinus.model.belongings import Belonging
from frontinus.model.certificates import (
    Authorities,
    Certificate,
    Revocations,
    SecretConsumer,
    SecretKind,
    SecretUse,
)
from frontinus.model.errors import Bug
from frontinus.model.findings import Finding
from frontinus.model.ids import LoadBalancerId, ProjectId
from frontinus.model.network import Tenant

INTERFACE_VERSION = 1
INTERFACE_MATURITY = "experimental"


class SecretDriver(ABC):
    """Each method may be called as often as needed, gives the same for the same content, and raises Invalid naming the
    reference when it cannot be resolved, is not readable by the project, or is not what it should be; Retry when the
    store cannot be asked."""

    name: ClassVar[str]
    interface: ClassVar[int] = INTERFACE_VERSION
    """The version of this interface that it was written for; a driver of another distribution says it itself."""

    keeps_consumers: ClassVar[bool] = False
    """Whether the store records who uses its secrets; of one that does not, the methods about consumers are not called."""

    @property
    def watch_interval(self) -> timedelta:
        """How often the controllers ask for `changes`. 0: as often as each of them likes, about once a second, because it
        costs next to nothing. Of a store that takes time few of many controllers ask each time."""
        return timedelta(0)

    async def require_access(  # noqa: B027 - reading is enough by default
        self, tenant: Tenant, load_balancer_id: LoadBalancerId, references: Mapping[str, str]
    ) -> None:
        """A user has named these references, each in the field that is its value, for a load balancer that may not exist
        yet: that he may read them is made certain, with his own token where the store can be asked with it, and they are
        readable by his project from now on. Raises Invalid naming the field, or Retry."""

    async def shown_to(
        self, tenant: Tenant, kind: SecretKind, reference: str
    ) -> Certificate | Authorities | Revocations:
        """What is behind a reference that a user has named, who only tries what would be: as he himself is shown it, where the
        store can be asked with his token. Changes nothing, and lets nobody in. Raises as the methods below."""
        return await self._of(kind, reference, tenant.project_id)

    @abstractmethod
    async def certificate(self, reference: str, project_id: ProjectId) -> Certificate:
        """The certificate with its key behind a reference, readable by the project."""

    @abstractmethod
    async def authorities(self, reference: str, project_id: ProjectId) -> Authorities:
        """The certificates of authorities behind a reference, at least one. A secret with a key is fine: the key stays
        where it is."""

    @abstractmethod
    async def revocations(self, reference: str, project_id: ProjectId) -> Revocations:
        """The revocation lists behind a reference, at least one."""

    async def require_readable(self, use: SecretUse, project_id: ProjectId) -> None:
        """That a load balancer of the project, which another program's API has let name this, can be given what it needs.
        Changes nothing, and asks for no consumer of ours (`frontinus adopt`). Raises as the methods above."""
        await self.read(use, project_id)

    async def read(self, use: SecretUse, project_id: ProjectId) -> Certificate | Authorities | Revocations:
        """Whichever of the three the use is of."""
        return await self._of(use.kind, use.reference, project_id)

    async def _of(
        self, kind: SecretKind, reference: str, project_id: ProjectId
    ) -> Certificate | Authorities | Revocations:
        match kind:
            case SecretKind.CERTIFICATE:
                return await self.certificate(reference, project_id)
            case SecretKind.AUTHORITIES:
                return await self.authorities(reference, project_id)
            case SecretKind.REVOCATIONS:
                return await self.revocations(reference, project_id)
            case _:
                assert_never(kind)

    async def changes(self) -> frozenset[str]:
        """References whose content may be another than when this was last asked of this object, whoever changed it:
        stored, replaced, deleted. The first answer names all that there are. Asked every `watch_interval`; a store that cannot tell answers with none, and its secrets are read anew with the next change of the
        load balancer. Raises Retry."""
        return frozenset()

    def forget_changes(self) -> None:  # noqa: B027 - nothing to forget by default
        """What `changes` told last did not arrive: its next answer is a first one again."""

    async def list_consumers(self) -> tuple[SecretConsumer, ...]:
        """Every consumer that this installation has registered. Raises Retry."""
        return ()

    def canonical(self, reference: str) -> str:
        """The one spelling of a reference, by which consumers are compared."""
        return reference

    async def register(self, consumer: SecretConsumer) -> None:  # noqa: B027 - see keeps_consumers
        """The load balancer uses the secret, which a user with the right to read it has named. Safe to repeat. Raises
        Invalid when the secret is not there or not readable, and Retry."""

    async def unregister(self, consumer: SecretConsumer) -> None:  # noqa: B027 - see keeps_consumers
        """It does no longer; a secret or a consumer that is not there is done. Safe to repeat. Raises Retry."""

    async def list_unused(self) -> tuple[Belonging, ...]:
        """What this driver itself made and nobody uses any more, such as the rest of a file whose writer was killed. Never
        a secret: those are their owners', used or not. Raises Retry."""
        return ()

    async def discard(self, belonging: Belonging) -> None:
        """What `list_unused` named is gone, if it would still name it. Safe to repeat. Raises Retry."""
        raise Bug(f"secret driver {self.name} has nothing to discard")

    async def examine(self) -> tuple[Finding, ...]:
        """What on this machine stands in the driver's way, or will, and what does not; `frontinus doctor` asks. Changes
        nothing, and raises nothing that a finding could say."""
        return ()

    async def close(self) -> None:  # noqa: B027 - nothing to let go of by default
        """Let go of connections."""
