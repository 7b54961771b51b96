"""The network driver that gives VIPs out of 127.0.0.0/8, where every address works on Linux without being configured,
and ::1, the one IPv6 address of which that is true.

What is given is on record in the state directory, as symbolic links that need not lead anywhere:

    network/owners/<load balancer id> -> <address>      made first, removed last
    network/owners/<load balancer id>+<subnet id> -> …  the same of an additional VIP on that subnet
    network/vips/<address> -> <load balancer id>        who has it

A link is made whole or not at all, never over another, and lives in the directory's own blocks: that is all the locking
and crash safety there is. Whatever call dies between the two, repeating it or releasing what is owned puts it right.
All calls are a few system calls on two small directories, so none is handed to a thread."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import ClassVar, TypeAlias
from uuid import UUID, uuid5

from frontinus.drivers.network.interface import NetworkDriver
from frontinus.model.belongings import Belonging, BelongingKind
from frontinus.model.errors import Bug, Conflict, Invalid, NoFreeAddress, Retry
from frontinus.model.ids import LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId
from frontinus.model.network import AllocatedVip, Subnet, VipRequest, check_additional_subnets
from frontinus.model.tree import AdditionalVip, Vip

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ADDRESS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-f:]{2,39}")
_Address: TypeAlias = IPv4Address | IPv6Address
_Network: TypeAlias = IPv4Network | IPv6Network
_LOOPBACK = IPv4Network("127.0.0.0/8")
_LOCAL_V6 = (IPv6Network("::1/128"), IPv6Network("fc00::/7"))
"""The loopback address, and unique local ones (RFC 4193), which an operator can give to the machine's `lo`."""
_MOST_TRIED = 1 << 22
"""How many addresses of a pool are looked at before it counts as full: as many as the built-in one has."""

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
    """Which addresses a user may ask for. Inside 127.0.0.0/8; or ::1/128; or inside fc00::/7, where every address must have
    been given to the machine before (`ip -6 address add fd00:0:0:1::7/128 dev lo`)."""

    pool: str
    """Which addresses are given to those who ask for none. Inside `cidr`; of IPv4, 256 addresses or more."""


BUILT_IN_SUBNET = LoopbackSubnet(
    name="loopback",
    id="10c0bac0-0000-4000-8000-000000000001",
    network_id="10c0bac0-0000-4000-8000-000000000000",
    cidr="127.0.0.0/8",
    pool="127.64.0.0/10",
)

BUILT_IN_SUBNET_V6 = LoopbackSubnet(
    name="loopback-v6",
    id="10c0bac0-0000-4000-8000-000000000002",
    network_id=BUILT_IN_SUBNET.network_id,
    cidr="::1/128",
    pool="::1/128",
)


@dataclass(frozen=True, kw_only=True)
class LoopbackSettings:
    """Where the records are, and what is given; [driver_options.loopback] in the configuration file."""

    state_dir: Path
    """Records live in <state_dir>/network. Two installations with different state directories do not know of each
    other's addresses; that two choose the same one of 4 million is rare, and shows as a port in use."""

    subnets: tuple[LoopbackSubnet, ...] = (BUILT_IN_SUBNET, BUILT_IN_SUBNET_V6)
    """By default one of IPv4 and one that holds only ::1, so that one load balancer at a time can have it. Their ids are the
    same everywhere, so that examples work as they stand."""


