"""A secret driver whose store is a dict, with faults on order.

Hand the same dict to a second FakeSecrets and it is the same store after a restart. Contents are whatever the test put
there, taken as parsed and checked: PEM is the business of real stores."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import ClassVar, TypeVar

from frontinus.drivers.secret.interface import SecretDriver
from frontinus.model.certificates import Authorities, Certificate, Revocations
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId
from frontinus.testing.faults import Faults

_Content = Certificate | Authorities | Revocations
_T = TypeVar("_T", Certificate, Authorities, Revocations)


class FakeSecrets(SecretDriver):
    """`store` is the world: project and reference -> content."""

    name: ClassVar[str] = "fake"

    def __init__(
        self, store: MutableMapping[tuple[ProjectId, str], _Content] | None = None, faults: Faults | None = None
    ) -> None:
        self.store: MutableMapping[tuple[ProjectId, str], _Content] = {} if store is None else store
        self.faults = Faults() if faults is None else faults
        self._seen: dict[tuple[ProjectId, str], _Content] = {}

    async def certificate(self, reference: str, project_id: ProjectId) -> Certificate:
        return await self._read(reference, project_id, Certificate)

    async def authorities(self, reference: str, project_id: ProjectId) -> Authorities:
        found = self.store.get((project_id, reference))
        if isinstance(found, Certificate):
            return Authorities(certificates=(found.certificate, *found.intermediates))
        return await self._read(reference, project_id, Authorities)

    async def revocations(self, reference: str, project_id: ProjectId) -> Revocations:
        return await self._read(reference, project_id, Revocations)

    async def changes(self) -> frozenset[str]:
        async with self.faults.around("changes"):
            before, self._seen = self._seen, dict(self.store)
        keys = before.keys() | self._seen.keys()
        return frozenset(key[1] for key in keys if before.get(key) is not self._seen.get(key))

    def forget_changes(self) -> None:
        self._seen = {}

    async def _read(self, reference: str, project_id: ProjectId, kind: type[_T]) -> _T:
        async with self.faults.around("secret"):
            found = self.store.get((project_id, reference))
        if not isinstance(found, kind):
            raise Invalid(reference, f"this project has no such {kind.__name__.lower()}")
        return found
