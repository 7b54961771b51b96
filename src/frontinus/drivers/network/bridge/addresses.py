"""Decide which addresses a load balancer or a port gets. Pure but for the state that it is handed, which it changes.

The same question gets the same answer as long as nothing else changes: a search begins where the asker's hash points.
Errors leave the caller's state half changed: he throws it away (Records.changing does)."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from ipaddress import ip_address
from uuid import UUID, uuid5

from frontinus.drivers.network.bridge.records import Address, State, SubnetRecord, VipRecord, is_usable, parsed
from frontinus.model.errors import Conflict, Invalid, NoFreeAddress
from frontinus.model.ids import LoadBalancerId, NetworkId, PortId, SubnetId
from frontinus.model.network import AllocatedVip, VipRequest, check_additional_subnets
from frontinus.model.ports import PortAddress
from frontinus.model.tree import AdditionalVip, Vip

_IDS = UUID("b3a1f0de-6f0c-4c55-9a0e-3f3f2b6d8f11")
"""Namespace of the ids that are derived from others (RFC 9562, version 5)."""

_MOST_TRIED = 1 << 20


def derived_id(*words: str) -> str:
    return str(uuid5(_IDS, " ".join(words)))


def allocate(state: State, load_balancer_id: LoadBalancerId, request: VipRequest) -> AllocatedVip:
    """Put the VIPs of a request on record, or find them there. Raises Invalid, Conflict, or NoFreeAddress."""
    first, asked = _first(state, request)
    wishes: list[tuple[SubnetRecord, Address | None, str]] = [(first, asked, "vip_address")]
    for number, further in enumerate(request.additional):
        field = f"load_balancer.additional_vips[{number}]"
        if further.port_id is not None:
            raise Invalid(f"{field}.port_id", "this network has no ports of users to bring")
        subnet = subnet_of(state, further.subnet_id, f"{field}.subnet_id")
        address = _parse(further.address, f"{field}.ip_address") if further.address else None
        _require_usable(address, subnet, f"{field}.ip_address")
        wishes.append((subnet, address, f"{field}.ip_address"))
    primary = Vip(address="", subnet_id=first.id, network_id=first.network_id, port_id=PortId(""))
    check_additional_subnets(primary, [(subnet.id, subnet.network_id) for subnet, _, _ in wishes[1:]])
    given = [
        _take(state, load_balancer_id, subnet, asked, field, is_first=number == 0)
        for number, (subnet, asked, field) in enumerate(wishes)
    ]
    return AllocatedVip(
        vip=Vip(
            address=given[0].address,
            subnet_id=first.id,
            network_id=first.network_id,
            port_id=given[0].port_id,
        ),
        port_owned=True,
        additional=tuple(AdditionalVip(address=x.address, subnet_id=x.subnet_id, port_id=x.port_id) for x in given[1:]),
    )


def port_addresses(
    state: State, port_id: PortId, subnets: Iterable[SubnetRecord], kept: Iterable[PortAddress]
) -> tuple[PortAddress, ...]:
    """An address on each of the subnets, those that the port has among them. Raises NoFreeAddress."""
    before = {x.subnet_id: x for x in kept}
    found: list[PortAddress] = []
    for subnet in subnets:
        address = before[subnet.id].address if subnet.id in before else find_free(state, subnet, port_id)
        found.append(
            PortAddress(
                address=address,
                prefix_length=subnet.network.prefixlen,
                subnet_id=subnet.id,
                gateway=subnet.gateway,
                routes=subnet.routes,
            )
        )
    return tuple(found)


def find_free(state: State, subnet: SubnetRecord, asker: str) -> str:
    """Raises NoFreeAddress when all are given."""
    first, last = int(parsed(subnet.first)), int(parsed(subnet.last))
    size, taken = last - first + 1, state.taken(subnet)
    start = int.from_bytes(sha256(asker.encode()).digest()[:8]) % size
    family = type(parsed(subnet.first))
    for number in range(start, start + min(size, _MOST_TRIED)):
        address = str(family(first + number % size))
        if address not in taken:
            return address
    raise NoFreeAddress(
        subnet.id,
        f"subnet {subnet.id} ({subnet.name}) has no free address left from {subnet.first} to {subnet.last}; delete load "
        "balancers, or widen its pool",
    )


def subnet_of(state: State, subnet_id: SubnetId, field: str = "vip_subnet_id") -> SubnetRecord:
    """Raises Invalid naming the subnet. Those for management are nobody's."""
    found = state.subnets.get(subnet_id)
    if found is None or state.networks[found.network_id].for_management:
        raise Invalid(field, f"subnet {subnet_id} does not exist; {_known(state)}")
    return found


