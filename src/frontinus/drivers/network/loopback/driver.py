"""The network driver that gives VIPs out of 127.0.0.0/8, where every address works on Linux without being configured.

What is given is on record in the state directory, as symbolic links that need not lead anywhere:

    network/owners/<load balancer id> -> <address>      made first, removed last
    network/vips/<address> -> <load balancer id>        who has it

A link is made whole or not at all, never over another, and lives in the directory's own blocks: that is all the locking
and crash safety there is. Whatever call dies between the two, repeating it or releasing what is owned puts it right.
All calls are a few system calls on two small directories, so none is handed to a thread."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path
from typing import ClassVar
from uuid import UUID, uuid5

from frontinus.drivers.network.interface import NetworkDriver
from frontinus.model.errors import Bug, Conflict, Invalid, Retry
from frontinus.model.ids import LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId
from frontinus.model.network import AllocatedVip, Subnet, VipRequest
from frontinus.model.tree import Vip

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ADDRESS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
_LOOPBACK = IPv4Network("127.0.0.0/8")
_PORTS = UUID("8f7a1c52-3c0b-4f0e-9a55-0d6e2b7f4a10")
"""Namespace of the ids of VIP ports (RFC 9562, version 5): there are no ports here, but the API names one."""


@dataclass(frozen=True, kw_only=True)
class LoopbackSubnet:
    """One subnet, as [[driver_options.loopback.subnets]]."""

    name: str
    """A word for people."""

    id: str
    """Its UUID in the API."""

    network_id: str
    """The UUID of the network that it is on."""

    cidr: str
    """Which addresses a user may ask for. Inside 127.0.0.0/8."""

    pool: str
    """Which addresses are given to those who ask for none. Inside `cidr`; 256 addresses or more."""


BUILT_IN_SUBNET = LoopbackSubnet(
    name="loopback",
    id="10c0bac0-0000-4000-8000-000000000001",
    network_id="10c0bac0-0000-4000-8000-000000000000",
    cidr="127.0.0.0/8",
    pool="127.64.0.0/10",
)


@dataclass(frozen=True, kw_only=True)
class LoopbackSettings:
    """Where the records are, and what is given; [driver_options.loopback] in the configuration file."""

    state_dir: Path
    """Records live in <state_dir>/network. Two installations with different state directories do not know of each
    other's addresses; that two choose the same one of 4 million is rare, and shows as a port in use."""

    subnets: tuple[LoopbackSubnet, ...] = (BUILT_IN_SUBNET,)
    """By default one, with the same ids everywhere, so that examples work as they stand."""