class LoopbackNetwork(NetworkDriver):
    """See drivers/network/interface.py, whose docstrings are the law. One address per load balancer and subnet."""

    name: ClassVar[str] = "loopback"
    features: ClassVar[frozenset[str]] = frozenset({"additional_vips"})
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
        wishes = self._understand_all(load_balancer_id, request)
        try:
            self._owners.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._vips.mkdir(mode=0o700, parents=True, exist_ok=True)
            addresses = self._take_all(load_balancer_id, wishes)
        except OSError as error:
            raise Retry(
                f"addresses cannot be recorded: {error}; look after {self._vips.parent}",
                after=10.0,
                code="network-state",
            ) from error
        return _allocated(load_balancer_id, wishes, addresses)

    async def preview_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        wishes = self._understand_all(load_balancer_id, request)
        try:
            return _allocated(load_balancer_id, wishes, [self._look_up(load_balancer_id, wish) for wish in wishes])
        except OSError as error:
            raise Retry(
                f"addresses cannot be looked up: {error}; look after {self._vips.parent}",
                after=10.0,
                code="network-state",
            ) from error

    async def release_vip(
        self,
        load_balancer_id: LoadBalancerId,
        vip: Vip,
        *,
        port_owned: bool,
        additional: tuple[AdditionalVip, ...] = (),
    ) -> None:
        for each in additional:
            self._release(load_balancer_id, self._owner_record(load_balancer_id, each.subnet_id), each.address)
        self._release(load_balancer_id, self._owner_record(load_balancer_id), vip.address)

    async def release_owned(self, load_balancer_id: LoadBalancerId) -> None:
        first = self._owner_record(load_balancer_id)
        for owner in (*sorted(first.parent.glob(f"{first.name}+*")), first):
            address = _read(owner)
            if address is not None:
                self._release(load_balancer_id, owner, address)

    async def get_subnet(self, subnet_id: SubnetId) -> Subnet:
        return self._subnet(subnet_id).value

    async def list_subnets(self) -> tuple[Subnet, ...]:
        return tuple(subnet.value for subnet in self._subnets)

    async def list_owned(self) -> tuple[LoadBalancerId, ...]:
        return tuple(dict.fromkeys(load_balancer_id for load_balancer_id, _ in self._records()))

    async def list_belongings(self) -> tuple[Belonging, ...]:
        return tuple(
            Belonging(
                kind=BelongingKind.ADDRESS,
                name=address,
                proof="on record in the state directory",
                load_balancer_id=load_balancer_id,
            )
            for load_balancer_id, record in self._records()
            if (address := _read(record)) is not None
        )

    def _records(self) -> list[tuple[LoadBalancerId, Path]]:
        """Who has an address, and where it is written which. Raises Retry."""
        try:
            names = os.listdir(self._owners)  # noqa: PTH208 - names are all that is needed
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Retry(f"{self._owners} cannot be read: {error}", after=10.0, code="network-state") from error
        owners = ((name.partition("+")[0], self._owners / name) for name in names)
        return [(LoadBalancerId(owner), record) for owner, record in owners if _UUID.fullmatch(owner)]

    # Understanding what is asked

    def _understand_all(self, load_balancer_id: LoadBalancerId, request: VipRequest) -> list[_Wish]:
        """What is asked for, the VIP first. Raises Invalid."""
        subnet, asked = self._understand(request)
        first = _Wish(self._owner_record(load_balancer_id), subnet, asked, "vip_address")
        return [first, *self._understand_additional(load_balancer_id, request, subnet)]

    def _understand(self, request: VipRequest) -> tuple[_CheckedSubnet, _Address | None]:
        """The subnet, and the address if one is asked for. Raises Invalid."""
        if request.port_id is not None:
            raise Invalid(
                "vip_port_id",
                "the loopback network has no ports of its own to bring; name a subnet or a network instead",
            )
        asked = None if request.address is None else _parse_address(request.address, "vip_address")
        if request.network_id is not None:
            subnet = self._subnet_on(request.network_id, request.subnet_id, asked)
        elif request.subnet_id is not None:
            subnet = self._subnet(request.subnet_id)
        else:
            raise Invalid("vip_subnet_id", "name a subnet or a network")
        _require_inside(asked, subnet, "vip_address")
        return subnet, asked

    def _understand_additional(
        self, load_balancer_id: LoadBalancerId, request: VipRequest, first: _CheckedSubnet
    ) -> list[_Wish]:
        """What the additional VIPs shall be. Raises Invalid."""
        wishes: list[_Wish] = []
        for number, asked in enumerate(request.additional):
            field = f"load_balancer.additional_vips[{number}]"
            if asked.port_id is not None:
                raise Invalid(f"{field}.port_id", "the loopback network has no ports of its own to bring")
            subnet = self._subnet(asked.subnet_id, f"{field}.subnet_id")
            address = _parse_address(asked.address, f"{field}.ip_address") if asked.address else None
            _require_inside(address, subnet, f"{field}.ip_address")
            owner = self._owner_record(load_balancer_id, subnet.value.id)
            wishes.append(_Wish(owner, subnet, address, f"{field}.ip_address"))
        primary = Vip(address="", subnet_id=first.value.id, network_id=first.value.network_id, port_id=PortId(""))
        check_additional_subnets(primary, [(x.subnet.value.id, x.subnet.value.network_id) for x in wishes])
        return wishes

    def _subnet(self, subnet_id: SubnetId, field: str = "vip_subnet_id") -> _CheckedSubnet:
        for subnet in self._subnets:
            if subnet.value.id == subnet_id:
                return subnet
        raise Invalid(field, f"subnet {subnet_id} does not exist; there is {self._known()}")

    def _subnet_on(self, network_id: NetworkId, subnet_id: SubnetId | None, asked: _Address | None) -> _CheckedSubnet:
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
        # As in Octavia, of IPv4 where there is one.
        return next((subnet for subnet in on_network if subnet.network.version == 4), on_network[0])

    def _known(self) -> str:
        return ", ".join(
            f"subnet {subnet.value.id} ({subnet.value.name}) on network {subnet.value.network_id}"
            for subnet in self._subnets
        )

    # Taking and giving back

    def _owner_record(self, load_balancer_id: LoadBalancerId, subnet_id: str = "") -> Path:
        """Where it is written what a load balancer has: as its VIP, or as an additional one on a subnet."""
        for each in filter(None, (load_balancer_id, subnet_id)):
            if not _UUID.fullmatch(each):
                raise Bug(f"{each!r} is not a UUID in lower case")
        return self._owners / (f"{load_balancer_id}+{subnet_id}" if subnet_id else load_balancer_id)

    def _take_all(self, load_balancer_id: LoadBalancerId, wishes: Sequence[_Wish]) -> list[_Address]:
        """An address for every wish, or for none. Raises what `_take` raises; then what was there before is left."""
        taken: list[tuple[_Wish, _Address]] = []
        addresses: list[_Address] = []
        try:
            for wish in wishes:
                is_new = _read(wish.owner) is None
                address = self._take(load_balancer_id, wish)
                addresses.append(address)
                if is_new:
                    taken.append((wish, address))
        except BaseException:  # whatever it is: all or nothing
            for wish, address in reversed(taken):
                self._release(load_balancer_id, wish.owner, str(address))
            raise
        return addresses

    def _take(self, load_balancer_id: LoadBalancerId, wish: _Wish) -> _Address:
        """The address, on record under both names. Raises Conflict or Retry, and OSError; then there is no record."""
        owner, subnet, asked = wish.owner, wish.subnet, wish.asked
        while True:
            held = _read(owner)
            if held is None:
                wanted = asked or self._find_free(load_balancer_id, subnet)
                if not _make(owner, str(wanted)):
                    continue  # a call for the same load balancer was quicker: its choice holds
            else:
                wanted = ip_address(held)
                if wanted not in subnet.network or asked not in (None, wanted):
                    raise Conflict(wish.field, f"load balancer {load_balancer_id} has address {wanted} already")
            vip = self._vips / str(wanted)
            try:
                if _make(vip, load_balancer_id) or _read(vip) == load_balancer_id:
                    return wanted
            except OSError:
                owner.unlink(missing_ok=True)
                raise
            owner.unlink(missing_ok=True)
            if asked is not None:
                raise Conflict(wish.field, f"{asked} belongs to another load balancer")

    def _look_up(self, load_balancer_id: LoadBalancerId, wish: _Wish) -> _Address:
        """The address that `_take` would give now. Raises Conflict or Retry, and OSError."""
        held = _read(wish.owner)
        if held is not None:
            return ip_address(held)
        if wish.asked is None:
            return self._find_free(load_balancer_id, wish.subnet)
        if _read(self._vips / str(wish.asked)) not in (None, load_balancer_id):
            raise Conflict(wish.field, f"{wish.asked} belongs to another load balancer")
        return wish.asked

    def _find_free(self, load_balancer_id: LoadBalancerId, subnet: _CheckedSubnet) -> _Address:
        """Where the id's hash points, or the next free one after it: the same again and again while nothing changes."""
        pool = subnet.pool
        is_v4 = isinstance(pool, IPv4Network)
        size = pool.num_addresses // 256 * 254 if is_v4 else pool.num_addresses
        start = int.from_bytes(sha256(load_balancer_id.encode()).digest()[:8]) % size
        for number in range(start, start + min(size, _MOST_TRIED)):
            # Of each 256 IPv4 addresses .0 and .255 are left out: they look like a network and a broadcast.
            block, last = divmod(number % size, 254)
            address = pool[block * 256 + 1 + last] if is_v4 else pool[number % size]
            if _read(self._vips / str(address)) in (None, load_balancer_id):
                return address
        raise NoFreeAddress(
            subnet.value.id,
            f"subnet {subnet.value.id} has no free address left in {subnet.pool}; delete load balancers or widen its pool",
        )

    def _release(self, load_balancer_id: LoadBalancerId, owner: Path, address: str) -> None:
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
    network: _Network
    pool: _Network


