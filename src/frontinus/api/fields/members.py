"""The attributes of a member."""

from __future__ import annotations

from frontinus.api.fields.rows import (
    REQUIRED,
    Field,
    Resource,
    Rule,
    admin_state_up_row,
    filter_only,
    identity_rows,
    name_row,
    project_of_child_rows,
    read_only,
    request_only,
    stored,
    tags_row,
)
from frontinus.api.wire_types import (
    Address,
    Boolean,
    Choice,
    Integer,
    LastChecks,
    Uuid,
)
from frontinus.model.compatibility import (
    MAX_PORT,
    MAX_WEIGHT,
)
from frontinus.model.enums import (
    Kind,
    VnicType,
)

MEMBER = Resource(
    kind=Kind.MEMBER,
    item_key="member",
    collection_key="members",
    fields=(
        name_row(),
        admin_state_up_row(),
        stored("address", Address(), "Where it is; kept as it is written.", create=Rule(REQUIRED)),
        stored("protocol_port", Integer(1, MAX_PORT), "The port it listens on.", create=Rule(REQUIRED)),
        stored(
            "weight",
            Integer(0, MAX_WEIGHT),
            "Its share of the requests; 0 means no new connections.",
            create=Rule(1, None),
            update=Rule(null=1),
        ),
        stored(
            "backup",
            Boolean(),
            "Whether it works only when the others do not.",
            create=Rule(False),
            update=Rule(null=False),
            since="2.1",
        ),
        stored("subnet_id", Uuid(), "The subnet that it is reached through.", create=Rule(None, None)),
        *project_of_child_rows(),
        stored(
            "monitor_port",
            Integer(1, MAX_PORT),
            "Where health checks go instead of protocol_port.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        stored(
            "monitor_address",
            Address(),
            "Where health checks go instead of address.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        tags_row(),
        request_only(
            "request_sriov",
            "request_sriov",
            Boolean(),
            "Whether it is reached through a port of its own kind; the flavor must allow it.",
            create=Rule(False, False),
            nested=Rule(False, False),
            since="2.30",
        ),
        read_only("vnic_type", Choice(VnicType), "direct where it was asked for, else normal.", since="2.30"),
        filter_only("pool_id", "pool_id", Uuid(), "The pool, which stands in the path too."),
        *identity_rows(),
        Field(
            wire="last_check",
            attribute="last_check",
            type=LastChecks(),
            doc="Why a member is down: status (HAProxy's word for what its last check found, as L4CON, L7STS), code (that "
            "was answered, or null), text, since; or null. An addition of Frontinus.",
            read=lambda value, _: value.last_check,
            part=False,
        ),
    ),
)
