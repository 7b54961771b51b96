"""What one attribute may look like on the wire, and how it becomes a value: one small class per type.

Each knows four things: `parse` a JSON value, `query` a text from a query string, `render` the value for a response, and
its JSON `schema`. Nothing here knows resources or requests; null and absence are fields.py's. Coercions are those of
contract/resources.yaml conventions.type_coercion. Raises Invalid naming the path. Next: fields.py."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from frontinus.model.compatibility import MAX_INTEGER, MAX_TEXT
from frontinus.model.enums import Kind, SessionPersistenceType
from frontinus.model.errors import Invalid
from frontinus.model.tree import AdditionalVip, Fault, LastCheck, SessionPersistence
from frontinus.model.validation import check_address, check_integer, check_text

Schema = dict[str, Any]  # a JSON Schema, which is free-form JSON by definition


class WireType:
    """Base: any JSON value, unchanged."""

    renders = False
    """Whether `render` does anything; most values are encoded as they are."""

    def parse(self, value: object, path: str) -> Any:
        return value

    def query(self, text: str, path: str) -> Any:
        """A filter's value. By default what a JSON string with this text would be."""
        return self.parse(text, path)

    def render(self, value: Any) -> object:
        return value

    def schema(self) -> Schema:
        return {}


@dataclass(frozen=True)
class Text(WireType):
    longest: int = MAX_TEXT
    prose: bool = False

    def parse(self, value: object, path: str) -> str:
        if type(value) is not str:
            raise Invalid(path, f"must be a string, not {name_of(value)}")
        check_text(value, path, longest=self.longest, prose=self.prose)
        return value

    def query(self, text: str, path: str) -> str:
        return text

    def schema(self) -> Schema:
        return {"type": "string", "maxLength": self.longest}


_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})


def lenient_boolean(text: str) -> bool:
    """As query strings have it: what is not recognised is false (behaviours.yaml cascade_values, filters.booleans)."""
    return text.strip().lower() in _TRUE


@dataclass(frozen=True)
class Boolean(WireType):
    def parse(self, value: object, path: str) -> bool:
        if type(value) is bool:
            return value
        if type(value) is int and value in (0, 1):
            return bool(value)
        if type(value) is str:
            word = value.strip().lower()
            if word in _TRUE:
                return True
            if word in _FALSE:
                return False
        raise Invalid(path, f"must be a boolean, not {name_of(value)}")

    def query(self, text: str, path: str) -> bool:
        return lenient_boolean(text)

    def schema(self) -> Schema:
        return {"type": "boolean"}


_DECIMAL = re.compile(r"\s*[+-]?[0-9]{1,20}\s*", re.ASCII)


@dataclass(frozen=True)
class Integer(WireType):
    lowest: int = -MAX_INTEGER - 1
    highest: int = MAX_INTEGER

    def parse(self, value: object, path: str) -> int:
        # Fractions are cut off, and true counts as 1, as the contract has it. Infinity cannot come from JSON.
        if not isinstance(value, int | float) and not (isinstance(value, str) and _DECIMAL.fullmatch(value)):
            raise Invalid(path, f"must be an integer, not {name_of(value)}")
        number = int(value)
        check_integer(number, path, self.lowest, self.highest)
        return number

    def query(self, text: str, path: str) -> int:
        if _DECIMAL.fullmatch(text) is None or abs(int(text)) > MAX_INTEGER:
            raise Invalid(path, f"must be an integer, not {text!r}")
        return int(text)

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.lowest, "maximum": self.highest}


@dataclass(frozen=True)
class IntegerOf(Integer):
    """One of a few integers."""

    allowed: frozenset[int] = frozenset()

    def parse(self, value: object, path: str) -> int:
        number = super().parse(value, path)
        if number not in self.allowed:
            raise Invalid(path, f"must be one of {', '.join(str(x) for x in sorted(self.allowed))}")
        return number

    def schema(self) -> Schema:
        return {"type": "integer", "enum": sorted(self.allowed)}


