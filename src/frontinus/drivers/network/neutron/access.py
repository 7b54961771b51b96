"""Whether a tenant may use what he names: Neutron is asked with his own token, so that its policy, its sharing by RBAC and
nothing of ours decides (behaviours.yaml vip_resolution.visibility).

Where callers have no token of Keystone's (API authentication `none` or `token`), by ownership: what is the project's own
or is shared with everybody. Next: neutron.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from frontinus.drivers.network.neutron.neutron import Neutron
from frontinus.drivers.openstack.trouble import Refused
from frontinus.model.errors import Invalid
from frontinus.model.network import Reference, ReferenceKind, Tenant

_COLLECTION = {
    ReferenceKind.NETWORK: "networks",
    ReferenceKind.SUBNET: "subnets",
    ReferenceKind.PORT: "ports",
    ReferenceKind.SECURITY_GROUP: "security-groups",
    ReferenceKind.QOS_POLICY: "qos/policies",
}


def require(neutron: Neutron, tenant: Tenant, references: Sequence[Reference]) -> None:
    """Blocks. Raises Invalid naming the first field whose object the tenant does not see, or a port that is not his."""
    seen: dict[tuple[ReferenceKind, str], Mapping[str, Any] | None] = {}
    for reference in references:
        key = (reference.kind, reference.id)
        if key not in seen:
            seen[key] = _look(neutron, tenant, reference)
        found = seen[key]
        # The owner of a network sees the ports of others on it; they are not his to use.
        is_foreign = (
            found is not None and reference.kind is ReferenceKind.PORT and found.get("project_id") != tenant.project_id
        )
        if found is None or is_foreign:
            what = reference.kind.value.replace("_", " ")
            raise Invalid(reference.field, f"{what} {reference.id} does not exist, or the project may not use it")


def _look(neutron: Neutron, tenant: Tenant, reference: Reference) -> Mapping[str, Any] | None:
    collection = _COLLECTION[reference.kind]
    if tenant.token is not None:
        try:
            return neutron.seen_by(tenant.token.reveal(), collection, reference.id)
        except Refused as refused:
            if refused.status != HTTPStatus.UNAUTHORIZED:
                raise
            raise Invalid(
                reference.field, "Neutron does not accept the token (any more); ask with a new one"
            ) from refused
    found = neutron.shown(collection, reference.id)
    if found is None or reference.kind is not ReferenceKind.SUBNET:
        return found if found is not None and _is_usable(found, tenant) else None
    network = neutron.shown("networks", str(found["network_id"]))
    return found if network is not None and _is_usable(network, tenant) else None


def _is_usable(found: Mapping[str, Any], tenant: Tenant) -> bool:
    return bool(found.get("project_id") == tenant.project_id or found.get("shared"))
