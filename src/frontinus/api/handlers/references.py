"""References into network and secret store that must be looked up before a transaction begins: the only remote calls that
a request makes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from frontinus.api.calls import Call
from frontinus.api.identity.interface import presented_token
from frontinus.api.ports import SecretReader
from frontinus.api.requests import Asked
from frontinus.api.settings import Authentication
from frontinus.model.certificates import Authorities, Certificate, Revocations, SecretKind, secret_uses
from frontinus.model.enums import Kind
from frontinus.model.errors import Bug, CallerError, Invalid
from frontinus.model.ids import ListenerId, LoadBalancerId, PoolId, ProjectId, SubnetId
from frontinus.model.network import Reference, ReferenceKind, Tenant, VipRequest
from frontinus.model.revocations import foreign_issuer
from frontinus.model.secrets import Secret
from frontinus.model.tree import Listener, LoadBalancer, LoadBalancerTree, Pool
from frontinus.store import listing, trees
from frontinus.store.engine import Transaction


async def require_subnets(call: Call, project_id: ProjectId, members: Iterable[Asked]) -> None:
    """Each subnet that a member names must exist, and the project may use it; each is asked for once. Raises Invalid naming
    the first that does not."""
    network = call.api.network
    asked: dict[str, str] = {}
    for member in members:
        subnet_id = member.values["subnet_id"]
        if subnet_id is not None:
            asked.setdefault(subnet_id, f"{member.path}.subnet_id")
    named = [Reference(kind=ReferenceKind.SUBNET, id=x, field=path) for x, path in asked.items()]
    await network.require_access(tenant_of(call, project_id), named)
    for subnet_id, path in asked.items():
        try:
            await network.get_subnet(SubnetId(subnet_id))
        except CallerError as error:
            raise Invalid(path, error.reason) from error


def tenant_of(call: Call, project_id: ProjectId) -> Tenant:
    """For whom the network is asked whether he may use what he names: with the caller's own token where it is Keystone's."""
    token = presented_token(call.headers) if call.api.settings.auth is Authentication.KEYSTONE else None
    return Tenant(project_id=project_id, token=None if token is None else Secret(token))


def vip_references(request: VipRequest, load_balancer: LoadBalancer) -> tuple[Reference, ...]:
    """What a new load balancer names of the network, its members aside."""
    first = {
        "vip_port_id": (ReferenceKind.PORT, request.port_id),
        "vip_network_id": (ReferenceKind.NETWORK, None if request.port_id else request.network_id),
        "vip_subnet_id": (ReferenceKind.SUBNET, None if request.port_id else request.subnet_id),
    }
    found = [Reference(kind=kind, id=x, field=f"load_balancer.{field}") for field, (kind, x) in first.items() if x]
    for number, further in enumerate(request.additional):
        field = f"load_balancer.additional_vips[{number}]"
        if further.port_id is not None:
            found.append(Reference(kind=ReferenceKind.PORT, id=further.port_id, field=f"{field}.port_id"))
        else:
            found.append(Reference(kind=ReferenceKind.SUBNET, id=further.subnet_id, field=f"{field}.subnet_id"))
    return (*found, *port_references(load_balancer.vip_sg_ids, load_balancer.vip_qos_policy_id))


def port_references(vip_sg_ids: Iterable[str], vip_qos_policy_id: str | None) -> tuple[Reference, ...]:
    """What may be changed of a VIP's port later, too."""
    groups = (Reference(kind=ReferenceKind.SECURITY_GROUP, id=x, field="load_balancer.vip_sg_ids") for x in vip_sg_ids)
    policy = vip_qos_policy_id
    if not policy:
        return tuple(groups)
    field = "load_balancer.vip_qos_policy_id"
    return (*groups, Reference(kind=ReferenceKind.QOS_POLICY, id=policy, field=field))


_SECRET_FIELDS: dict[str, SecretKind] = {
    "default_tls_container_ref": SecretKind.CERTIFICATE,
    "sni_container_refs": SecretKind.CERTIFICATE,
    "client_ca_tls_container_ref": SecretKind.AUTHORITIES,
    "client_crl_container_ref": SecretKind.REVOCATIONS,
    "tls_container_ref": SecretKind.CERTIFICATE,
    "ca_tls_container_ref": SecretKind.AUTHORITIES,
    "crl_container_ref": SecretKind.REVOCATIONS,
}


_LISTS_OF = (
    ("client_crl_container_ref", "client_ca_tls_container_ref"),
    ("crl_container_ref", "ca_tls_container_ref"),
)
"""Fields of revocation lists, and of the authorities that must have signed them."""