@dataclass(frozen=True)
class _Wish:
    """One address that is asked for: where it is recorded, on which subnet it is, which one (None: any), and how a refusal
    names it."""

    owner: Path
    subnet: _CheckedSubnet
    asked: _Address | None
    field: str


def _allocated(
    load_balancer_id: LoadBalancerId, wishes: Sequence[_Wish], addresses: Sequence[_Address]
) -> AllocatedVip:
    """What the answer to a request is when its wishes got these addresses."""
    first, *further = wishes
    vip = Vip(
        address=str(addresses[0]),
        subnet_id=first.subnet.value.id,
        network_id=first.subnet.value.network_id,
        port_id=PortId(str(uuid5(_PORTS, load_balancer_id))),
    )
    additional = tuple(
        AdditionalVip(
            address=str(address),
            subnet_id=wish.subnet.value.id,
            port_id=PortId(str(uuid5(_PORTS, f"{load_balancer_id} {wish.subnet.value.id}"))),
        )
        for wish, address in zip(further, addresses[1:], strict=True)
    )
    return AllocatedVip(vip=vip, port_owned=True, additional=additional)


def _check_subnet(subnet: LoopbackSubnet, number: int) -> _CheckedSubnet:
    """Raises Invalid naming the setting."""
    where = f"subnets[{number}]"
    for field, text in (("id", subnet.id), ("network_id", subnet.network_id)):
        if not _UUID.fullmatch(text):
            raise Invalid(f"{where}.{field}", f"{text!r} is not a UUID in lower case")
    network = _parse_network(f"{where}.cidr", subnet.cidr)
    pool = _parse_network(f"{where}.pool", subnet.pool)
    if not _is_local(network):
        raise Invalid(
            f"{where}.cidr",
            f"{network} is not in {_LOOPBACK}, ::1/128 or fc00::/7; other addresses need another network driver",
        )
    if not _lies_in(pool, network) or (pool.version == 4 and pool.prefixlen > 24):
        raise Invalid(f"{where}.pool", f"{pool} must lie in {network} and, of IPv4, have 256 addresses or more")
    value = Subnet(id=SubnetId(subnet.id), network_id=NetworkId(subnet.network_id), name=subnet.name, cidr=str(network))
    return _CheckedSubnet(value, network, pool)


def _is_local(network: _Network) -> bool:
    return any(_lies_in(network, whole) for whole in (_LOOPBACK, *_LOCAL_V6))


def _lies_in(network: _Network, whole: _Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(whole, IPv4Network) and network.subnet_of(whole)
    return isinstance(whole, IPv6Network) and network.subnet_of(whole)


def _require_inside(address: _Address | None, subnet: _CheckedSubnet, field: str) -> None:
    """Raises Invalid for an address that the subnet does not have to give."""
    if address is None:
        return
    network = subnet.network
    if address not in network:
        raise Invalid(field, f"{address} is not in subnet {subnet.value.id} ({subnet.value.cidr})")
    if network.num_addresses > 1 and address in (network.network_address, network.broadcast_address):
        raise Invalid(field, f"{address} stands for all of subnet {subnet.value.id}; choose one inside it")


def _parse_network(field: str, text: str) -> _Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise Invalid(field, f"{text!r} is not a network: {error}") from error


def _parse_address(text: str, field: str) -> _Address:
    try:
        return ip_address(text)
    except ValueError as error:
        raise Invalid(field, f"{text!r} is not an IP address") from error


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
