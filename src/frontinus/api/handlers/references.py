"""References into network and secret store that must be looked up before a transaction begins: the only remote calls that
a request makes."""

from __future__ import annotations

from collections.abc import Iterable

from frontinus.api.calls import Call
from frontinus.api.ports import SecretReader, VipAllocator
from frontinus.api.requests import Asked
from frontinus.model.certificates import SecretKind, secret_uses
from frontinus.model.enums import Kind
from frontinus.model.errors import CallerError, Invalid
from frontinus.model.ids import ProjectId, SubnetId
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import trees


async def require_subnets(network: VipAllocator, members: Iterable[Asked]) -> None:
    """Each subnet that a member names must exist; each is asked for once. Raises Invalid naming the first that does not."""
    asked: dict[str, str] = {}
    for member in members:
        subnet_id = member.values["subnet_id"]
        if subnet_id is not None:
            asked.setdefault(subnet_id, f"{member.path}.subnet_id")
    for subnet_id, path in asked.items():
        try:
            await network.get_subnet(SubnetId(subnet_id))
        except CallerError as error:
            raise Invalid(path, error.reason) from error


_SECRET_FIELDS: dict[str, SecretKind] = {
    "default_tls_container_ref": SecretKind.CERTIFICATE,
    "sni_container_refs": SecretKind.CERTIFICATE,
    "client_ca_tls_container_ref": SecretKind.AUTHORITIES,
    "client_crl_container_ref": SecretKind.REVOCATIONS,
    "tls_container_ref": SecretKind.CERTIFICATE,
    "ca_tls_container_ref": SecretKind.AUTHORITIES,
    "crl_container_ref": SecretKind.REVOCATIONS,
}


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

    project_id = await call.api.store.read(lambda tx: trees.project_of(tx, owner, owner_id))
    if project_id is not None:  # else the change itself says what is not there
        for field, kind, reference in named:
            await _require_secret(call.api.secrets, kind, reference, project_id, f"{asked.path}.{field}")


async def require_secrets_of_tree(call: Call, wanted: LoadBalancerTree) -> None:
    """The same for a whole tree that is about to be made."""
    if call.api.secrets is None:
        return
    for use in secret_uses(wanted):
        field = f"{use.object_kind}.{use.field}"
        await _require_secret(call.api.secrets, use.kind, use.reference, wanted.load_balancer.project_id, field)


def _references(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(value) if isinstance(value, tuple | list) else ()


async def _require_secret(
    secrets: SecretReader, kind: SecretKind, reference: str, project_id: ProjectId, field: str
) -> None:
    reads = {
        SecretKind.CERTIFICATE: secrets.certificate,
        SecretKind.AUTHORITIES: secrets.authorities,
        SecretKind.REVOCATIONS: secrets.revocations,
    }
    try:
        await reads[kind](reference, project_id)
    except CallerError as error:
        raise Invalid(field, str(error)) from error
