"""The network driver whose networks are bridges of this machine: VIPs, and ports for amphorae in network namespaces
(compute `netns`) and virtual machines (compute `qemu`).

A network is a Linux bridge; compute hangs links on it that bear the port's name (Port.link). Amphorae are managed over a
network of their own, on which this machine has the first address: agents are asked from there, heartbeats go there.

What is given is on record (records.py), and the kernel is brought to it: bridges and filters are made whenever a port is
asked for, so that a restart of the machine, after which they are gone, heals with its amphorae.
Next: addresses.py and filters.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import ClassVar, TypeVar

from msgspec.structs import replace

from frontinus.drivers import iproute
from frontinus.drivers.network.bridge import addresses, filters
from frontinus.drivers.network.bridge.records import (
    NetworkRecord,
    PortRecord,
    Records,
    State,
    SubnetRecord,
    usable_range,
)
from frontinus.drivers.network.interface import KEEPS_CONNECTIONS, PORTS, NetworkDriver
from frontinus.model.belongings import Belonging, BelongingKind
from frontinus.model.errors import Invalid
from frontinus.model.findings import Finding
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId
from frontinus.model.network import AllocatedVip, Subnet, VipRequest
from frontinus.model.ports import Port, PortPurpose, PortRequest
from frontinus.model.tree import AdditionalVip, Vip

_T = TypeVar("_T")
_BRIDGE_PREFIX = "frbr"
_ON_RECORD = "on record in the state directory"


@dataclass(frozen=True, kw_only=True)
class BridgeSettings:
    """Where the records are, and how amphorae are managed; [driver_options.bridge] in the configuration file."""

    state_dir: Path
    """Records live in <state_dir>/networks. Its name is part of the names of filters: do not move it while amphorae run."""

    management_cidr: str = "172.31.224.0/19"
    """The network on which agents listen and to which heartbeats go. This machine has its first address. No other
    network that this machine or an amphora reaches may overlap with it: choose another one where that is so."""

    management_mtu: int = 1500
    """Of that network."""

    def check(self) -> None:
        """Raises Invalid naming the setting that cannot be."""
        try:
            network = ip_network(self.management_cidr)
        except ValueError as error:
            raise Invalid("management_cidr", f"{self.management_cidr!r} is not a network: {error}") from error
        if network.num_addresses < 16:
            raise Invalid("management_cidr", f"{network} has not the 16 addresses that it needs at least")
        if not 1280 <= self.management_mtu <= 65_535:
            raise Invalid("management_mtu", f"must be from 1280 to 65535, not {self.management_mtu}")


class BridgeNetwork(NetworkDriver):
    """See drivers/network/interface.py, whose docstrings are the law."""

    name: ClassVar[str] = "bridge"
    features: ClassVar[frozenset[str]] = frozenset({"additional_vips", PORTS, KEEPS_CONNECTIONS})
    hangs_on: ClassVar[str] = "bridge"
    Settings: ClassVar[type[BridgeSettings]] = BridgeSettings

    def __init__(self, settings: BridgeSettings) -> None:
        """Touches nothing. Raises Invalid naming the setting that cannot be."""
        settings.check()
        self._settings = settings
        self._state_dir = settings.state_dir.expanduser().resolve()
        self._records = Records(self._state_dir / "networks")
        self._table = f"frontinus_{sha256(str(self._state_dir).encode()).hexdigest()[:8]}"
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="bridge-network")

    @property
    def records(self) -> Records:
        """For `frontinus network …`."""
        return self._records

    @classmethod
    def controller_address(cls, settings: BridgeSettings) -> str:
        """The address of this machine at which amphorae reach it."""
        return str(usable_range(ip_network(settings.management_cidr))[0])

    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        def work() -> AllocatedVip:
            with self._records.changing() as state:
                return addresses.allocate(state, load_balancer_id, request)

        return await self._in_thread(work)

    async def preview_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        return addresses.allocate(self._records.read(), load_balancer_id, request)

    async def release_vip(
        self,
        load_balancer_id: LoadBalancerId,
        vip: Vip,
        *,
        port_owned: bool,
        additional: tuple[AdditionalVip, ...] = (),
    ) -> None:
        gone = {vip.address, *(x.address for x in additional)}

        def work() -> None:
            with self._records.changing() as state:
                state.vips = [x for x in state.vips if x.load_balancer_id != load_balancer_id or x.address not in gone]

        await self._in_thread(work)

    async def get_subnet(self, subnet_id: SubnetId) -> Subnet:
        return addresses.subnet_of(self._records.read(), subnet_id, "subnet_id").as_subnet()

    async def list_subnets(self) -> tuple[Subnet, ...]:
        state = self._records.read()
        hidden = {x.id for x in state.networks.values() if x.for_management}
        return tuple(x.as_subnet() for x in state.subnets.values() if x.network_id not in hidden)

    async def list_owned(self) -> tuple[LoadBalancerId, ...]:
        state = self._records.read()
        holders = (*(x.load_balancer_id for x in state.vips), *(x.load_balancer_id for x in state.ports.values()))
        return tuple(dict.fromkeys(holders))

    async def list_belongings(self) -> tuple[Belonging, ...]:
        state = self._records.read()
        vips = (
            Belonging(kind=BelongingKind.ADDRESS, name=x.address, proof=_ON_RECORD, load_balancer_id=x.load_balancer_id)
            for x in state.vips
        )
        ports = (
            Belonging(
                kind=BelongingKind.PORT,
                name=" ".join((x.port.link, x.port.purpose.value, *(y.address for y in x.port.addresses))),
                proof=_ON_RECORD,
                amphora_id=x.port.amphora_id,
            )
            for x in state.ports.values()
        )
        return (*vips, *ports)

    async def release_owned(self, load_balancer_id: LoadBalancerId) -> None:
        state = self._records.read()
        for record in [x for x in state.ports.values() if x.load_balancer_id == load_balancer_id]:
            await self.delete_port(record.port.amphora_id, record.port.id)

        def work() -> None:
            with self._records.changing() as state:
                state.vips = [x for x in state.vips if x.load_balancer_id != load_balancer_id]

        await self._in_thread(work)

    # Ports

    async def create_port(self, request: PortRequest) -> Port:
        return await self._in_thread(lambda: self._create_port(request))

    async def delete_port(self, amphora_id: AmphoraId, port_id: PortId) -> None:
        await self._in_thread(lambda: self._delete_port(port_id))

    async def list_ports(self, amphora_id: AmphoraId) -> tuple[Port, ...]:
        return tuple(x.port for x in self._records.read().ports.values() if x.port.amphora_id == amphora_id)

    async def list_port_owners(self) -> tuple[AmphoraId, ...]:
        return tuple(dict.fromkeys(x.port.amphora_id for x in self._records.read().ports.values()))

    async def dismantle(self) -> None:
        await self._in_thread(self._dismantle)

    async def examine(self) -> tuple[Finding, ...]:
        return await self._in_thread(lambda: tuple(iproute.examine("nft")))

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    # What the methods do, in a thread

    def _create_port(self, request: PortRequest) -> Port:
        with self._records.changing() as state:
            network, subnets = self._wanted(state, request)
            port_id = PortId(addresses.derived_id(request.amphora_id, request.purpose, network.id))
            before = state.ports.get(port_id)
            kept = () if before is None else before.port.addresses
            if before is not None:
                # Those that it keeps are not to be given to it anew.
                state.ports[port_id] = replace(before, port=replace(before.port, addresses=()))
            port = Port(
                id=port_id,
                amphora_id=request.amphora_id,
                purpose=request.purpose,
                network_id=network.id,
                mac=_mac(port_id),
                mtu=network.mtu,
                addresses=addresses.port_addresses(state, port_id, subnets, kept),
                attachment=network.bridge,
                allowed=request.allowed,
            )
            state.ports[port_id] = PortRecord(load_balancer_id=request.load_balancer_id, port=port)
            on_network = state.subnets_of(network.id)
        make_bridge(network, on_network)
        sent_from = (*(x.address for x in port.addresses), *request.vips)
        script = filters.only_as(self._table, port.link, port.mac, sent_from)
        if request.purpose is not PortPurpose.MANAGEMENT:
            script += filters.guard(self._table, port.link, port.allowed)
        iproute.filter_with(script)
        return port

    def _delete_port(self, port_id: PortId) -> None:
        record = self._records.read().ports.get(port_id)
        if record is None:
            return
        iproute.filter_with(filters.forget(self._table, record.port.link))
        with self._records.changing() as state:
            state.ports.pop(port_id, None)
            network = state.networks[record.port.network_id]
            is_last = not any(x.port.network_id == network.id for x in state.ports.values())
            if network.for_management and is_last:
                # Made with the first amphora, gone with the last. Under the lock: nobody hangs one on it meanwhile.
                remove_bridge(network)

    def _dismantle(self) -> None:
        with self._records.changing() as state:
            state.ports.clear()
            for network in state.networks.values():
                if network.owns_bridge:
                    remove_bridge(network)
            if state.networks:
                iproute.filter_with(filters.remove(self._table))

    def _wanted(self, state: State, request: PortRequest) -> tuple[NetworkRecord, list[SubnetRecord]]:
        """The network and the subnets of a request. Raises Invalid naming what does not exist."""
        if request.purpose is PortPurpose.MANAGEMENT:
            return self._management(state)
        network = None if request.network_id is None else state.networks.get(request.network_id)
        if network is None or network.for_management:
            raise Invalid("network_id", f"network {request.network_id} does not exist")
        subnets = [addresses.subnet_of(state, x, "subnet_id") for x in request.subnet_ids]
        for subnet in subnets:
            if subnet.network_id != network.id:
                raise Invalid("subnet_id", f"subnet {subnet.id} is not on network {network.id}")
        return network, subnets

    def _management(self, state: State) -> tuple[NetworkRecord, list[SubnetRecord]]:
        """The management network, made on first use."""
        cidr = str(ip_network(self._settings.management_cidr))
        network_id = NetworkId(addresses.derived_id("management", str(self._state_dir), cidr))
        if network_id not in state.networks:
            state.networks[network_id] = NetworkRecord(
                id=network_id,
                name="management",
                bridge=bridge_name(network_id),
                mtu=self._settings.management_mtu,
                for_management=True,
            )
            first, last = usable_range(ip_network(cidr))
            subnet = SubnetRecord(
                id=SubnetId(addresses.derived_id("management", network_id)),
                network_id=network_id,
                name="management",
                cidr=cidr,
                first=str(first),
                last=str(last),
                host_address=str(first),
            )
            state.subnets[subnet.id] = subnet
        return state.networks[network_id], state.subnets_of(network_id)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def bridge_name(network_id: NetworkId) -> str:
    """15 characters is the most that Linux takes."""
    return _BRIDGE_PREFIX + network_id.replace("-", "")[:11]


def make_bridge(network: NetworkRecord, subnets: list[SubnetRecord]) -> None:
    """The bridge is there and up, and this machine has the addresses on it that it shall have. Raises Retry."""
    if not iproute.link_exists(network.bridge) and network.owns_bridge:
        with suppress(iproute.Refused):  # somebody was quicker
            # No learning of others' spanning trees, no waiting before a port forwards, no snooping that swallows
            # neighbour solicitations for addresses that nobody asked a querier about.
            words = "type bridge forward_delay 0 stp_state 0 mcast_snooping 0"
            iproute.change([["link", "add", "name", network.bridge, *words.split()]])
    if network.owns_bridge:
        iproute.change([["link", "set", "dev", network.bridge, "mtu", str(network.mtu), "up"]])
    held = {
        x["local"]
        for row in iproute.ask("address", "show", "dev", network.bridge)
        for x in row.get("addr_info", ())
        if "local" in x
    }
    for subnet in subnets:
        if subnet.host_address is not None and subnet.host_address not in held:
            interface = ip_interface(f"{subnet.host_address}/{subnet.network.prefixlen}")
            flags = ["nodad"] if interface.version == 6 else []
            command = ["address", "replace", str(interface), "dev", network.bridge, *flags]
            iproute.change([command], family=interface.version)


def remove_bridge(network: NetworkRecord) -> None:
    """The bridge is not there any more; nothing may hang on it. Raises Retry."""
    if iproute.link_exists(network.bridge):
        iproute.change([["link", "delete", "dev", network.bridge]])


def _mac(port_id: PortId) -> str:
    """Locally administered (the second hexadecimal digit), and the same for ever."""
    digest = sha256(port_id.encode()).digest()
    return ":".join(f"{x:02x}" for x in (0x02, *digest[:5]))
