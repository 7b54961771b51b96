"""A secret driver that has no secrets: for installations without TLS, and a vendor's start."""

from __future__ import annotations

from typing import ClassVar

from frontinus.drivers.secret.interface import SecretDriver
from frontinus.model.certificates import Authorities, Certificate, Revocations
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId


class NoopSecrets(SecretDriver):
    name: ClassVar[str] = "noop"

    async def certificate(self, reference: str, project_id: ProjectId) -> Certificate:
        raise _none(reference)

    async def authorities(self, reference: str, project_id: ProjectId) -> Authorities:
        raise _none(reference)

    async def revocations(self, reference: str, project_id: ProjectId) -> Revocations:
        raise _none(reference)


def _none(reference: str) -> Invalid:
    return Invalid(reference, "this installation keeps no secrets: its secret driver is noop")
