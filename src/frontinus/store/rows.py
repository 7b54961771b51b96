"""How a row becomes a value and back: one generated function each way per table, positional, without reflection.

The struct in model/ says the names and types; the table in schema.py has a column of the same name (a VIP is spread
over four). Knows nothing of connections. Next: trees.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import UnionType
from typing import Any, Generic, NewType, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec.structs import fields
from sqlalchemy import Table

from frontinus.model.errors import Unreadable
from frontinus.model.offers import AvailabilityZone, AvailabilityZoneProfile, Flavor, FlavorProfile
from frontinus.model.quotas import Quota
from frontinus.model.tree import (
    Amphora,
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancer,
    Member,
    Pool,
    Vip,
)
from frontinus.store import schema
from frontinus.store.statement import Row, Value

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_NOT_OURS = (KeyError, ValueError, TypeError, OverflowError, msgspec.MsgspecError)
"""What a row that this version cannot have written makes of reading it."""


def to_microseconds(moment: datetime) -> int:
    """Exact, for every aware datetime."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_microseconds(microseconds: int) -> datetime:
    """The aware UTC datetime of `to_microseconds`."""
    return _EPOCH + timedelta(0, 0, microseconds)


def optional_microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else to_microseconds(moment)


def to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


class _Words(dict[str, StrEnum]):
    """The members of an enum by their words."""

    def __init__(self, enum: type[StrEnum]) -> None:
        super().__init__({member.value: member for member in enum})
        self.enum = enum


class _AnyWord(dict[str, Any]):
    """The members of an enum by their words, and for any other word one that is shown like them and is equal to none."""

    def __init__(self, known: Mapping[str, StrEnum], enum: type[StrEnum]) -> None:
        super().__init__(known)
        self._enum = enum

    def __missing__(self, word: object) -> StrEnum:
        if not isinstance(word, str):
            raise KeyError(word)
        stranger: StrEnum = str.__new__(self._enum, word)
        stranger._name_ = stranger._value_ = word
        return stranger