@dataclass(frozen=True)
class Number(WireType):
    allowed: tuple[float, ...]

    def parse(self, value: object, path: str) -> float:
        number = value
        if type(value) is str:
            try:
                number = float(value)
            except ValueError:
                number = None
        if type(number) not in (int, float) or number not in self.allowed:
            raise Invalid(path, f"must be one of {', '.join(str(x) for x in self.allowed)}")
        return float(number)

    def schema(self) -> Schema:
        return {"type": "number", "enum": list(self.allowed)}


_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Uuid(WireType):
    """Any spelling that RFC 9562 and its readers know; becomes lower case with dashes."""

    def parse(self, value: object, path: str) -> str:
        if type(value) is str:
            if _CANONICAL_UUID.fullmatch(value):
                return value
            if value.isascii() and len(value) <= 64:
                try:
                    return str(UUID(value))
                except ValueError:
                    pass
        raise Invalid(path, f"must be a UUID, not {name_of(value)}")

    def query(self, text: str, path: str) -> str:
        return text  # an exact match on what is stored; what is no UUID matches nothing

    def schema(self) -> Schema:
        return {"type": "string", "format": "uuid"}


@dataclass(frozen=True)
class Address(WireType):
    def parse(self, value: object, path: str) -> str:
        if type(value) is not str:
            raise Invalid(path, f"must be an IP address, not {name_of(value)}")
        check_address(value, path)
        return value

    def query(self, text: str, path: str) -> str:
        return text

    def schema(self) -> Schema:
        return {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}


@dataclass(frozen=True)
class Choice(WireType):
    choices: type[StrEnum]

    def parse(self, value: object, path: str) -> StrEnum:
        if type(value) is str:
            found = self.choices._value2member_map_.get(value)
            if found is not None:
                return self.choices(value)
        raise Invalid(path, f"must be one of {', '.join(x.value for x in self.choices)}")

    def query(self, text: str, path: str) -> str:
        return text

    def has(self, text: str) -> bool:
        """Whether it is one of them; a filter by another word matches nothing."""
        return text in self.choices._value2member_map_

    def schema(self) -> Schema:
        return {"type": "string", "enum": [x.value for x in self.choices]}


@dataclass(frozen=True)
class Texts(WireType):
    """A list of strings. `empty_as_null` lists are shown as null when they hold nothing."""

    item: WireType = field(default_factory=Text)
    empty_as_null: bool = False

    @property
    def renders(self) -> bool:  # type: ignore[override]  # a constant of the class elsewhere
        return self.empty_as_null

    def parse(self, value: object, path: str) -> tuple[str, ...]:
        if type(value) is not list:
            raise Invalid(path, f"must be a list, not {name_of(value)}")
        return tuple(self.item.parse(x, path) for x in value)

    def render(self, value: Any) -> object:
        return value or None

    def schema(self) -> Schema:
        return {"type": "array", "items": self.item.schema()}


class Tags(Texts):
    """A list of strings in which none may occur twice; kept sorted, as the contract's order is the store's."""

    def parse(self, value: object, path: str) -> tuple[str, ...]:
        tags = super().parse(value, path)
        if len(set(tags)) != len(tags):
            raise Invalid(path, "names a tag more than once")
        return tuple(sorted(tags))


class Cidrs(Texts):
    """Networks: host bits cleared, a bare address is a network of one, duplicates collapse."""

    def parse(self, value: object, path: str) -> tuple[str, ...]:
        networks: dict[str, None] = {}
        for text in super().parse(value, path):
            try:
                networks[str(ipaddress.ip_network(text, strict=False))] = None
            except ValueError as error:
                raise Invalid(path, f"{text[:80]!r} is not a network in CIDR notation") from error
        return tuple(networks)


@dataclass(frozen=True)
class Headers(WireType):
    """Header name to text."""

    def parse(self, value: object, path: str) -> dict[str, str]:
        if type(value) is not dict:
            raise Invalid(path, f"must be an object, not {name_of(value)}")
        text = Text()
        return {text.parse(name, path): text.parse(content, f"{path}.{name[:80]}") for name, content in value.items()}

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": {"type": "string", "maxLength": MAX_TEXT}}


