"""Load balancers and amphorae as the deciding modules of the controller see them, for tables of tests."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec.structs import replace

from frontinus.model.enums import AmphoraStatus, ProvisioningStatus
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId
from frontinus.model.tree import Amphora, LoadBalancer, Receipt, Vip

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OLD, NEW, OTHER = AmphoraId("old"), AmphoraId("new"), AmphoraId("other")
WANTED = "digest-wanted"
RECEIPT = Receipt(generation=2, digest=WANTED, driver_version="1", applied_at=NOW)


def load_balancer(**changes: object) -> LoadBalancer:
    vip = Vip(address="127.64.0.1", subnet_id=SubnetId("s"), network_id=NetworkId("n"), port_id=PortId("p"))
    plain = LoadBalancer(
        id=LoadBalancerId("lb"),
        project_id=ProjectId("project"),
        vip=vip,
        generation=2,
        applied_generation=2,
        provisioning_status=ProvisioningStatus.ACTIVE,
        created_at=NOW,
    )
    return replace(plain, **changes)


def amphora(**changes: object) -> Amphora:
    plain = Amphora(
        id=OLD,
        load_balancer_id=LoadBalancerId("lb"),
        project_id=ProjectId("project"),
        status=AmphoraStatus.ALLOCATED,
        management_address="127.128.0.1",
        receipt=RECEIPT,
        created_at=NOW,
    )
    return replace(plain, **changes)
