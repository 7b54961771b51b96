"""What a row of a field table is, and the ways to write one.

A row says what an attribute is called on the wire and in our own words, what type it has, whether create, nested create
and update take it, what its absence and an explicit null mean there, where it is read from for a response, and under
which column of the store a list can be filtered and sorted by it. Pure data; nothing here knows requests or the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from operator import attrgetter
from typing import Any, Final

import msgspec

from frontinus.api.wire_types import (
    Boolean,
    Choice,
    Faults,
    Ids,
    Moment,
    Nested,
    Tags,
    Text,
    Uuid,
    WireType,
)
from frontinus.model.enums import (
    Kind,
    OperatingStatus,
    ProvisioningStatus,
)

References = Mapping[str, tuple[str, ...]]
"""Ids of what an object refers to, by name: what store.listing hands out beside each value."""


class Missing(Enum):
    """What stands where a value would, and is none."""

    REQUIRED = auto()  # absent: 400
    NOTHING = auto()  # absent: stays unsaid, whoever builds the object decides
    REFUSED = auto()  # null: 400
    UNCHANGED = auto()  # null: as if it had not been sent


REQUIRED, NOTHING, REFUSED, UNCHANGED = Missing


class Rule(msgspec.Struct, frozen=True):
    """How one operation takes an attribute. `absent` is the value when it is not sent (create only), `null` when null
    is. Either can be one of Missing."""

    absent: Any = NOTHING
    null: Any = REFUSED


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One attribute. No rule for an operation: sending it there is refused as an unknown attribute would be."""

    wire: str
    attribute: str
    type: WireType
    doc: str
    since: str = "2.0"
    create: Rule | None = None
    nested: Rule | None = None
    update: Rule | None = None
    part: bool = True
    """Whether it is an attribute of the model's object; otherwise it is for whoever builds the object."""
    read: Callable[[Any, References], object] | None = None
    """Where a response gets it from; None: never shown."""
    in_full: bool = True
    """Whether the answer to a create of a whole tree shows it too."""
    omit_none: bool = False
    column: str | None = None
    """The store's name of it, where lists can be filtered and sorted by it."""
    constant: Any = NOTHING
    """What every object has, where no column is needed to filter and sort by it."""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    item_key: str
    collection_key: str
    fields: tuple[Field, ...]
    links: str = ""
    """The key of the links to other pages, where it is not the collection's with `_links` behind it."""
    path: str = ""
    """The collection's segment in paths, where it is not its key."""

    @property
    def links_key(self) -> str:
        return self.links or f"{self.collection_key}_links"

    @property
    def segment(self) -> str:
        return self.path or self.collection_key


_SAME: Final = Rule()


def stored(
    wire: str,
    type_: WireType,
    doc: str,
    *,
    attribute: str | None = None,
    create: Rule | None = None,
    nested: Rule | None = _SAME,
    update: Rule | None = None,
    column: bool = True,
    since: str = "2.0",
    read: Callable[[Any, References], object] | None = None,
    part: bool = True,
) -> Field:
    """An attribute of the object, shown in responses and usable as a filter. Nested create takes it as create does
    unless told."""
    name = attribute or wire
    getter = attrgetter(name)
    return Field(
        wire=wire,
        attribute=name,
        type=type_,
        doc=doc,
        since=since,
        create=create,
        nested=create if nested is _SAME else nested,
        update=update,
        part=part,
        read=read or (lambda value, _: getter(value)),
        column=name if column else None,
    )


def request_only(
    wire: str,
    attribute: str,
    type_: WireType,
    doc: str,
    *,
    create: Rule,
    nested: Rule | None = None,
    since: str = "2.0",
) -> Field:
    """Taken at create, never shown, not part of the object."""
    return Field(
        wire=wire, attribute=attribute, type=type_, doc=doc, since=since, create=create, nested=nested, part=False
    )


def read_only(
    wire: str, type_: WireType, doc: str, *, attribute: str | None = None, column: bool = True, since: str = "2.0"
) -> Field:
    return stored(wire, type_, doc, attribute=attribute, column=column, since=since)


def filter_only(wire: str, column: str, type_: WireType, doc: str) -> Field:
    """Neither taken nor shown: lists can be filtered and sorted by it."""
    return Field(wire=wire, attribute=column, type=type_, doc=f"A filter only. {doc}", part=False, column=column)


def owner(wire: str, attribute: str, doc: str) -> Field:
    """The one object above, as a list of one; a whole tree shows it by its shape instead."""
    getter = attrgetter(attribute)
    return Field(
        wire=wire,
        attribute=wire,
        type=Ids(),
        doc=doc,
        part=False,
        read=lambda value, _: (getter(value),),
        in_full=False,
    )


def children(wire: str, reference: str, resource: str, doc: str, *, create: Rule, nested: Rule | None = None) -> Field:
    """Whole objects in the request, ids in responses."""
    return Field(
        wire=wire,
        attribute=reference,
        type=Nested(resource, many=True),
        doc=doc,
        create=create,
        nested=nested,
        part=False,
        read=lambda _, references: [{"id": x} for x in references.get(reference, ())],
    )


def name_row() -> Field:
    return stored("name", Text(), "A name; need not be unique.", create=Rule("", ""), update=Rule(null=""))


def description_row() -> Field:
    return stored("description", Text(prose=True), "Words for people.", create=Rule("", ""), update=Rule(null=""))


def admin_state_up_row() -> Field:
    doc = "Whether it shall work. Null means false."
    return stored("admin_state_up", Boolean(), doc, create=Rule(True, False), update=Rule(null=False))


def tags_row(*, null_on_update: Any = UNCHANGED) -> Field:
    doc = "Words to find it by; each once."
    return stored("tags", Tags(), doc, create=Rule((), ()), update=Rule(null=null_on_update), column=False, since="2.5")


def identity_rows() -> tuple[Field, ...]:
    return (
        read_only("id", Uuid(), "Given by the server."),
        read_only("provisioning_status", Choice(ProvisioningStatus), "How far the wish has been carried out."),
        read_only("operating_status", Choice(OperatingStatus), "What the data plane was last seen doing."),
        read_only("created_at", Moment(), "UTC."),
        read_only("updated_at", Moment(), "UTC; null until the first change."),
        Field(
            wire="fault",
            attribute="fault",
            type=Faults(),
            doc="Why the wish is not carried out yet: code, phase, message, since, retry_at, attempts, permanent, "
            "object_type, object_id; or null. An addition of Frontinus.",
            read=lambda value, _: value.fault,
            part=False,
        ),
    )


def project_of_child_rows() -> tuple[Field, ...]:
    """Both spellings are taken and ignored: a child belongs to the project of its load balancer."""
    taken = Rule(NOTHING, None)
    return tuple(
        Field(
            wire=wire,
            attribute=wire,
            type=Text(36),
            doc="The project of the load balancer; ignored when sent.",
            create=taken,
            part=False,
            read=lambda value, _: value.project_id,
            column=column,
        )
        for wire, column in (("project_id", "project_id"), ("tenant_id", None))
    )


def secret_row(wire: str, doc: str, *, since: str = "2.0") -> Field:
    return stored(wire, Text(), doc, create=Rule(None, None), update=Rule(null=None), since=since)
