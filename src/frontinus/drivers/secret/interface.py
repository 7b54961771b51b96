"""The secret driver: certificates behind references. Nothing it returns is ever logged or stored by us in clear."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import msgspec

from frontinus.model.ids import ProjectId


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed and checked certificate. PEM texts; the key is unencrypted and matches the certificate."""

    certificate: bytes
    private_key: bytes
    intermediates: tuple[bytes, ...] = ()

    def __repr__(self) -> str:  # keeps private keys out of logs and tracebacks
        return "Certificate(...)"


class SecretDriver(ABC):
    name: ClassVar[str]

    @abstractmethod
    async def certificate(self, reference: str, project_id: ProjectId) -> Certificate:
        """The certificate behind a reference, readable by the project. Raises Invalid naming the reference when it
        cannot be resolved, is not readable by the project, or does not parse; Retry when the store cannot be asked."""

    async def close(self) -> None:  # noqa: B027 - nothing to let go of by default
        """Let go of connections."""
