"""The attributes of L7 policies and their rules."""

from __future__ import annotations

from frontinus.api.fields.rows import (
    REQUIRED,
    UNCHANGED,
    Field,
    Resource,
    Rule,
    admin_state_up_row,
    children,
    description_row,
    filter_only,
    identity_rows,
    name_row,
    project_of_child_rows,
    stored,
    tags_row,
)
from frontinus.api.wire_types import (
    Boolean,
    Choice,
    Integer,
    IntegerOf,
    Nested,
    Text,
    Uuid,
)
from frontinus.model.compatibility import (
    MAX_INTEGER,
    REDIRECT_HTTP_CODES,
)
from frontinus.model.enums import (
    Kind,
    L7PolicyAction,
    L7RuleCompareType,
    L7RuleType,
)

L7_POLICY = Resource(
    kind=Kind.L7_POLICY,
    item_key="l7policy",
    collection_key="l7policies",
    fields=(
        name_row(),
        description_row(),
        admin_state_up_row(),
        *project_of_child_rows(),
        stored("action", Choice(L7PolicyAction), "What it does.", create=Rule(REQUIRED), update=Rule()),
        stored(
            "redirect_pool_id",
            Uuid(),
            "REDIRECT_TO_POOL: where to.",
            create=Rule(None, None),
            nested=None,
            update=Rule(null=None),
        ),
        stored("redirect_url", Text(), "REDIRECT_TO_URL: where to.", create=Rule(None, None), update=Rule(null=None)),
        stored(
            "redirect_prefix",
            Text(),
            "REDIRECT_PREFIX: what is put before the path.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        stored(
            "position",
            Integer(1, MAX_INTEGER),
            "The order in which policies are tried, from 1; the last by default.",
            create=Rule(MAX_INTEGER, MAX_INTEGER),
            update=Rule(null=UNCHANGED),
        ),
        stored("listener_id", Uuid(), "Its listener.", create=Rule(REQUIRED, None), nested=None, part=False),
        children(
            "rules",
            "l7_rules",
            "rule",
            "Whole tree only: its rules. In responses: their ids.",
            create=Rule((), ()),
            nested=Rule((), ()),
        ),
        tags_row(null_on_update=()),
        stored(
            "redirect_http_code",
            IntegerOf(allowed=REDIRECT_HTTP_CODES),
            "302 by default for redirects to a URL; other actions have none.",
            create=Rule(None, None),
            update=Rule(null=None),
            since="2.9",
        ),
        Field(
            wire="redirect_pool",
            attribute="redirect_pool",
            type=Nested("pool", many=False),
            doc="Whole tree only: REDIRECT_TO_POOL's pool, or the name of one.",
            nested=Rule(None, None),
            part=False,
        ),
        *identity_rows(),
    ),
)


L7_RULE = Resource(
    kind=Kind.L7_RULE,
    item_key="rule",
    collection_key="rules",
    fields=(
        stored("type", Choice(L7RuleType), "What of the request is looked at.", create=Rule(REQUIRED), update=Rule()),
        stored("compare_type", Choice(L7RuleCompareType), "How it is compared.", create=Rule(REQUIRED), update=Rule()),
        stored("key", Text(), "The name of the header, cookie or field.", create=Rule(None, None), update=Rule()),
        stored("value", Text(), "What it is compared with.", create=Rule(REQUIRED), update=Rule()),
        stored(
            "invert", Boolean(), "Whether the opposite is meant.", create=Rule(False, False), update=Rule(null=False)
        ),
        admin_state_up_row(),
        *project_of_child_rows(),
        tags_row(null_on_update=()),
        filter_only("l7policy_id", "l7_policy_id", Uuid(), "The policy, which openstacksdk names beside the path."),
        *identity_rows(),
    ),
)
