"""What the bridge driver has on record: networks, subnets, VIPs and ports; in one file, read and written whole.

Values and one store. The file changes under a lock that other processes hold too, and appears whole or not at all: what
a crash leaves is a state that was meant. Next: addresses.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TypeAlias

import msgspec

from frontinus.drivers.private_files import locked, write_private
from frontinus.model.errors import Retry
from frontinus.model.ids import LoadBalancerId, NetworkId, PortId, SubnetId
from frontinus.model.network import Subnet
from frontinus.model.ports import Port, PortRoute

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`bridge` is the name of its link on this machine; not `owns_bridge`: it is there for others too, and stays. A network
    `for_management` is not for load balancers."""

    id: NetworkId
    name: str
    bridge: str
    mtu: int = 1500
    owns_bridge: bool = True
    for_management: bool = False


class SubnetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses are given from `first` to `last`. `host_address` is one that this machine has on the bridge."""

    id: SubnetId
    network_id: NetworkId
    name: str
    cidr: str
    first: str
    last: str
    gateway: str | None = None
    host_address: str | None = None
    routes: tuple[PortRoute, ...] = ()

    @property
    def network(self) -> Network:
        return ip_network(self.cidr)

    @property
    def reserved(self) -> set[str]:
        return {x for x in (self.gateway, self.host_address) if x is not None}

    def as_subnet(self) -> Subnet:
        return Subnet(id=self.id, network_id=self.network_id, name=self.name, cidr=self.cidr, gateway=self.gateway)


class VipRecord(msgspec.Struct, frozen=True, kw_only=True):
    load_balancer_id: LoadBalancerId
    subnet_id: SubnetId
    address: str
    port_id: PortId
    is_first: bool


class PortRecord(msgspec.Struct, frozen=True, kw_only=True):
    load_balancer_id: LoadBalancerId
    port: Port


class State(msgspec.Struct, kw_only=True):
    """All there is. Changed by whoever holds it from `Records.changing`."""

    networks: dict[NetworkId, NetworkRecord] = msgspec.field(default_factory=dict)
    subnets: dict[SubnetId, SubnetRecord] = msgspec.field(default_factory=dict)
    vips: list[VipRecord] = msgspec.field(default_factory=list)
    ports: dict[PortId, PortRecord] = msgspec.field(default_factory=dict)

    def subnets_of(self, network_id: NetworkId) -> list[SubnetRecord]:
        return [x for x in self.subnets.values() if x.network_id == network_id]

    def vips_of(self, load_balancer_id: LoadBalancerId) -> list[VipRecord]:
        return [x for x in self.vips if x.load_balancer_id == load_balancer_id]

    def taken(self, subnet: SubnetRecord) -> set[str]:
        """The addresses of a subnet that somebody has."""
        vips = {x.address for x in self.vips if x.subnet_id == subnet.id}
        ports = {y.address for x in self.ports.values() for y in x.port.addresses if y.subnet_id == subnet.id}
        return vips | ports | subnet.reserved


class Records:
    """The state in its file. Blocks: call it from a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "bridge.json"

    def read(self) -> State:
        """Raises Retry when it cannot be read."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=State)
        except FileNotFoundError:
            return State()
        except (OSError, msgspec.MsgspecError) as error:
            raise _trouble(self._file, error) from error

    @contextmanager
    def changing(self) -> Iterator[State]:
        """Hold the state alone; what is different at the end is written, unless an error ends it. Raises Retry."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self._directory):
                state = self.read()
                before = msgspec.json.encode(state)
                yield state
                after = msgspec.json.encode(state)
                if after != before:
                    write_private(self._file, after)
        except OSError as error:
            raise _trouble(self._file, error) from error


def is_usable(address: Address, network: Network) -> bool:
    """Whether it is an address of one machine in the network."""
    if address not in network:
        return False
    if network.num_addresses <= 2:  # a pair or one alone (RFC 3021)
        return True
    return address != network.network_address and (network.version == 6 or address != network.broadcast_address)


def usable_range(network: Network) -> tuple[Address, Address]:
    """The first and the last address of a machine."""
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.num_addresses > 2:
        first, last = first + 1, last - (network.version == 4)
    family = type(network.network_address)
    return family(first), family(last)


def parsed(text: str) -> Address:
    return ip_address(text)


def _trouble(file: Path, error: Exception) -> Retry:
    return Retry(
        f"the records of networks cannot be read or written: {error}; look after {file}",
        after=10.0,
        code="network-state",
    )