async def require_secrets(call: Call, asked: Asked, owner: Kind, owner_id: str) -> None:
    """Each secret that the body names must be there, be readable by the load balancer's project, and be what the field is
    for. `owner` is the load balancer, or an object of it. Raises Invalid naming the field, or Retry."""
    named = [
        (field, kind, reference)
        for field, kind in _SECRET_FIELDS.items()
        for reference in _references(asked.values.get(field))
    ]
    if not named or call.api.secrets is None:
        return

    def look(tx: Transaction) -> tuple[ProjectId | None, LoadBalancerId | None, Listener | Pool | None]:
        own = LoadBalancerId(owner_id) if owner is Kind.LOAD_BALANCER else trees.load_balancer_of(tx, owner, owner_id)
        return trees.project_of(tx, owner, owner_id), own, _stored(tx, owner, owner_id)

    project_id, load_balancer_id, stored = await call.api.store.read(look)
    if project_id is None or load_balancer_id is None:
        return  # the change itself says what is not there
    secrets = call.api.secrets
    fields = {reference: f"{asked.path}.{field}" for field, _, reference in named}
    tenant = tenant_of(call, project_id)
    if not call.dry_run:
        await secrets.require_access(tenant, load_balancer_id, fields)
    read = _reading(call, secrets, tenant, fields)
    for field, kind, reference in named:
        await _require_secret(read, kind, reference, f"{asked.path}.{field}")
    names = {field for field, _, _ in named}
    for revocations, authorities in _LISTS_OF:
        if names & {revocations, authorities}:
            # What the body leaves out stays as it is.
            lists, signers = (asked.values.get(x, getattr(stored, x, None)) for x in (revocations, authorities))
            if lists and signers:
                await _require_signed(read, lists, signers, f"{asked.path}.{revocations}")


def _stored(tx: Transaction, kind: Kind, object_id: str) -> Listener | Pool | None:
    """The object that is edited, when it is of a kind that refers to secrets."""
    found: listing.Listed[Listener] | listing.Listed[Pool] | None = None
    if kind is Kind.LISTENER:
        found = listing.get_listener(tx, ListenerId(object_id))
    elif kind is Kind.POOL:
        found = listing.get_pool(tx, PoolId(object_id))
    return None if found is None else found.value


async def require_secrets_of_tree(call: Call, wanted: LoadBalancerTree) -> None:
    """The same for a whole tree that is about to be made."""
    secrets = call.api.secrets
    if secrets is None:
        return
    uses = secret_uses(wanted)
    tenant, own = tenant_of(call, wanted.load_balancer.project_id), wanted.load_balancer.id
    fields = {use.reference: f"{use.object_kind}.{use.field}" for use in uses[::-1]}
    if not call.dry_run:
        await secrets.require_access(tenant, own, fields)
    read = _reading(call, secrets, tenant, fields)
    # Each once, as above: a body has room for thousands of references to the same.
    for use in {(use.kind, use.reference): use for use in uses[::-1]}.values():
        field = f"{use.object_kind}.{use.field}"
        await _require_secret(read, use.kind, use.reference, field)
    used = {(use.object_id, use.field): use for use in uses}
    for (object_id, field), use in used.items():
        signers = used.get((object_id, dict(_LISTS_OF).get(field, "")))
        if signers is not None:
            path = f"{use.object_kind}.{field}"
            await _require_signed(read, use.reference, signers.reference, path)


def _references(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(dict.fromkeys(value)) if isinstance(value, tuple | list) else ()


_Content = Certificate | Authorities | Revocations
_Read = Callable[[SecretKind, str], Awaitable[_Content]]


def _reading(call: Call, secrets: SecretReader, tenant: Tenant, named: Collection[str]) -> _Read:
    """How what stands behind a reference is read, to be judged: as amphorae are given it; in a dry run, which lets nobody in,
    what is named in it as the user himself is shown it."""
    reads: Mapping[SecretKind, Callable[[str, ProjectId], Awaitable[_Content]]] = {
        SecretKind.CERTIFICATE: secrets.certificate,
        SecretKind.AUTHORITIES: secrets.authorities,
        SecretKind.REVOCATIONS: secrets.revocations,
    }

    async def read(kind: SecretKind, reference: str) -> _Content:
        if call.dry_run and reference in named:
            return await secrets.shown_to(tenant, kind, reference)
        return await reads[kind](reference, tenant.project_id)

    return read


async def _require_secret(read: _Read, kind: SecretKind, reference: str, field: str) -> None:
    try:
        await read(kind, reference)
    except CallerError as error:
        raise Invalid(field, str(error)) from error


async def _require_signed(read: _Read, lists: str, signers: str, field: str) -> None:
    """Both are readable. Raises Invalid when a list is of another authority than those beside it."""
    try:
        revocations = await read(SecretKind.REVOCATIONS, lists)
        authorities = await read(SecretKind.AUTHORITIES, signers)
    except CallerError as error:
        raise Invalid(field, str(error)) from error
    if not (isinstance(revocations, Revocations) and isinstance(authorities, Authorities)):
        raise Bug("the secret store gives something else than what was asked for")
    issuer = foreign_issuer(revocations, authorities)
    if issuer is not None:
        raise Invalid(field, f"holds a revocation list of {issuer!r}, which no authority beside it has signed")