@dataclass(frozen=True)
class PersistenceSpec:
    """What a body said of session persistence: the type may be left out when the pool has one already."""

    type: SessionPersistenceType | None
    cookie_name: str | None
    persistence_timeout: int | None
    persistence_granularity: str | None

    def completed(self, stored: SessionPersistence | None, path: str) -> SessionPersistence:
        """With the type of what is stored where none was given. Raises Invalid where there is none either."""
        type_ = self.type or (stored.type if stored is not None else None)
        if type_ is None:
            raise Invalid(f"{path}.type", "is required")
        return SessionPersistence(
            type=type_,
            cookie_name=self.cookie_name,
            persistence_timeout=self.persistence_timeout,
            persistence_granularity=self.persistence_granularity,
        )


@dataclass(frozen=True)
class Persistence(WireType):
    renders = True

    def parse(self, value: object, path: str) -> PersistenceSpec:
        if type(value) is not dict:
            raise Invalid(path, f"must be an object, not {name_of(value)}")
        if not value:
            raise Invalid(path, "must not be empty; null removes it")
        parsed: dict[str, Any] = dict.fromkeys(_PERSISTENCE_TYPES)
        for name, content in value.items():
            wire_type = _PERSISTENCE_TYPES.get(name)
            if wire_type is None:
                raise Invalid(f"{path}.{name[:80]}", "is not an attribute that can be given here")
            parsed[name] = None if content is None else wire_type.parse(content, f"{path}.{name}")
        return PersistenceSpec(**parsed)

    def render(self, value: SessionPersistence | None) -> object:
        return value  # a struct of plain values: encoded as an object with all four keys

    def schema(self) -> Schema:
        return {
            "type": "object",
            "properties": {name: or_null(wire_type.schema()) for name, wire_type in _PERSISTENCE_TYPES.items()},
            "additionalProperties": False,
        }


_PERSISTENCE_TYPES: dict[str, WireType] = {
    "type": Choice(SessionPersistenceType),
    "cookie_name": Text(),
    "persistence_timeout": Integer(),
    "persistence_granularity": Address(),
}


@dataclass(frozen=True)
class AdditionalVips(WireType):
    renders = True

    def parse(self, value: object, path: str) -> tuple[AdditionalVip, ...]:
        if type(value) is not list:
            raise Invalid(path, f"must be a list, not {name_of(value)}")
        return tuple(self._parse_one(x, f"{path}[{n}]") for n, x in enumerate(value))

    def _parse_one(self, value: object, path: str) -> AdditionalVip:
        if type(value) is not dict:
            raise Invalid(path, f"must be an object, not {name_of(value)}")
        parsed: dict[str, Any] = {}
        for name, content in value.items():
            wire_type = _ADDITIONAL_VIP_TYPES.get(name)
            if wire_type is None:
                raise Invalid(f"{path}.{name[:80]}", "is not an attribute that can be given here")
            if content is not None:
                parsed[name] = wire_type.parse(content, f"{path}.{name}")
        if "subnet_id" not in parsed:
            raise Invalid(f"{path}.subnet_id", "is required")
        return AdditionalVip(
            address=parsed.get("ip_address", ""), subnet_id=parsed["subnet_id"], port_id=parsed.get("port_id")
        )

    def render(self, value: Iterable[AdditionalVip]) -> object:
        return [{"ip_address": x.address, "port_id": x.port_id, "subnet_id": x.subnet_id} for x in value]

    def schema(self) -> Schema:
        item: Schema = {
            "type": "object",
            "properties": {
                name: wire_type.schema() if name == "subnet_id" else or_null(wire_type.schema())
                for name, wire_type in _ADDITIONAL_VIP_TYPES.items()
            },
            "required": ["subnet_id"],
            "additionalProperties": False,
        }
        return {"type": "array", "items": item}


_ADDITIONAL_VIP_TYPES: dict[str, WireType] = {"subnet_id": Uuid(), "ip_address": Address(), "port_id": Uuid()}


