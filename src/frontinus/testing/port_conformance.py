"""Examines the ports of a network driver (feature `ports`) against drivers/network/interface.py. How to use it: exam.py.

Beside network_conformance.py, which every network driver sits, and with its bench."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import msgspec
from msgspec.structs import replace

from frontinus.drivers.network.interface import MANAGEMENT_NETWORK, PORTS
from frontinus.model.errors import Invalid
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, SubnetId, new_id
from frontinus.model.network import Subnet
from frontinus.model.ports import AllowedTraffic, PortPurpose, PortRequest, TrafficProtocol
from frontinus.testing.exam import Checks, NotApplicable, NotExaminable, Report, expect, hold, require
from frontinus.testing.network_conformance import Candidate, NetworkBench, candidate_of


async def examine(bench: NetworkBench, *, limit: float = 60.0) -> Report:
    """Run every check; each may take `limit` seconds."""
    return await hold(CHECKS, bench, limit)


_checks: Checks[NetworkBench] = Checks()


@dataclass(frozen=True)
class _PortTrial:
    """The ports of one amphora of one load balancer, on trial."""

    candidate: Candidate
    amphora_id: AmphoraId
    load_balancer_id: LoadBalancerId

    def request(
        self,
        purpose: PortPurpose = PortPurpose.VIP,
        *,
        amphora_id: AmphoraId | None = None,
        subnets: tuple[Subnet, ...] | None = None,
        allowed: tuple[AllowedTraffic, ...] = (),
    ) -> PortRequest:
        on = (self.candidate.subnet,) if subnets is None else subnets
        is_management = purpose is PortPurpose.MANAGEMENT
        return PortRequest(
            amphora_id=amphora_id or self.amphora_id,
            load_balancer_id=self.load_balancer_id,
            project_id=self.candidate.project_id,
            purpose=purpose,
            network_id=None if is_management else on[0].network_id,
            subnet_ids=() if is_management else tuple(x.id for x in on),
            allowed=allowed,
        )


@asynccontextmanager
async def _port_trial(bench: NetworkBench) -> AsyncIterator[_PortTrial]:
    async with candidate_of(bench) as candidate:
        if PORTS not in candidate.driver.features:
            raise NotExaminable("the driver does not have the feature ports")
        yield _PortTrial(candidate, AmphoraId(new_id()), candidate.fresh_id())


_HTTP = AllowedTraffic(TrafficProtocol.TCP, 80)


@_checks.claim("create_port gives an address on each subnet, a MAC, and what was asked to be let in")
async def port_is_as_asked(bench: NetworkBench) -> None:
    async with _port_trial(bench) as trial:
        port = await trial.candidate.driver.create_port(trial.request(allowed=(_HTTP,)))
        require(port.amphora_id == trial.amphora_id and port.purpose is PortPurpose.VIP, f"it is {port}")
        require(port.network_id == trial.candidate.subnet.network_id, f"it is on network {port.network_id}")
        require(port.subnet_ids == {trial.candidate.subnet.id}, f"its addresses are {port.addresses}")
        network = ip_network(trial.candidate.subnet.cidr)
        for address in port.addresses:
            require(ip_address(address.address) in network, f"{address.address} is outside {network}")
            require(address.prefix_length == network.prefixlen, f"its prefix is {address.prefix_length}")
        require(len(port.mac.split(":")) == 6 and port.mtu > 0 and port.attachment, f"it is {port}")
        require(port.allowed == (_HTTP,), f"it lets in {port.allowed}")
        require(port.interface is None, "it tells an interface, which only the amphora knows")


@_checks.claim("create_port may be repeated, also after a restart: the port is the same")
async def port_repeats(bench: NetworkBench) -> None:
    async with _port_trial(bench) as trial:
        first = await trial.candidate.driver.create_port(trial.request())
        again = await trial.candidate.driver.create_port(trial.request())
        require(again == first, f"first {first}, then {again}")
        other = bench.factory()
        try:
            after = await other.create_port(trial.request())
            listed = await other.list_ports(trial.amphora_id)
        finally:
            await other.close()
        require(after == first, f"first {first}, after a restart {after}")
        require(listed == (first,), f"listed as {listed}")


@_checks.claim("a port is brought to what is asked; the addresses that it keeps stay the same")
async def port_is_brought_to_what_is_asked(bench: NetworkBench) -> None:
    async with _port_trial(bench) as trial:
        driver = trial.candidate.driver
        first = await driver.create_port(trial.request(allowed=(_HTTP,)))
        on_network = await trial.candidate.subnets_on_network()
        wide = await driver.create_port(trial.request(subnets=on_network))
        require((wide.id, wide.mac) == (first.id, first.mac), f"{first} became {wide}")
        require(wide.allowed == (), f"it still lets in {wide.allowed}")
        require(wide.subnet_ids == {x.id for x in on_network}, f"its addresses are {wide.addresses}")
        require(first.addresses[0] in wide.addresses, f"{first.addresses} became {wide.addresses}")
        narrow = await driver.create_port(trial.request())
        require(narrow.addresses == first.addresses, f"{first.addresses} became {narrow.addresses}")


@_checks.claim("no two ports share an address or a MAC, nor a port and a VIP an address")
async def port_addresses_are_never_shared(bench: NetworkBench) -> None:
    async with _port_trial(bench) as trial:
        driver = trial.candidate.driver
        others = [AmphoraId(new_id()) for _ in range(4)]
        vip, ports = await asyncio.gather(
            trial.candidate.allocate(trial.load_balancer_id),
            asyncio.gather(*(driver.create_port(trial.request(amphora_id=x)) for x in (trial.amphora_id, *others))),
        )
        addresses = [vip.vip.address, *(x.address for port in ports for x in port.addresses)]
        require(len(set(addresses)) == len(addresses), f"they share: {sorted(addresses)}")
        require(len({port.mac for port in ports}) == len(ports), "they share a MAC")


@_checks.claim("a management port needs no network named, and is another port than that of the VIP")
async def management_port_is_its_own(bench: NetworkBench) -> None:
    async with _port_trial(bench) as trial:
        driver = trial.candidate.driver
        vip = await driver.create_port(trial.request())
        management = await driver.create_port(trial.request(PortPurpose.MANAGEMENT))
        require(management.id != vip.id and management.addresses, f"it is {management}")
        ids = {x.id for x in await driver.list_ports(trial.amphora_id)}
        require(ids == {vip.id, management.id}, f"listed are {ids}")


@_checks.claim("Invalid for an unknown subnet or network; nothing is left behind")
async def port_on_unknown_subnet_is_invalid(bench: NetworkBench) -> None:
    async with _port_trial(bench) as trial:
        driver, known = trial.candidate.driver, trial.request()
        for request in (
            msgspec.structs.replace(known, subnet_ids=(SubnetId(new_id()),)),
            msgspec.structs.replace(known, network_id=NetworkId(new_id())),
        ):
            await expect(Invalid, driver.create_port(request), f"{request}")
            require(await driver.list_ports(trial.amphora_id) == (), "it left a port behind")


@_checks.claim("delete_port frees what the port held; an unknown one is done already")
async def deleted_port_is_gone(bench: NetworkBench) -> None:
    async with _port_trial(bench) as trial:
        driver = trial.candidate.driver
        port = await driver.create_port(trial.request())
        require(trial.amphora_id in await driver.list_port_owners(), "list_port_owners lacks its amphora")
        await driver.delete_port(trial.amphora_id, port.id)
        await driver.delete_port(trial.amphora_id, port.id)
        require(await driver.list_ports(trial.amphora_id) == (), "it is listed still")
        require(trial.amphora_id not in await driver.list_port_owners(), "list_port_owners names its amphora still")
        await trial.candidate.allocate(trial.load_balancer_id, port.addresses[0].address)


@_checks.claim("a port shows that its load balancer holds something, and release_owned takes it too")
async def ports_are_owned(bench: NetworkBench) -> None:
    async with _port_trial(bench) as trial:
        driver = trial.candidate.driver
        await driver.create_port(trial.request())
        require(trial.load_balancer_id in await driver.list_owned(), "list_owned lacks its load balancer")
        await driver.release_owned(trial.load_balancer_id)
        require(trial.load_balancer_id not in await driver.list_owned(), "list_owned names it still")
        require(await driver.list_ports(trial.amphora_id) == (), "the port is there still")


@_checks.claim("a crash while a port is made leaves what repeating it completes and release_owned removes")
async def interrupted_port_is_found(bench: NetworkBench) -> None:
    for turns in (1, 2, 3, 5):
        async with _port_trial(bench) as trial:
            dying = bench.factory()
            task = asyncio.create_task(dying.create_port(trial.request()))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await dying.close()
            port = await trial.candidate.driver.create_port(trial.request())
            require(await trial.candidate.driver.list_ports(trial.amphora_id) == (port,), "there is another one")


@_checks.claim(
    "with management_network a port for management is on the network that is asked for, and found again there"
)
async def management_is_where_it_is_asked_for(bench: NetworkBench) -> None:
    async with _port_trial(bench) as trial:
        driver = trial.candidate.driver
        if MANAGEMENT_NETWORK not in driver.features:
            raise NotApplicable("the driver does not have the feature management_network")
        if bench.management_network is None:
            raise NotExaminable("the bench has no `management_network`")
        await driver.require_management_network(bench.management_network, "a zone that names it")
        plain = trial.request(PortPurpose.MANAGEMENT)
        asked = replace(plain, amphora_id=AmphoraId(new_id()), network_id=bench.management_network)
        elsewhere, usual = await driver.create_port(asked), await driver.create_port(plain)
        require(elsewhere.network_id == bench.management_network, f"it is on network {elsewhere.network_id}")
        require(usual.network_id != bench.management_network, "without a wish it is there too")
        again = await driver.create_port(asked)
        require(again.id == elsewhere.id, f"{elsewhere.id} became {again.id}")
        for port in (elsewhere, usual):
            await driver.delete_port(port.amphora_id, port.id)


CHECKS = _checks.all()
