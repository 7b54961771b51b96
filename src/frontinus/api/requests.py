"""From a body to what it asks for, by the tables of fields.py: types, bounds, nulls, defaults and unknown attributes.

Never looks at what is stored: existence and combinations are judged later, on the tree. Raises Invalid naming the path on
the wire. Next: build.py makes objects of what was asked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NoReturn

import msgspec

from frontinus.api.fields import NOTHING, REFUSED, REQUIRED, RESOURCES, UNCHANGED, Field, Resource, Rule
from frontinus.api.wire_types import Nested, name_of
from frontinus.model.errors import Invalid


class Operation(Enum):
    CREATE = auto()
    NESTED = auto()  # inside the create of a whole load balancer
    UPDATE = auto()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a body said of one object, in our own words.

    `values` are attributes of the model's object, defaults filled in at create; `extra` is the rest (parents, nested
    objects as Asked, the VIP); `given` names every attribute that the body mentioned, null included; `path` is where it
    stood in the body."""

    path: str
    values: dict[str, Any]
    extra: dict[str, Any]
    given: frozenset[str]


class _Taken(msgspec.Struct, frozen=True):
    """How one attribute is taken by one operation."""

    attribute: str
    parse: Callable[[object, str], Any]
    null: Any
    part: bool


class _Plan(msgspec.Struct, frozen=True):
    """Everything that parsing one resource for one operation needs, worked out once."""

    taken: dict[str, _Taken]
    required: tuple[str, ...]
    values: dict[str, Any]
    extra: dict[str, Any]


def parse_body(resource: Resource, operation: Operation, body: bytes) -> Asked:
    """The one object in `{item_key: {...}}`."""
    return parse_object(resource, operation, _unwrap(body, resource.item_key), resource.item_key)


def parse_list(resource: Resource, operation: Operation, body: bytes) -> list[Asked]:
    """The objects in `{collection_key: [{...}, ...]}`."""
    key = resource.collection_key
    objects = _unwrap(body, key)
    if not isinstance(objects, list):
        raise Invalid(key, f"must be a list, not {name_of(objects)}")
    return [parse_object(resource, operation, x, f"{key}[{n}]") for n, x in enumerate(objects)]


def parse_object(resource: Resource, operation: Operation, value: object, path: str) -> Asked:
    """One object by the table of its resource."""
    if type(value) is not dict:
        raise Invalid(path, f"must be an object, not {name_of(value)}")
    plan = _PLANS[resource.item_key, operation]
    taken_here = plan.taken
    values, extra = plan.values.copy(), plan.extra.copy()
    given = []
    for wire, content in value.items():
        taken = taken_here.get(wire)
        if taken is None:
            _refuse(resource, operation, path, wire)
        given.append(taken.attribute)
        if content is None:
            parsed = taken.null
            if parsed is REFUSED:
                raise Invalid(f"{path}.{wire}", "must not be null")
            if parsed is UNCHANGED:
                continue
        else:
            parsed = taken.parse(content, f"{path}.{wire}")
        (values if taken.part else extra)[taken.attribute] = parsed
    for wire in plan.required:
        if wire not in value:
            raise Invalid(f"{path}.{wire}", "is required")
    return Asked(path=path, values=values, extra=extra, given=frozenset(given))


def decode(body: bytes) -> object:
    """The JSON document in a body. Raises Invalid."""
    if not body:
        raise Invalid("", "the body is empty; a JSON object is needed")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _decode_half_characters(body, error)


def _decode_half_characters(body: bytes, cause: Exception) -> object:
    r"""Half of a surrogate pair (\ud800) is JSON by grammar but no text. Reading it lets the answer name the attribute."""
    refusal = Invalid("", f"the body is not JSON: {cause}")
    if rb"\u" not in body:
        raise refusal from cause
    try:
        return json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise refusal from cause


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    """As the other reader has it, for which 1e400 is no number."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _unwrap(body: bytes, key: str) -> object:
    document = decode(body)
    if not isinstance(document, dict):
        raise Invalid("", f"the body must be an object with the key {key}, not {name_of(document)}")
    for name in document:
        if name != key:
            raise Invalid(str(name)[:80], f"is not known here; the body must be an object with the one key {key}")
    if document.get(key) is None:
        raise Invalid(key, "is required")
    return document[key]


def _refuse(resource: Resource, operation: Operation, path: str, wire: str) -> NoReturn:
    """Say whether the attribute does not exist at all or is merely not taken here."""
    known = any(x.wire == wire for x in resource.fields)
    if not known:
        raise Invalid(f"{path}.{wire[:80]}", "is not a known attribute")
    if operation is Operation.UPDATE and _rule(resource, wire, Operation.CREATE) is not None:
        raise Invalid(f"{path}.{wire}", "cannot be changed after the object was created")
    raise Invalid(f"{path}.{wire}", "is not an attribute that can be given here")


def _rule(resource: Resource, wire: str, operation: Operation) -> Rule | None:
    field = next(x for x in resource.fields if x.wire == wire)
    return rule_of(field, operation)


def rule_of(field: Field, operation: Operation) -> Rule | None:
    match operation:
        case Operation.CREATE:
            return field.create
        case Operation.NESTED:
            return field.nested
        case Operation.UPDATE:
            return field.update


def _plan(resource: Resource, operation: Operation) -> _Plan:
    taken: dict[str, _Taken] = {}
    required: list[str] = []
    values: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for field in resource.fields:
        rule = rule_of(field, operation)
        if rule is None:
            continue
        taken[field.wire] = _Taken(field.attribute, _parser(field, resource, operation), rule.null, field.part)
        if rule.absent is REQUIRED:
            required.append(field.wire)
        elif rule.absent is not NOTHING and operation is not Operation.UPDATE:
            (values if field.part else extra)[field.attribute] = rule.absent
    return _Plan(taken=taken, required=tuple(required), values=values, extra=extra)


def _parser(field: Field, resource: Resource, operation: Operation) -> Callable[[object, str], Any]:
    type_ = field.type
    if not isinstance(type_, Nested):
        return type_.parse
    if operation is Operation.CREATE and resource is not RESOURCES["loadbalancer"]:
        return _refuse_nested_objects
    return _parse_many(type_.resource) if type_.many else _parse_one(type_.resource)


def _parse_one(resource: str) -> Callable[[object, str], Any]:
    return lambda value, path: parse_object(RESOURCES[resource], Operation.NESTED, value, path)


def _parse_many(resource: str) -> Callable[[object, str], Any]:
    def parse(value: object, path: str) -> tuple[Asked, ...]:
        if type(value) is not list:
            raise Invalid(path, f"must be a list, not {name_of(value)}")
        table = RESOURCES[resource]
        return tuple(parse_object(table, Operation.NESTED, x, f"{path}[{n}]") for n, x in enumerate(value))

    return parse


def _refuse_nested_objects(value: object, path: str) -> Any:
    """A nested object is known where whole trees are made; elsewhere only the empty list may stand there."""
    if value == []:
        return ()
    raise Invalid(path, "can be given only inside the create of a whole load balancer")


_PLANS: dict[tuple[str, Operation], _Plan] = {
    (key, operation): _plan(resource, operation) for key, resource in RESOURCES.items() for operation in Operation
}