def _first(state: State, request: VipRequest) -> tuple[SubnetRecord, Address | None]:
    """The VIP's subnet, and its address if one is asked for. Raises Invalid."""
    if request.port_id is not None:
        raise Invalid("vip_port_id", "this network has no ports of users to bring; name a subnet or a network instead")
    asked = None if request.address is None else _parse(request.address, "vip_address")
    if request.network_id is not None:
        subnet = _subnet_on(state, request.network_id, request.subnet_id, asked)
    elif request.subnet_id is not None:
        subnet = subnet_of(state, request.subnet_id)
    else:
        raise Invalid("vip_subnet_id", "name a subnet or a network")
    _require_usable(asked, subnet, "vip_address")
    return subnet, asked


def _subnet_on(state: State, network_id: NetworkId, subnet_id: SubnetId | None, asked: Address | None) -> SubnetRecord:
    network = state.networks.get(network_id)
    if network is None or network.for_management:
        raise Invalid("vip_network_id", f"network {network_id} does not exist; {_known(state)}")
    on_network = state.subnets_of(network_id)
    if not on_network:
        raise Invalid("vip_network_id", f"network {network_id} has no subnet: frontinus network subnet create")
    if subnet_id is not None:
        for subnet in on_network:
            if subnet.id == subnet_id:
                return subnet
        raise Invalid("vip_subnet_id", f"subnet {subnet_id} is not on network {network_id}")
    if asked is not None:
        return next((x for x in on_network if asked in x.network), on_network[0])
    # As in Octavia, of IPv4 where there is one.
    return next((x for x in on_network if x.network.version == 4), on_network[0])


def _take(
    state: State,
    load_balancer_id: LoadBalancerId,
    subnet: SubnetRecord,
    asked: Address | None,
    field: str,
    *,
    is_first: bool,
) -> VipRecord:
    for held in state.vips_of(load_balancer_id):
        if held.is_first != is_first or (not is_first and held.subnet_id != subnet.id):
            continue
        if held.subnet_id != subnet.id or (asked is not None and str(asked) != held.address):
            raise Conflict(field, f"load balancer {load_balancer_id} has address {held.address} already")
        return held
    if asked is not None and str(asked) in state.taken(subnet):
        raise Conflict(field, f"{asked} is in use")
    words = (load_balancer_id,) if is_first else (load_balancer_id, subnet.id)
    record = VipRecord(
        load_balancer_id=load_balancer_id,
        subnet_id=subnet.id,
        address=str(asked) if asked is not None else find_free(state, subnet, f"{load_balancer_id} {subnet.id}"),
        port_id=PortId(derived_id("vip", *words)),
        is_first=is_first,
    )
    state.vips.append(record)
    return record


def _known(state: State) -> str:
    names = [
        f"subnet {x.id} ({x.name}, {x.cidr}) on network {x.network_id}"
        for x in state.subnets.values()
        if not state.networks[x.network_id].for_management
    ]
    return f"there is {', '.join(names)}" if names else "there is none yet: frontinus network create"


def _require_usable(address: Address | None, subnet: SubnetRecord, field: str) -> None:
    if address is None or is_usable(address, subnet.network):
        return
    if address in subnet.network:
        raise Invalid(field, f"{address} stands for all of subnet {subnet.id}; choose one inside it")
    raise Invalid(field, f"{address} is not in subnet {subnet.id} ({subnet.cidr})")


def _parse(text: str, field: str) -> Address:
    try:
        return ip_address(text)
    except ValueError as error:
        raise Invalid(field, f"{text!r} is not an IP address") from error