class Shape(Generic[T]):
    """How the struct `type` lies in `table`: its columns in order, and the ways between.

    `decode` raises Unreadable for what this version cannot have written: whoever acts upon a row must know all of it.
    `decode_leniently` is for showing: an unknown word is shown as it is, and of JSON that is none nothing is shown."""

    __slots__ = ("_column_types", "columns", "decode", "decode_leniently", "encode", "table", "type")

    def __init__(
        self,
        struct: type[T],
        table: Table,
        *,
        spread: Mapping[str, type[msgspec.Struct]] | None = None,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        """`spread` names fields whose struct has a column for each of its own fields, `renamed` maps fields to columns."""
        self.type = struct
        self.table = table
        reads: list[str] = []
        writes: dict[str, str] = {}
        types: dict[str, Any] = {}
        names: dict[str, Any] = {
            "struct": struct,
            "EPOCH": _EPOCH,
            "timedelta": timedelta,
            "us": to_microseconds,
            "not_ours": _NOT_OURS,
            "unreadable": self._unreadable,
        }

        def column(name: str, attribute: str, annotation: Any) -> str:
            read, writes[name] = _conversion(name, attribute, annotation, names)
            types[name] = annotation
            return read

        for field in fields(struct):  # type: ignore[arg-type]  # every T here is a Struct
            inner = (spread or {}).get(field.name)
            if inner is None:
                name = (renamed or {}).get(field.name, field.name)
                reads.append(f"{field.name}={column(name, f'x.{field.name}', field.type)}")
                continue
            names[inner.__name__] = inner
            parts = ", ".join(
                f"{x.name}={column(f'{field.name}_{x.name}', f'x.{field.name}.{x.name}', x.type)}"
                for x in fields(inner)
            )
            reads.append(f"{field.name}={inner.__name__}({parts})")
        # In the table's order, which is the order in which SQLAlchemy writes an insert.
        self.columns: tuple[str, ...] = tuple(x.name for x in table.columns if x.name in types)
        if len(self.columns) != len(types):
            raise TypeError(f"{table.name} lacks {sorted(set(types) - set(self.columns))}")
        self._column_types = types
        source = (
            f"def decode(row):\n"
            f"    try:\n"
            f"        {', '.join(self.columns)}, = row\n"
            f"        return struct({', '.join(reads)})\n"
            f"    except not_ours as error:\n"
            f"        raise unreadable(row, error) from error\n"
            f"def encode(x):\n"
            f"    return ({', '.join(writes[x] for x in self.columns)},)\n"
        )
        # As dataclasses do: the text is made of our own field names only, and runs once at import.
        code = compile(source, f"<rows of {table.name}>", "exec")
        lenient = {name: _lenient(value) for name, value in names.items()}
        exec(code, names)  # noqa: S102
        exec(code, lenient)  # noqa: S102
        self.decode: Callable[[Row], T] = names["decode"]
        self.decode_leniently: Callable[[Row], T] = lenient["decode"]
        self.encode: Callable[[T], tuple[Value, ...]] = names["encode"]

    def _unreadable(self, row: Row, error: Exception) -> Unreadable:
        word = error.args[0] if isinstance(error, KeyError) else None
        column = next((x for x, value in zip(self.columns, row, strict=False) if value == word is not None), None)
        why = str(error) if column is None else f"{column} is {word!r}"
        return Unreadable(self.table.name, row[0] if row else None, why)

    def changed(self, before: T, after: T) -> dict[str, Value]:
        """The columns whose stored value differs, with the new one."""
        return {
            name: new
            for name, old, new in zip(self.columns, self.encode(before), self.encode(after), strict=True)
            if old != new
        }

    def stored(self, column: str, value: object) -> Value:
        """One value as it lies in `column`. Raises ValueError if it is not a value of that column."""
        wanted, _ = _bare(self._column_types[column])
        if value is None:
            return None
        if isinstance(value, datetime):
            if wanted is not datetime:
                raise ValueError(f"{column} is not a time")
            return to_microseconds(value)
        try:
            checked = msgspec.convert(value, wanted, strict=True)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error
        if isinstance(checked, StrEnum):
            return checked.value
        if isinstance(checked, str | int | float):
            return checked
        return to_json(checked)

    def is_plain(self, column: str) -> bool:
        """Whether the column holds one comparable value and not JSON."""
        wanted, _ = _bare(self._column_types[column])
        return isinstance(wanted, type) and issubclass(wanted, str | int | float | datetime)

    def is_optional(self, column: str) -> bool:
        return _bare(self._column_types[column])[1]


def _lenient(name: Any) -> Any:
    """What `decode_leniently` reads by, where `decode` reads by this."""
    if isinstance(name, _Words):
        return _AnyWord(name, name.enum)
    return _if_readable(name) if isinstance(getattr(name, "__self__", None), msgspec.json.Decoder) else name


def _if_readable(load: Any) -> Callable[[str], Any]:
    nothing = () if get_origin(load.__self__.type) is tuple else None

    def read(text: str) -> Any:
        try:
            return load(text)
        except msgspec.MsgspecError:
            return nothing

    return read


def _bare(annotation: Any) -> tuple[Any, bool]:
    """The type without None and without NewType, and whether None was allowed."""
    optional = False
    if get_origin(annotation) in (Union, UnionType):
        rest = [x for x in get_args(annotation) if x is not type(None)]
        optional = len(rest) < len(get_args(annotation))
        if len(rest) != 1:
            raise TypeError(f"{annotation} has no single column type")
        annotation = rest[0]
    while isinstance(annotation, NewType):
        annotation = annotation.__supertype__
    return annotation, optional


def _conversion(read: str, write: str, annotation: Any, names: dict[str, Any]) -> tuple[str, str]:
    """Python expressions: the value from the variable named as the column, and what is stored from `write`."""
    wanted, optional = _bare(annotation)
    if wanted is datetime:
        reading, writing = f"EPOCH + timedelta(0, 0, {read})", f"us({write})"
    elif wanted is bool:
        # SQLite gives 0 and 1.
        reading, writing = f"{read} == 1", write
    elif wanted in (str, int, float):
        return read, write
    elif isinstance(wanted, type) and issubclass(wanted, StrEnum):
        names[f"of_{wanted.__name__}"] = _Words(wanted)
        reading, writing = f"of_{wanted.__name__}[{read}]", f"{write}._value_"
    else:
        suffix = str(len(names))
        names[f"load_{suffix}"] = msgspec.json.Decoder(wanted).decode
        names["dump"] = to_json
        reading, writing = f"load_{suffix}({read})", f"dump({write})"
        if get_origin(wanted) is tuple:
            reading, writing = f"(() if {read} == '[]' else {reading})", f"(dump({write}) if {write} else '[]')"
    if optional:
        return f"None if {read} is None else {reading}", f"None if {write} is None else {writing}"
    return reading, writing


LOAD_BALANCER = Shape(LoadBalancer, schema.load_balancer, spread={"vip": Vip})
LISTENER = Shape(Listener, schema.listener)
POOL = Shape(Pool, schema.pool)
MEMBER = Shape(Member, schema.member)
HEALTH_MONITOR = Shape(HealthMonitor, schema.health_monitor)
L7_POLICY = Shape(L7Policy, schema.l7_policy)
L7_RULE = Shape(L7Rule, schema.l7_rule)
AMPHORA = Shape(Amphora, schema.amphora)
QUOTA = Shape(Quota, schema.quota)
FLAVOR_PROFILE = Shape(FlavorProfile, schema.flavor_profile)
FLAVOR = Shape(Flavor, schema.flavor)
AVAILABILITY_ZONE_PROFILE = Shape(AvailabilityZoneProfile, schema.availability_zone_profile)
AVAILABILITY_ZONE = Shape(AvailabilityZone, schema.availability_zone)
