"""The secret driver: certificates behind references. Nothing it returns is ever logged or stored by us in clear."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from frontinus.model.certificates import Authorities, Certificate, Revocations
from frontinus.model.ids import ProjectId


class SecretDriver(ABC):
    """Each method may be called as often as needed, gives the same for the same content, and raises Invalid naming the
    reference when it cannot be resolved, is not readable by the project, or is not what it should be; Retry when the
    store cannot be asked."""

    name: ClassVar[str]

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

    async def close(self) -> None:  # noqa: B027 - nothing to let go of by default
        """Let go of connections."""