class LoopbackNetwork(NetworkDriver):
    """See drivers/network/interface.py, whose docstrings are the law. One address per load balancer."""

    name: ClassVar[str] = "loopback"
    Settings: ClassVar[type[LoopbackSettings]] = LoopbackSettings

    def __init__(self, settings: LoopbackSettings) -> None:
        """Touches nothing. Raises Invalid naming the setting that cannot be."""
        if not settings.subnets:
            raise Invalid("subnets", "there must be one at least")
        self._subnets = tuple(_check_subnet(subnet, number) for number, subnet in enumerate(settings.subnets))
        if len({subnet.value.id for subnet in self._subnets}) < len(self._subnets):
            raise Invalid("subnets", "two have the same id")
        self._owners = settings.state_dir / "network" / "owners"
        self._vips = settings.state_dir / "network" / "vips"

    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        subnet, asked = self._understand(request)
        owner = self._owner_record(load_balancer_id)
        try:
            self._owners.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._vips.mkdir(mode=0o700, parents=True, exist_ok=True)
            address = self._take(load_balancer_id, owner, subnet, asked)
        except OSError as error:
            raise Retry(
                f"addresses cannot be recorded: {error}; look after {self._vips.parent}",
                after=10.0,
                code="network-state",
            ) from error
        return _allocated(load_balancer_id, subnet, address)

    async def preview_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        subnet, asked = self._understand(request)
        try:
            held = _read(self._owner_record(load_balancer_id))
            if held is not None:
                asked = IPv4Address(held)
            elif asked is not None and _read(self._vips / str(asked)) is not None:
                raise Conflict("vip_address", f"{asked} belongs to another load balancer")
            return _allocated(load_balancer_id, subnet, asked or self._find_free(load_balancer_id, subnet))
        except OSError as error:
            raise Retry(
                f"addresses cannot be looked up: {error}; look after {self._vips.parent}",
                after=10.0,
                code="network-state",
            ) from error

    async def release_vip(self, load_balancer_id: LoadBalancerId, vip: Vip, *, port_owned: bool) -> None:
        self._release(load_balancer_id, vip.address)

    async def release_owned(self, load_balancer_id: LoadBalancerId) -> None:
        address = _read(self._owner_record(load_balancer_id))
        if address is not None:
            self._release(load_balancer_id, address)

    async def get_subnet(self, subnet_id: SubnetId) -> Subnet:
        return self._subnet(subnet_id).value

    async def list_subnets(self) -> tuple[Subnet, ...]:
        return tuple(subnet.value for subnet in self._subnets)

    async def list_owned(self) -> tuple[LoadBalancerId, ...]:
        try:
            names = os.listdir(self._owners)  # noqa: PTH208 - names are all that is needed
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise Retry(f"{self._owners} cannot be read: {error}", after=10.0, code="network-state") from error
        return tuple(LoadBalancerId(name) for name in names if _UUID.fullmatch(name))

    # Understanding what is asked

    def _understand(self, request: VipRequest) -> tuple[_CheckedSubnet, IPv4Address | None]:
        """The subnet, and the address if one is asked for. Raises Invalid."""
        if request.port_id is not None:
            raise Invalid(
                "vip_port_id",
                "the loopback network has no ports of its own to bring; name a subnet or a network instead",
            )
        asked = None if request.address is None else _parse_address(request.address)
        if request.network_id is not None:
            subnet = self._subnet_on(request.network_id, request.subnet_id, asked)
        elif request.subnet_id is not None:
            subnet = self._subnet(request.subnet_id)
        else:
            raise Invalid("vip_subnet_id", "name a subnet or a network")
        if asked is not None and asked not in subnet.network:
            raise Invalid("vip_address", f"{asked} is not in subnet {subnet.value.id} ({subnet.value.cidr})")
        if asked is not None and asked in (subnet.network.network_address, subnet.network.broadcast_address):
            raise Invalid("vip_address", f"{asked} stands for all of subnet {subnet.value.id}; choose one inside it")
        return subnet, asked

    def _subnet(self, subnet_id: SubnetId) -> _CheckedSubnet:
        for subnet in self._subnets:
            if subnet.value.id == subnet_id:
                return subnet
        raise Invalid("vip_subnet_id", f"subnet {subnet_id} does not exist; there is {self._known()}")

    def _subnet_on(
        self, network_id: NetworkId, subnet_id: SubnetId | None, asked: IPv4Address | None
    ) -> _CheckedSubnet:
        on_network = [subnet for subnet in self._subnets if subnet.value.network_id == network_id]
        if not on_network:
            raise Invalid("vip_network_id", f"network {network_id} does not exist; there is {self._known()}")
        if subnet_id is not None:
            for subnet in on_network:
                if subnet.value.id == subnet_id:
                    return subnet
            raise Invalid("vip_subnet_id", f"subnet {subnet_id} is not on network {network_id}")
        if asked is not None:
            return next((subnet for subnet in on_network if asked in subnet.network), on_network[0])
        return on_network[0]

    def _known(self) -> str:
        return ", ".join(
            f"subnet {subnet.value.id} ({subnet.value.name}) on network {subnet.value.network_id}"
            for subnet in self._subnets
        )

    # Taking and giving back

    def _owner_record(self, load_balancer_id: LoadBalancerId) -> Path:
        if not _UUID.fullmatch(load_balancer_id):
            raise Bug(f"load balancer id {load_balancer_id!r} is not a UUID in lower case")
        return self._owners / load_balancer_id

    def _take(
        self, load_balancer_id: LoadBalancerId, owner: Path, subnet: _CheckedSubnet, asked: IPv4Address | None
    ) -> IPv4Address:
        """The address, on record under both names. Raises Conflict or Retry, and OSError; then there is no record."""
        while True:
            held = _read(owner)
            if held is None:
                wanted = asked or self._find_free(load_balancer_id, subnet)
                if not _make(owner, str(wanted)):
                    continue  # a call for the same load balancer was quicker: its choice holds
            else:
                wanted = IPv4Address(held)
                if wanted not in subnet.network or asked not in (None, wanted):
                    raise Conflict("vip_address", f"load balancer {load_balancer_id} has address {wanted} already")
            vip = self._vips / str(wanted)
            try:
                if _make(vip, load_balancer_id) or _read(vip) == load_balancer_id:
                    return wanted
            except OSError:
                owner.unlink(missing_ok=True)
                raise
            owner.unlink(missing_ok=True)
            if asked is not None:
                raise Conflict("vip_address", f"{asked} belongs to another load balancer")

    def _find_free(self, load_balancer_id: LoadBalancerId, subnet: _CheckedSubnet) -> IPv4Address:
        """Where the id's hash points, or the next free one after it: the same again and again while nothing changes."""
        size = subnet.pool.num_addresses // 256 * 254
        start = int.from_bytes(sha256(load_balancer_id.encode()).digest()[:8])
        for number in range(start, start + size):
            # Of each 256 addresses .0 and .255 are left out: they look like a network and a broadcast.
            block, last = divmod(number % size, 254)
            address = subnet.pool[block * 256 + 1 + last]
            if _read(self._vips / str(address)) in (None, load_balancer_id):
                return address
        raise Retry(
            f"subnet {subnet.value.id} has no free address left in {subnet.pool}; delete load balancers or widen its pool",
            after=30.0,
            code="no-free-address",
        )

    def _release(self, load_balancer_id: LoadBalancerId, address: str) -> None:
        owner = self._owner_record(load_balancer_id)
        vip = self._vips / address
        try:
            # Only what looks like an address becomes part of a path that is removed.
            if _ADDRESS.fullmatch(address) and _read(vip) == load_balancer_id:
                vip.unlink(missing_ok=True)
            if _read(owner) == address:
                owner.unlink(missing_ok=True)
        except OSError as error:
            raise Retry(
                f"address {address} cannot be given back: {error}; look after {self._vips.parent}",
                after=10.0,
                code="network-state",
            ) from error


