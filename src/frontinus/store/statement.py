"""A statement that is built and compiled once, and then only executed.

SQLAlchemy Core writes the SQL for the engine at hand; what it does per execution (cache keys, result processors) costs
more than SQLite itself, so the compiled text is kept here and goes to the driver as it is. Values are therefore plain:
text, integers, booleans, floats, None (rows.py). Next: engine.py, which executes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import Insert, Table, bindparam
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

Value: TypeAlias = str | int | float | bool | None
Row: TypeAlias = tuple[Any, ...]
"""What the driver gives: one plain value per selected column."""


class Statement:
    """One Core construct, with its text per dialect. Parameters are named binds; constants in it are kept."""

    __slots__ = ("_compiled", "_construct")

    def __init__(self, construct: Executable) -> None:
        if not isinstance(construct, ClauseElement):
            raise TypeError(f"{construct!r} cannot be compiled")
        self._construct: ClauseElement = construct
        self._compiled: dict[str, tuple[str, tuple[tuple[str, Value], ...]]] = {}

    def bind(self, dialect: Dialect, parameters: Mapping[str, Value]) -> tuple[str, tuple[Value, ...]]:
        """The text for this dialect and the parameters in its order."""
        text, template = self._compiled.get(dialect.name) or self._compile(dialect)
        return text, tuple([parameters.get(name, constant) for name, constant in template])

    def order(self, dialect: Dialect) -> tuple[str, tuple[str, ...]]:
        """The text for this dialect and the names of its parameters in order, for callers that make tuples."""
        text, template = self._compiled.get(dialect.name) or self._compile(dialect)
        return text, tuple(name for name, _ in template)

    def _compile(self, dialect: Dialect) -> tuple[str, tuple[tuple[str, Value], ...]]:
        compiled = self._construct.compile(dialect=dialect)
        if not isinstance(compiled, SQLCompiler) or compiled.positiontup is None:
            raise TypeError(f"the {dialect.name} driver does not number its parameters")
        text = str(compiled)
        if "POSTCOMPILE" in text:
            raise TypeError("a statement that is compiled once cannot have an expanding parameter")
        constants = compiled.params
        made = (text, tuple((name, constants[name]) for name in compiled.positiontup))
        self._compiled[dialect.name] = made
        return made


def padded_size(count: int) -> int:
    """How many places an IN list gets: the next power of two, so that few different statements exist."""
    return 1 << max(count - 1, 0).bit_length()


@cache
def _places(size: int) -> tuple[str, ...]:
    return tuple(f"id_{number}" for number in range(size))


def is_one_of(column: ColumnElement[str], size: int) -> ColumnElement[bool]:
    """`column IN (:id_0, ..., :id_n)`; fill it with `padded`."""
    return column.in_([bindparam(place, type_=column.type) for place in _places(size)])


def padded(ids: Sequence[str], size: int) -> dict[str, Value]:
    """Parameters for `is_one_of`: the ids, the last one repeated until every place is filled."""
    return dict(zip(_places(size), [*ids, *[ids[-1]] * (size - len(ids))], strict=True))


def chunks(ids: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """The ids in parts of at most `most`."""
    for start in range(0, len(ids), most):
        yield ids[start : start + most]


class _InsertIfAbsent(Insert):
    inherit_cache = False


def insert_if_absent(table: Table, columns: Sequence[str]) -> Insert:
    """An insert of one row that does nothing, and matches none, where its primary key exists already. Of two at the same
    time the second waits for the first transaction to end."""
    return _InsertIfAbsent(table).values({name: bindparam(name) for name in columns})


@compiles(_InsertIfAbsent)
def _on_conflict(element: Insert, compiler: SQLCompiler, **options: Any) -> str:
    text: str = compiler.visit_insert(element, **options)  # type: ignore[no-untyped-call]  # SQLAlchemy's own
    return f"{text} ON CONFLICT DO NOTHING"


@compiles(_InsertIfAbsent, "mysql", "mariadb")
def _ignore(element: Insert, compiler: SQLCompiler, **options: Any) -> str:
    text: str = compiler.visit_insert(element.prefix_with("IGNORE"), **options)  # type: ignore[no-untyped-call]
    return text