@dataclass(frozen=True)
class Moment(WireType):
    """A time in UTC without a zone suffix (behaviours.yaml timestamps)."""

    renders = True

    def query(self, text: str, path: str) -> datetime:
        try:
            moment = datetime.fromisoformat(text)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise Invalid(path, f"{text[:80]!r} is not a time as 2026-01-31T12:00:00") from error

    def render(self, value: datetime | None) -> object:
        return None if value is None else value.replace(tzinfo=None).isoformat()

    def schema(self) -> Schema:
        # Not the format date-time, which has a zone.
        return {
            "type": ["string", "null"],
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?$",
        }


KIND_ON_THE_WIRE: dict[Kind, str] = {
    Kind.LOAD_BALANCER: "loadbalancer",
    Kind.LISTENER: "listener",
    Kind.POOL: "pool",
    Kind.MEMBER: "member",
    Kind.HEALTH_MONITOR: "healthmonitor",
    Kind.L7_POLICY: "l7policy",
    Kind.L7_RULE: "rule",
}


@dataclass(frozen=True)
class LastChecks(WireType):
    """Why a member is down; an addition of Frontinus."""

    renders = True

    def render(self, value: LastCheck | None) -> object:
        if value is None:
            return None
        return {
            "status": value.status,
            "code": value.code,
            "text": value.text,
            "since": Moment().render(value.since),
        }

    def schema(self) -> Schema:
        return {
            "type": ["object", "null"],
            "properties": {
                "status": {"type": "string"},
                "code": {"type": ["integer", "null"]},
                "text": {"type": "string"},
                "since": Moment().schema(),
            },
        }


@dataclass(frozen=True)
class Faults(WireType):
    """Why a wish is not carried out yet; an addition of Frontinus to every object."""

    renders = True

    def render(self, value: Fault | None) -> object:
        if value is None:
            return None
        moment = Moment()
        return {
            "code": value.code,
            "phase": value.phase,
            "message": value.message,
            "since": moment.render(value.since),
            "retry_at": moment.render(value.retry_at),
            "attempts": value.attempts,
            "permanent": value.permanent,
            "object_type": None if value.object_kind is None else KIND_ON_THE_WIRE[value.object_kind],
            "object_id": value.object_id,
            "left_out": value.left_out,
        }

    def schema(self) -> Schema:
        time = Moment().schema()
        text = {"type": ["string", "null"]}
        return {
            "type": ["object", "null"],
            "properties": {
                "code": {"type": "string"},
                "phase": {"type": "string"},
                "message": {"type": "string"},
                "since": time,
                "retry_at": time,
                "attempts": {"type": "integer"},
                "permanent": {"type": "boolean"},
                "object_type": text,
                "object_id": text,
                "left_out": {"type": "boolean"},
            },
        }


@dataclass(frozen=True)
class Ids(WireType):
    """Objects referred to: a list of {id}."""

    renders = True

    def render(self, value: Iterable[str]) -> object:
        return [{"id": x} for x in value]

    def schema(self) -> Schema:
        item = {"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}}}
        return {"type": "array", "items": item}


@dataclass(frozen=True)
class Nested(WireType):
    """One object, or a list of objects, of another resource; requests.py parses them by that resource's own table."""

    resource: str
    many: bool

    def schema(self) -> Schema:
        reference = {"$ref": f"#/components/schemas/{self.resource}-nested"}
        return {"type": "array", "items": reference} if self.many else reference


def or_null(schema: Schema) -> Schema:
    """The schema of what may be null too."""
    if isinstance(schema.get("type"), str) and "anyOf" not in schema and "enum" not in schema:
        return schema | {"type": [schema["type"], "null"]}
    described: Schema = {key: schema.pop(key) for key in ("description", "default") if key in schema}
    return {"anyOf": [schema, {"type": "null"}]} | described


def name_of(value: object) -> str:
    """What JSON calls the type of a value; short strings are shown."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:77] + "...")
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"
