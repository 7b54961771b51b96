"""The attributes of a quota: a limit of each kind, under the names of today and of old clients."""

from __future__ import annotations

from frontinus.api.fields.rows import Field, Resource, Rule, stored
from frontinus.api.wire_types import Integer, Text
from frontinus.model.enums import Kind
from frontinus.model.quotas import MAX_LIMIT, UNLIMITED

_WIRE_NAMES: tuple[tuple[str, Kind, str], ...] = (
    # Of two spellings in one request the last row counts, which is the one without underscore (behaviours.yaml quotas).
    ("load_balancer", Kind.LOAD_BALANCER, "2.0"),
    ("loadbalancer", Kind.LOAD_BALANCER, "2.0"),
    ("listener", Kind.LISTENER, "2.0"),
    ("member", Kind.MEMBER, "2.0"),
    ("pool", Kind.POOL, "2.0"),
    ("health_monitor", Kind.HEALTH_MONITOR, "2.0"),
    ("healthmonitor", Kind.HEALTH_MONITOR, "2.0"),
    ("l7policy", Kind.L7_POLICY, "2.19"),
    ("l7rule", Kind.L7_RULE, "2.19"),
)

KIND_OF = {wire: kind for wire, kind, _ in _WIRE_NAMES}
"""What each limit on the wire is a limit of, in the order in which they count."""


def _limit(wire: str, kind: Kind, since: str) -> Field:
    return Field(
        wire=wire,
        attribute=wire,
        type=Integer(UNLIMITED, MAX_LIMIT),
        doc=f"How many of the kind {kind.replace('_', ' ')}; -1 is no limit. Null: the operator's default holds.",
        since=since,
        update=Rule(null=None),
        read=lambda value, _: getattr(value, kind),
        column=kind.value,
    )


QUOTA = Resource(
    kind=Kind.QUOTA,
    item_key="quota",
    collection_key="quotas",
    fields=(
        *(_limit(wire, kind, since) for wire, kind, since in _WIRE_NAMES),
        stored("project_id", Text(), "Whose it is."),
        stored("tenant_id", Text(), "The same.", attribute="project_id", column=False),
    ),
)