@dataclass(frozen=True)
class _CheckedSubnet:
    value: Subnet
    network: IPv4Network
    pool: IPv4Network


def _allocated(load_balancer_id: LoadBalancerId, subnet: _CheckedSubnet, address: IPv4Address) -> AllocatedVip:
    vip = Vip(
        address=str(address),
        subnet_id=subnet.value.id,
        network_id=subnet.value.network_id,
        port_id=PortId(str(uuid5(_PORTS, load_balancer_id))),
    )
    return AllocatedVip(vip=vip, port_owned=True)


def _check_subnet(subnet: LoopbackSubnet, number: int) -> _CheckedSubnet:
    """Raises Invalid naming the setting."""
    where = f"subnets[{number}]"
    for field, text in (("id", subnet.id), ("network_id", subnet.network_id)):
        if not _UUID.fullmatch(text):
            raise Invalid(f"{where}.{field}", f"{text!r} is not a UUID in lower case")
    network = _parse_network(f"{where}.cidr", subnet.cidr)
    pool = _parse_network(f"{where}.pool", subnet.pool)
    if not network.subnet_of(_LOOPBACK):
        raise Invalid(f"{where}.cidr", f"{network} is not in {_LOOPBACK}; other addresses need another network driver")
    if not pool.subnet_of(network) or pool.prefixlen > 24:
        raise Invalid(f"{where}.pool", f"{pool} must lie in {network} and have 256 addresses or more")
    value = Subnet(id=SubnetId(subnet.id), network_id=NetworkId(subnet.network_id), name=subnet.name, cidr=str(network))
    return _CheckedSubnet(value, network, pool)


def _parse_network(field: str, text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise Invalid(field, f"{text!r} is not an IPv4 network: {error}") from error


def _parse_address(text: str) -> IPv4Address:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise Invalid("vip_address", f"{text!r} is not an IP address") from error
    if not isinstance(address, IPv4Address):
        raise Invalid(
            "vip_address", f"{address} is IPv6, of which the loopback has one address only; ask for 127.x.y.z"
        )
    return address


def _read(link: Path) -> str | None:
    """What a record says; None when there is none."""
    try:
        return os.readlink(link)  # noqa: PTH115 - what it says is a word, not a path
    except FileNotFoundError:
        return None


def _make(link: Path, says: str) -> bool:
    """Make a record; False when there is one under this name already."""
    try:
        link.symlink_to(says)
    except FileExistsError:
        return False
    return True
