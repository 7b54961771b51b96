"""What an operator does with networks and subnets: `frontinus network …` (cli/network.py).

Each call checks all that it is given, naming the field that is wrong, and then changes records and bridges; a refusal
changes nothing. Blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from frontinus.drivers import iproute
from frontinus.drivers.network.bridge.driver import bridge_name, make_bridge, remove_bridge
from frontinus.drivers.network.bridge.records import (
    Address,
    Network,
    NetworkRecord,
    Records,
    State,
    SubnetRecord,
    is_usable,
    usable_range,
)
from frontinus.model.errors import Conflict, Invalid
from frontinus.model.ids import NetworkId, SubnetId, new_id
from frontinus.model.ports import PortRoute

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
_BRIDGE = re.compile(r"[A-Za-z0-9_.-]{1,15}")


@dataclass(frozen=True, kw_only=True)
class SubnetWish:
    """A subnet to be made. None: what is usual (no gateway; addresses of all machines in it)."""

    cidr: str
    name: str = ""
    gateway: str | None = None
    pool: str | None = None
    """`first-last`."""
    host_address: str | None = None
    """An address that this machine shall have there, so that it reaches the VIPs; may be the gateway's."""
    routes: tuple[str, ...] = ()
    """`destination=next hop` each."""


class Administration:
    """Works beside a running controller, which sees what changed at its next call."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def networks(self) -> tuple[list[NetworkRecord], State]:
        """Every network, and the state that tells what is on them."""
        state = self._records.read()
        return list(state.networks.values()), state

    def create_network(self, name: str, *, bridge: str | None = None, mtu: int = 1500) -> NetworkRecord:
        """A network with its bridge: a new one, or one of this name that is there already and stays its owner's. Raises
        Invalid, Conflict, Retry."""
        if not _NAME.fullmatch(name):
            raise Invalid("name", "must have from 1 to 255 characters, none of them a control character")
        if bridge is not None and not _BRIDGE.fullmatch(bridge):
            raise Invalid("bridge", f"{bridge!r} is no name of a link: 15 letters and digits at most")
        if not 1280 <= mtu <= 65_535:
            raise Invalid("mtu", f"must be from 1280 to 65535, not {mtu}")
        if bridge is not None and not iproute.link_exists(bridge):
            raise Invalid("bridge", f"this machine has no link {bridge}")
        with self._records.changing() as state:
            if any(x.name == name for x in state.networks.values()):
                raise Conflict("name", f"there is a network {name!r} already")
            if any(x.bridge == bridge for x in state.networks.values()):
                raise Conflict("bridge", f"there is a network on {bridge} already")
            network_id = NetworkId(new_id())
            network = NetworkRecord(
                id=network_id,
                name=name,
                bridge=bridge or bridge_name(network_id),
                mtu=mtu,
                owns_bridge=bridge is None,
            )
            state.networks[network_id] = network
            make_bridge(network, [])
        return network

    def delete_network(self, name_or_id: str) -> NetworkRecord:
        """The network, its subnets and its bridge are gone. Raises Invalid; Conflict while it is used."""
        with self._records.changing() as state:
            network = find_network(state, name_or_id)
            for subnet in state.subnets_of(network.id):
                _require_unused(state, subnet)
                del state.subnets[subnet.id]
            if any(x.port.network_id == network.id for x in state.ports.values()):
                raise Conflict("network", f"amphorae hang on {network.name}; delete their load balancers first")
            del state.networks[network.id]
            if network.owns_bridge:
                remove_bridge(network)
        return network

    def create_subnet(self, network: str, wish: SubnetWish) -> SubnetRecord:
        """Raises Invalid, Conflict, Retry."""
        cidr = _network("cidr", wish.cidr)
        gateway = _inside("gateway", wish.gateway, cidr)
        host = _inside("host_address", wish.host_address, cidr)
        first, last = _pool(wish.pool, cidr)
        routes = tuple(_route(text, cidr) for text in wish.routes)
        with self._records.changing() as state:
            owner = find_network(state, network)
            for other in state.subnets.values():
                if other.network.version == cidr.version and other.network.overlaps(cidr):
                    place = state.networks[other.network_id].name
                    raise Conflict("cidr", f"{cidr} overlaps with subnet {other.cidr} of network {place}")
            subnet = SubnetRecord(
                id=SubnetId(new_id()),
                network_id=owner.id,
                name=wish.name or str(cidr),
                cidr=str(cidr),
                first=str(first),
                last=str(last),
                gateway=gateway,
                host_address=host,
                routes=routes,
            )
            state.subnets[subnet.id] = subnet
            make_bridge(owner, state.subnets_of(owner.id))
        return subnet

    def delete_subnet(self, name_or_id: str) -> SubnetRecord:
        """Raises Invalid; Conflict while it is used."""
        with self._records.changing() as state:
            subnet = find_subnet(state, name_or_id)
            _require_unused(state, subnet)
            del state.subnets[subnet.id]
            network = state.networks[subnet.network_id]
            if subnet.host_address is not None and iproute.link_exists(network.bridge):
                words = [
                    "address",
                    "delete",
                    f"{subnet.host_address}/{subnet.network.prefixlen}",
                    "dev",
                    network.bridge,
                ]
                iproute.change([words], family=subnet.network.version)
        return subnet


def find_network(state: State, name_or_id: str) -> NetworkRecord:
    """Raises Invalid for an unknown one, and for that of management, which is nobody's."""
    for network in state.networks.values():
        if name_or_id in (network.id, network.name) and not network.for_management:
            return network
    known = ", ".join(x.name for x in state.networks.values() if not x.for_management) or "none"
    raise Invalid("network", f"there is no network {name_or_id!r}; there is {known}")


