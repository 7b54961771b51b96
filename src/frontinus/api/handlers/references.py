"""References into the network that must be looked up before a transaction begins."""

from __future__ import annotations

from collections.abc import Iterable

from frontinus.api.ports import VipAllocator
from frontinus.api.requests import Asked
from frontinus.model.errors import CallerError, Invalid
from frontinus.model.ids import SubnetId


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
