"""Every attribute of every resource, once: parsing, rendering, filters, sorting and the OpenAPI document follow from it.

One module per resource, whose rows rows.py explains. Source of every row: contract/resources.yaml. Pure data; nothing
here knows requests or the store. Next: requests.py, rendering.py."""

from __future__ import annotations

from collections.abc import Mapping

from frontinus.api.fields.amphorae import AMPHORA
from frontinus.api.fields.health_monitors import HEALTH_MONITOR
from frontinus.api.fields.l7 import L7_POLICY, L7_RULE
from frontinus.api.fields.listeners import LISTENER
from frontinus.api.fields.load_balancers import LOAD_BALANCER
from frontinus.api.fields.members import MEMBER
from frontinus.api.fields.offers import AVAILABILITY_ZONE, AVAILABILITY_ZONE_PROFILE, FLAVOR, FLAVOR_PROFILE
from frontinus.api.fields.pools import POOL
from frontinus.api.fields.quotas import QUOTA
from frontinus.api.fields.rows import NOTHING, REFUSED, REQUIRED, UNCHANGED, Field, Missing, References, Resource, Rule

RESOURCES: Mapping[str, Resource] = {
    x.item_key: x
    for x in (
        LOAD_BALANCER,
        LISTENER,
        POOL,
        MEMBER,
        HEALTH_MONITOR,
        L7_POLICY,
        L7_RULE,
        AMPHORA,
        QUOTA,
        FLAVOR_PROFILE,
        FLAVOR,
        AVAILABILITY_ZONE_PROFILE,
        AVAILABILITY_ZONE,
    )
}
"""By the key that wraps one of them on the wire."""

__all__ = [
    "AMPHORA",
    "AVAILABILITY_ZONE",
    "AVAILABILITY_ZONE_PROFILE",
    "FLAVOR",
    "FLAVOR_PROFILE",
    "HEALTH_MONITOR",
    "L7_POLICY",
    "L7_RULE",
    "LISTENER",
    "LOAD_BALANCER",
    "MEMBER",
    "NOTHING",
    "POOL",
    "QUOTA",
    "REFUSED",
    "REQUIRED",
    "RESOURCES",
    "UNCHANGED",
    "Field",
    "Missing",
    "References",
    "Resource",
    "Rule",
]
