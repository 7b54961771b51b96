"""Facts of the contract, checked one by one and counted, and the differences that are meant.

A fact has a name, what the contract says and what was seen. What differs must stand in differences.py under its name,
with the answer that we give instead; an entry there that is not met any more fails too. Totals are in pytest's summary
and in `make contract-report`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tests.integration.api.contract.differences import DIFFERENCES

MOST_SHOWN = 40

Recorder: TypeAlias = Callable[[str, object], None]


@dataclass
class Ledger:
    """`area` is the part of the contract that one test examines."""

    area: str
    checked: int = 0
    meant: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def check(self, name: str, expected: object, seen: object, detail: object = "") -> bool:
        """Whether it is as the contract has it; not, where it differs on purpose."""
        assert name not in self.names, f"two facts are called {name!r}"
        self.names.add(name)
        self.checked += 1
        difference = DIFFERENCES.get(self.area, {}).get(name)
        if difference is not None:
            self.meant.add(name)
            expected = difference.answer
        if seen != expected:
            self.wrong.append(f"{self.area}: {name}: expected {expected!r}, seen {seen!r} {str(detail)[:300]}")
            return False
        return difference is None

    def close(self, record_property: Recorder, *, by_area: bool) -> None:
        """Say the totals, and fail on what differs without being meant."""
        if by_area:
            record_property(f"contract facts of {self.area}", self.checked)
        record_property("contract facts checked", self.checked)
        record_property("contract facts that differ on purpose", len(self.meant))
        record_property("contract facts that differ", len(self.wrong))
        unmet = set(DIFFERENCES.get(self.area, {})) - self.meant
        assert not unmet, f"{self.area}: differences.py names what is not checked any more: {sorted(unmet)}"
        assert not self.wrong, f"{len(self.wrong)} of {self.checked} facts differ:\n" + "\n".join(
            self.wrong[:MOST_SHOWN]
        )


def type_name(value: Any) -> str:
    """What the contract calls the type of a JSON value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
