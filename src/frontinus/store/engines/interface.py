"""What an engine offers to engine.py: transactions around a synchronous function, and a judgement of its own errors.

Values are plain both ways (statement.py), rows are sequences by position. Next: sqlite.py, pooled.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol, TypeVar

from sqlalchemy.engine import Dialect

from frontinus.store.statement import Row, Value

T = TypeVar("T")

UPGRADE_TIMEOUT_S = 60
"""How long an upgrade waits for another process that upgrades the same database."""


class Session(Protocol):
    """The statements of one transaction, on the driver's own cursor. Texts are compiled already, rows are mapped by
    position: what SQLAlchemy does around each execution would be more than half of the cost of a read."""

    def query(self, text: str, values: tuple[Value, ...]) -> Sequence[Row]:
        """All rows of a select."""

    def execute(self, text: str, values: tuple[Value, ...]) -> int:
        """A write; how many rows it matched, changed or not."""

    def execute_many(self, text: str, sets: list[tuple[Value, ...]]) -> None:
        """A write, once per set of values."""


class Trouble(Enum):
    """What an error of the engine means for a transaction that was rolled back."""

    CONTENDED = "somebody was in the way: a lock, a deadlock, a conflict of serialisation or certification"
    RACED = "a key or a reference that another transaction may have made or removed meanwhile"
    UNREACHABLE = "the server is away, starts, stops, was replaced by another, or its disk is full"
    REFUSED = "what was written is wrong"


class OutcomeUnknown(Exception):
    """The connection was lost while the commit was under way: it may have been carried out or not."""


class Database(ABC):
    """One database on one engine."""

    dialect: Dialect
    """For which statements are compiled."""

    errors: tuple[type[Exception], ...]
    """Everything that `run` may raise because of the engine; `judge` says what each means."""

    patience: float
    """For how many seconds a transaction is tried again while the database is away."""

    longest_pause: float
    """The longest pause between two tries, in seconds."""

    @abstractmethod
    async def run(self, body: Callable[[Session], T], *, writable: bool) -> T:
        """Run `body` in a transaction: writes see the newest rows and lock what they ask for, reads see one snapshot.

        Commits when it returns and rolls back when it raises. Raises OutcomeUnknown."""

    @abstractmethod
    def judge(self, error: BaseException) -> Trouble:
        """What one of `errors` means."""

    @abstractmethod
    def upgrade(self) -> None:
        """Bring the schema to what this version needs, alone: of two processes one waits for the other."""

    @abstractmethod
    def missing_steps(self) -> tuple[str, ...] | None:
        """The steps that an upgrade would take; None when the schema is newer than this version."""

    @abstractmethod
    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` when another process announces something. Nothing, where the engine cannot carry it."""

    @abstractmethod
    def announce(self) -> None:
        """Tell the other processes that work may be due. A hint: it may be lost, and never fails."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of every connection. May be repeated."""
