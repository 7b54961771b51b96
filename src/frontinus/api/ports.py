"""What the API needs from outside, said in values of model/: whoever joins the parts hands in something that fits.

A network driver and a secret driver fit. The API must not import drivers, so the shape is written down here a second time, on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from frontinus.model.certificates import Authorities, Certificate, Revocations, SecretKind
from frontinus.model.ids import LoadBalancerId, ProjectId, SubnetId
from frontinus.model.network import AllocatedVip, Reference, Subnet, Tenant, VipRequest
from frontinus.model.tree import AdditionalVip, Vip

Clock = Callable[[], datetime]
"""The present, as an aware datetime in UTC."""


class VipAllocator(Protocol):
    """Addresses, before any transaction: see drivers/network/interface.py for what each call promises. Raises Invalid,
    Conflict, or Retry."""

    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip: ...

    async def preview_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip: ...

    async def release_vip(
        self,
        load_balancer_id: LoadBalancerId,
        vip: Vip,
        *,
        port_owned: bool,
        additional: tuple[AdditionalVip, ...] = (),
    ) -> None: ...

    async def require_access(self, tenant: Tenant, references: Sequence[Reference]) -> None: ...

    async def require_management_network(self, id_or_name: str, field: str) -> None: ...

    async def get_subnet(self, subnet_id: SubnetId) -> Subnet: ...

    async def list_subnets(self) -> tuple[Subnet, ...]: ...


class SecretReader(Protocol):
    """Whether a reference can be used: see drivers/secret/interface.py. What is read is let go of at once. Raises Invalid
    naming the reference, or Retry."""

    async def require_access(
        self, tenant: Tenant, load_balancer_id: LoadBalancerId, references: Mapping[str, str]
    ) -> None: ...

    async def shown_to(
        self, tenant: Tenant, kind: SecretKind, reference: str
    ) -> Certificate | Authorities | Revocations: ...

    async def certificate(self, reference: str, project_id: ProjectId) -> Certificate: ...

    async def authorities(self, reference: str, project_id: ProjectId) -> Authorities: ...

    async def revocations(self, reference: str, project_id: ProjectId) -> Revocations: ...