def find_subnet(state: State, name_or_id: str) -> SubnetRecord:
    """Raises Invalid for an unknown one, or a name that several have."""
    found = [
        x
        for x in state.subnets.values()
        if name_or_id in (x.id, x.name) and not state.networks[x.network_id].for_management
    ]
    if len(found) == 1:
        return found[0]
    what = "several subnets are called" if found else "there is no subnet"
    raise Invalid("subnet", f"{what} {name_or_id!r}; frontinus network show tells their ids")


def _require_unused(state: State, subnet: SubnetRecord) -> None:
    used = len(state.taken(subnet) - subnet.reserved)
    if used:
        raise Conflict("subnet", f"{used} addresses of {subnet.name} are in use; delete the load balancers first")


def _network(field: str, text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise Invalid(field, f"{text!r} is not a network: {error}") from error


def _address(field: str, text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError as error:
        raise Invalid(field, f"{text!r} is not an IP address") from error


def _inside(field: str, text: str | None, network: Network) -> str | None:
    if text is None:
        return None
    address = _address(field, text)
    if not is_usable(address, network):
        raise Invalid(field, f"{address} is no address of a machine in {network}")
    return str(address)


def _pool(text: str | None, network: Network) -> tuple[Address, Address]:
    if text is None:
        return usable_range(network)
    first, separator, last = text.partition("-")
    if not separator:
        raise Invalid("pool", f"{text!r} must be two addresses with a dash between them")
    ends = _address("pool", first.strip()), _address("pool", last.strip())
    if not all(is_usable(x, network) for x in ends):
        raise Invalid("pool", f"{text} does not lie in {network}")
    if int(ends[0]) > int(ends[1]):
        raise Invalid("pool", f"{ends[0]} comes after {ends[1]}")
    return ends


def _route(text: str, network: Network) -> PortRoute:
    destination, separator, next_hop = text.partition("=")
    if not separator:
        raise Invalid("route", f"{text!r} must be a network and a next hop with = between them")
    target, hop = _network("route", destination.strip()), _address("route", next_hop.strip())
    if target.version != network.version or hop not in network:
        raise Invalid("route", f"the next hop {hop} of {target} is not in {network}")
    return PortRoute(str(target), str(hop))
