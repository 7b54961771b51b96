"""Decide on which subnet a VIP is, and whether it can have the address that is asked for, as Octavia decides it
(behaviours.yaml vip_resolution); and by which subnet amphorae are managed. Pure.

Raises Invalid naming the attribute of the request. Asks nothing: callers pass what Neutron says. Next: vips.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address

from frontinus.drivers.network.neutron.facts import Address, FixedIp, PortFacts, SubnetFacts
from frontinus.model.errors import Invalid, NoFreeAddress
from frontinus.model.ids import NetworkId, SubnetId
from frontinus.model.network import VipRequest

_ENOUGH = 2
"""Free addresses that a subnet of one's own choice should have: the VIP's and the amphora's."""

_MOST_TRIED = 1 << 16


def parsed(text: str, field: str) -> Address:
    try:
        return ip_address(text)
    except ValueError as error:
        raise Invalid(field, f"{text[:80]!r} is not an IP address") from error


def subnet_on_network(
    network_id: NetworkId, subnets: Sequence[SubnetFacts], request: VipRequest, free: Mapping[SubnetId, int]
) -> SubnetFacts:
    """`subnets` are all of the network; `free` says how many addresses each has left, as far as that is known."""
    if not subnets:
        raise Invalid("vip_network_id", f"network {network_id} has no subnet")
    if request.subnet_id is not None:
        found = next((x for x in subnets if x.id == request.subnet_id), None)
        if found is None:
            raise Invalid("vip_subnet_id", f"subnet {request.subnet_id} is not on network {network_id}")
        return found
    if request.address is not None:
        asked = parsed(request.address, "vip_address")
        found = next((x for x in subnets if asked in x.network), None)
        if found is None:
            raise Invalid("vip_address", f"{asked} is in no subnet of network {network_id}")
        return found
    by_family = sorted(subnets, key=lambda x: x.ip_version)  # stable: else in Neutron's order
    return next((x for x in by_family if free.get(x.id, _ENOUGH) >= _ENOUGH), by_family[0])


def for_management(subnets: Sequence[SubnetFacts]) -> SubnetFacts | None:
    """Of the management network's; None where it has none."""
    return min(subnets, key=lambda x: x.ip_version, default=None)  # of several the first, in Neutron's order


def require_usable(address: Address, subnet: SubnetFacts, field: str) -> None:
    """Raise Invalid for an address that no machine on the subnet can have."""
    network = subnet.network
    if address not in network:
        raise Invalid(field, f"{address} is not in subnet {subnet.id} ({subnet.cidr})")
    is_end = network.num_addresses > 2 and (
        address == network.network_address or (network.version == 4 and address == network.broadcast_address)
    )
    if is_end:
        raise Invalid(field, f"{address} stands for all of subnet {subnet.id}; choose one inside it")


def address_of_port(port: PortFacts, subnet_id: SubnetId | None, address: str | None, field: str) -> FixedIp:
    """Which of the addresses of a port that a user brings is the VIP. `field` is that of the port."""
    if subnet_id is not None:
        on_subnet = [x for x in port.fixed_ips if x.subnet_id == subnet_id]
        if address is not None:
            asked = parsed(address, "vip_address")
            on_subnet = [x for x in on_subnet if ip_address(x.ip_address) == asked]
        if not on_subnet:
            raise Invalid("vip_subnet_id", f"port {port.id} does not have that address on subnet {subnet_id}")
        return on_subnet[0]
    if address is not None:
        asked = parsed(address, "vip_address")
        matching = [x for x in port.fixed_ips if ip_address(x.ip_address) == asked]
        if not matching:
            raise Invalid("vip_address", f"port {port.id} does not have the address {asked}")
        return matching[0]
    if len(port.fixed_ips) != 1:
        raise Invalid(
            field,
            f"port {port.id} has {len(port.fixed_ips)} addresses; say by vip_subnet_id or vip_address which it is",
        )
    return port.fixed_ips[0]


def some_free_address(subnet: SubnetFacts, taken: Collection[str]) -> str:
    """One that Neutron could give now. Raises NoFreeAddress."""
    tried = 0
    used = {ip_address(x) for x in taken}
    for pool in subnet.allocation_pools:
        first, last = ip_address(pool.start), ip_address(pool.end)
        for number in range(int(first), int(last) + 1):
            address = type(first)(number)
            if address not in used:
                return str(address)
            tried += 1
            if tried > _MOST_TRIED:
                break
    raise no_free_address(subnet)


def no_free_address(subnet: SubnetFacts) -> NoFreeAddress:
    return NoFreeAddress(
        subnet.id,
        f"subnet {subnet.id} ({subnet.name or subnet.cidr}) has no free address left; delete ports on it, or widen its pools",
    )
