"""The attributes of a health monitor."""

from __future__ import annotations

from frontinus.api.fields.rows import (
    REQUIRED,
    Field,
    Resource,
    Rule,
    admin_state_up_row,
    identity_rows,
    name_row,
    owner,
    project_of_child_rows,
    stored,
    tags_row,
)
from frontinus.api.wire_types import (
    Choice,
    Integer,
    Number,
    Text,
    Uuid,
)
from frontinus.model.compatibility import (
    HTTP_VERSIONS,
    MAX_RETRIES,
    MAX_URL_PATH,
)
from frontinus.model.enums import (
    HealthMonitorType,
    HttpMethod,
    Kind,
)

HEALTH_MONITOR = Resource(
    kind=Kind.HEALTH_MONITOR,
    item_key="healthmonitor",
    collection_key="healthmonitors",
    fields=(
        name_row(),
        stored("type", Choice(HealthMonitorType), "How members are asked.", create=Rule(REQUIRED)),
        stored("delay", Integer(0), "Seconds between two checks.", create=Rule(REQUIRED), update=Rule()),
        stored("timeout", Integer(0), "Seconds until a check has failed.", create=Rule(REQUIRED), update=Rule()),
        stored(
            "max_retries_down",
            Integer(1, MAX_RETRIES),
            "Failed checks until a member is in ERROR.",
            create=Rule(3),
            update=Rule(null=3),
        ),
        stored(
            "max_retries",
            Integer(1, MAX_RETRIES),
            "Good checks until a member is ONLINE.",
            create=Rule(REQUIRED),
            update=Rule(),
        ),
        stored(
            "http_method",
            Choice(HttpMethod),
            "HTTP and HTTPS only; GET by default.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        stored(
            "url_path",
            Text(MAX_URL_PATH),
            "HTTP and HTTPS only; / by default.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        stored(
            "expected_codes",
            Text(64),
            "HTTP and HTTPS only; one code, a comma list or one range; 200 by default.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        admin_state_up_row(),
        *project_of_child_rows(),
        Field(
            wire="pool_id",
            attribute="pool_id",
            type=Uuid(),
            doc="The pool whose members it watches.",
            create=Rule(REQUIRED, None),
            part=False,
            column="pool_id",
        ),
        tags_row(),
        stored(
            "http_version",
            Number(HTTP_VERSIONS),
            "Of the requests that it sends.",
            create=Rule(None, None),
            update=Rule(null=None),
            since="2.10",
        ),
        stored(
            "domain_name",
            Text(),
            "The Host that it asks for; needs http_version 1.1.",
            create=Rule(None, None),
            update=Rule(null=None),
            since="2.10",
        ),
        *identity_rows(),
        owner("pools", "pool_id", "The pool whose members it watches."),
    ),
)
