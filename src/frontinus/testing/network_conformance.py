"""Examines a network driver against drivers/network/interface.py. How to use it: exam.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import msgspec

from frontinus.drivers.network.interface import NetworkDriver
from frontinus.model.errors import Conflict, Invalid
from frontinus.model.ids import LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId, new_id
from frontinus.model.network import AllocatedVip, Subnet, VipRequest
from frontinus.model.tree import AdditionalVip, Vip
from frontinus.testing.exam import Checks, NotExaminable, Report, expect, hold, require

PROJECT = ProjectId("conformance")


@dataclass(frozen=True)
class NetworkBench:
    """`subnet_id` is a subnet to try on, with a dozen free addresses; None: the first that list_subnets names.
    `further_subnet_ids` are others on its network, where the driver does not list them itself; `project_id` is a project
    that may use them, where the network knows projects; `management_network` another network for management than that of the
    settings, for a driver that can be asked for one. `vanish` removes a port of a VIP behind the driver's back, where ports are
    seen by others than the driver."""

    factory: Callable[[], NetworkDriver]
    subnet_id: SubnetId | None = None
    further_subnet_ids: tuple[SubnetId, ...] = ()
    project_id: ProjectId = PROJECT
    management_network: NetworkId | None = None
    vanish: Callable[[PortId], Awaitable[None]] | None = None


async def examine(bench: NetworkBench, *, limit: float = 60.0) -> Report:
    """Run every check; each may take `limit` seconds."""
    return await hold(CHECKS, bench, limit)


_checks: Checks[NetworkBench] = Checks()
_where_others_see_ports: Checks[NetworkBench] = Checks()


@dataclass(frozen=True)
class Candidate:
    """A driver on trial, the subnet to try on, and the load balancers that the check uses."""

    driver: NetworkDriver
    subnet: Subnet
    used: list[LoadBalancerId]
    project_id: ProjectId = PROJECT
    further_subnet_ids: tuple[SubnetId, ...] = ()

    async def subnets_on_network(self) -> tuple[Subnet, ...]:
        """Those on the network of the first, with that one."""
        listed = {x.id: x for x in await self.driver.list_subnets()}
        named = [await self.driver.get_subnet(x) for x in self.further_subnet_ids]
        known = {**listed, self.subnet.id: self.subnet, **{x.id: x for x in named}}
        return tuple(x for x in known.values() if x.network_id == self.subnet.network_id)

    def fresh_id(self) -> LoadBalancerId:
        load_balancer_id = LoadBalancerId(new_id())
        self.used.append(load_balancer_id)
        return load_balancer_id

    async def allocate(self, load_balancer_id: LoadBalancerId, address: str | None = None) -> AllocatedVip:
        request = VipRequest(subnet_id=self.subnet.id, address=address)
        return await self.driver.allocate_vip(load_balancer_id, self.project_id, request)

    async def a_free_address(self) -> str:
        holder = self.fresh_id()
        allocated = await self.allocate(holder)
        await self.driver.release_vip(holder, allocated.vip, port_owned=allocated.port_owned)
        return allocated.vip.address


@asynccontextmanager
async def candidate_of(bench: NetworkBench) -> AsyncIterator[Candidate]:
    driver = bench.factory()
    used: list[LoadBalancerId] = []
    try:
        if bench.subnet_id is not None:
            subnet = await driver.get_subnet(bench.subnet_id)
        else:
            subnets = await driver.list_subnets()
            if not subnets:
                raise NotExaminable("the bench has no `subnet_id`, and the driver lists no subnets")
            subnet = subnets[0]
        yield Candidate(driver, subnet, used, bench.project_id, bench.further_subnet_ids)
    finally:
        for load_balancer_id in used:
            await driver.release_owned(load_balancer_id)
        await driver.close()


@_checks.claim("list_subnets and get_subnet tell the same of a subnet")
async def subnets_are_told_alike(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        for subnet in await candidate.driver.list_subnets():
            shown = await candidate.driver.get_subnet(subnet.id)
            require(shown == subnet, f"listed {subnet}, shown {shown}")


@_checks.claim("get_subnet raises Invalid naming the subnet when it does not exist")
async def unknown_subnet_is_invalid(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        missing = SubnetId(new_id())
        error = await expect(Invalid, candidate.driver.get_subnet(missing), "an unknown subnet")
        require(missing in str(error), f"the message does not name it: {error}")


@_checks.claim("allocate_vip gives an address of the subnet that was asked for")
async def address_is_of_the_subnet(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        vip = (await candidate.allocate(candidate.fresh_id())).vip
        require(vip.subnet_id == candidate.subnet.id, f"it is on subnet {vip.subnet_id}")
        require(vip.network_id == candidate.subnet.network_id, f"it is on network {vip.network_id}")
        require(ip_address(vip.address) in ip_network(candidate.subnet.cidr), f"{vip.address} is outside")
        require(vip.port_id, "it has no port id")


@_checks.claim("a network is enough: the driver finds a subnet on it")
async def network_is_enough(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        request = VipRequest(network_id=candidate.subnet.network_id)
        allocated = await candidate.driver.allocate_vip(candidate.fresh_id(), candidate.project_id, request)
        require(allocated.vip.network_id == candidate.subnet.network_id, f"it is on {allocated.vip.network_id}")


@_checks.claim("allocate_vip repeated for one load balancer gives the same answer, also after a restart")
async def allocation_repeats(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        load_balancer_id, other = candidate.fresh_id(), bench.factory()
        first = await candidate.allocate(load_balancer_id)
        again = await candidate.allocate(load_balancer_id)
        require(again == first, f"first {first}, then {again}")
        try:
            request = VipRequest(subnet_id=candidate.subnet.id)
            after = await other.allocate_vip(load_balancer_id, candidate.project_id, request)
        finally:
            await other.close()
        require(after == first, f"first {first}, after a restart {after}")


@_checks.claim("preview_vip tells what allocate_vip would give or refuse, and takes nothing")
async def a_preview_takes_nothing(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        load_balancer_id, other = candidate.fresh_id(), candidate.fresh_id()
        request = VipRequest(subnet_id=candidate.subnet.id)
        foreseen = await candidate.driver.preview_vip(load_balancer_id, candidate.project_id, request)
        require(load_balancer_id not in await candidate.driver.list_owned(), "it is on record")
        by_address = VipRequest(subnet_id=candidate.subnet.id, address=foreseen.vip.address)
        require(
            await candidate.driver.preview_vip(other, candidate.project_id, by_address) is not None,
            "its address is taken",
        )
        given = await candidate.driver.allocate_vip(other, candidate.project_id, by_address)
        require(
            given.vip.address == foreseen.vip.address, f"foreseen {foreseen.vip.address}, given {given.vip.address}"
        )
        again = await candidate.driver.preview_vip(load_balancer_id, candidate.project_id, request)
        require(again.vip.address != given.vip.address, "it foresees an address that is taken")
        await expect(
            Conflict,
            candidate.driver.preview_vip(load_balancer_id, candidate.project_id, by_address),
            "a taken address",
        )
        unknown = VipRequest(subnet_id=SubnetId(new_id()))
        await expect(
            Invalid, candidate.driver.preview_vip(load_balancer_id, candidate.project_id, unknown), "an unknown subnet"
        )


@_checks.claim("two calls at once for one load balancer get one address")
async def racing_calls_get_one_address(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        load_balancer_id = candidate.fresh_id()
        answers = await asyncio.gather(*(candidate.allocate(load_balancer_id) for _ in range(4)))
        addresses = {answer.vip.address for answer in answers}
        require(len(addresses) == 1, f"they got {sorted(addresses)}")


@_checks.claim("two load balancers never get one address")
async def addresses_are_never_shared(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        ids = [candidate.fresh_id() for _ in range(8)]
        answers = await asyncio.gather(*(candidate.allocate(load_balancer_id) for load_balancer_id in ids))
        addresses = {answer.vip.address for answer in answers}
        require(len(addresses) == len(ids), f"{len(ids)} load balancers share {len(addresses)} addresses")


@_checks.claim("an address that is asked for is the one that is given")
async def asked_address_is_given(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        holders = [candidate.fresh_id() for _ in range(3)]
        given = [await candidate.allocate(holder) for holder in holders]
        for holder, allocated in zip(holders, given, strict=True):
            await candidate.driver.release_vip(holder, allocated.vip, port_owned=allocated.port_owned)
        # The last first: a driver that gives whatever is free would give another.
        for address in [allocated.vip.address for allocated in reversed(given)]:
            load_balancer_id = candidate.fresh_id()
            allocated = await candidate.allocate(load_balancer_id, address)
            require(allocated.vip.address == address, f"asked for {address}, got {allocated.vip.address}")
            again = await candidate.allocate(load_balancer_id, address)
            require(again == allocated, f"first {allocated}, then {again}")


@_checks.claim("Conflict for an address taken; nothing is left behind")
async def taken_address_is_a_conflict(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        holder, late = candidate.fresh_id(), candidate.fresh_id()
        held = await candidate.allocate(holder)
        await expect(Conflict, candidate.allocate(late, held.vip.address), "an address taken")
        require(late not in await candidate.driver.list_owned(), "list_owned names who got nothing")
        again = await candidate.allocate(holder)
        require(again == held, f"the holder had {held}, and has {again}")
        allocated = await candidate.allocate(late)
        require(allocated.vip.address != held.vip.address, "both have the address now")


@_checks.claim("two load balancers that ask for one address at once: one gets it, one a Conflict")
async def racing_for_one_address(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        address, ids = await candidate.a_free_address(), [candidate.fresh_id() for _ in range(3)]
        answers = await asyncio.gather(*(candidate.allocate(x, address) for x in ids), return_exceptions=True)
        winners = [answer for answer in answers if isinstance(answer, AllocatedVip)]
        conflicts = [answer for answer in answers if isinstance(answer, Conflict)]
        require(len(winners) == 1, f"{len(winners)} got it")
        require(len(conflicts) == len(ids) - 1, f"they heard {answers!r}")


@_checks.claim("Invalid for an address outside the subnet, and for what is no address; nothing is left behind")
async def address_outside_is_invalid(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        inside = ip_network(candidate.subnet.cidr)
        outside = "192.0.2.77" if ip_address("192.0.2.77") not in inside else "203.0.113.77"
        other_family = "2001:db8:ffff::1" if inside.version == 4 else "192.0.2.77"
        for address in (outside, other_family, "one.example.org", "", "10.0.0.1/8"):
            load_balancer_id = candidate.fresh_id()
            error = await expect(Invalid, candidate.allocate(load_balancer_id, address), f"address {address!r}")
            require(isinstance(error, Invalid) and error.field, "the error names no field")
            require(load_balancer_id not in await candidate.driver.list_owned(), f"{address!r} left something behind")


@_checks.claim("Invalid for an unknown port, network or subnet, and when none is named; nothing is left behind")
async def unknown_references_are_invalid(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        for request in (
            VipRequest(port_id=PortId(new_id())),
            VipRequest(network_id=NetworkId(new_id())),
            VipRequest(subnet_id=SubnetId(new_id())),
            VipRequest(network_id=candidate.subnet.network_id, subnet_id=SubnetId(new_id())),
            VipRequest(),
        ):
            load_balancer_id = candidate.fresh_id()
            call = candidate.driver.allocate_vip(load_balancer_id, candidate.project_id, request)
            await expect(Invalid, call, f"{request}")
            require(load_balancer_id not in await candidate.driver.list_owned(), f"{request} left something behind")


@_checks.claim("list_owned names who holds an address, also after a restart")
async def list_owned_names_holders(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        holder, never, other = candidate.fresh_id(), candidate.fresh_id(), bench.factory()
        await candidate.allocate(holder)
        try:
            owned = await other.list_owned()
        finally:
            await other.close()
        require(owned.count(holder) == 1, f"it names the holder {owned.count(holder)} times")
        require(never not in owned, "it names one that holds nothing")


@_checks.claim("list_belongings tells each address that is held, and whose it is")
async def belongings_are_what_is_held(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        holder, former = candidate.fresh_id(), candidate.fresh_id()
        await candidate.allocate(holder)
        gone = await candidate.allocate(former)
        await candidate.driver.release_vip(former, gone.vip, port_owned=gone.port_owned)
        told = await candidate.driver.list_belongings()
        require(any(x.load_balancer_id == holder for x in told), "it tells nothing of what is held")
        require(all(x.load_balancer_id != former for x in told), "it tells of what was given back")
        require(
            all(x.name and x.proof for x in told), "it tells of something without a name, or without saying whose it is"
        )


@_checks.claim("release_vip gives the address back, to whoever asks next; released ones are done already")
async def released_address_is_free(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        first, second = candidate.fresh_id(), candidate.fresh_id()
        held = await candidate.allocate(first)
        await candidate.driver.release_vip(first, held.vip, port_owned=held.port_owned)
        require(first not in await candidate.driver.list_owned(), "list_owned names who gave it back")
        passed_on = await candidate.allocate(second, held.vip.address)
        require(passed_on.vip.address == held.vip.address, f"the next one got {passed_on.vip.address}")
        # Late, as after a crash between releasing and recording it: the address is another's by now.
        await candidate.driver.release_vip(first, held.vip, port_owned=held.port_owned)
        require(second in await candidate.driver.list_owned(), "a late release took the address from its new holder")
        third = candidate.fresh_id()
        await expect(Conflict, candidate.allocate(third, held.vip.address), "an address that a late release named")


@_checks.claim("release_owned gives back whatever is held; nothing held is done already")
async def release_owned_gives_all_back(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        holder, neighbour = candidate.fresh_id(), candidate.fresh_id()
        held = await candidate.allocate(holder)
        await candidate.allocate(neighbour)
        await candidate.driver.release_owned(holder)
        await candidate.driver.release_owned(holder)
        owned = await candidate.driver.list_owned()
        require(holder not in owned, "list_owned names it still")
        require(neighbour in owned, "its neighbour lost its address")
        await candidate.allocate(candidate.fresh_id(), held.vip.address)


@_checks.claim("a crash in the middle of an allocation leaves what repeating it completes and release_owned removes")
async def interrupted_allocation_is_found(bench: NetworkBench) -> None:
    for turns in (1, 2, 3, 5):
        async with candidate_of(bench) as candidate:
            load_balancer_id, dying = candidate.fresh_id(), bench.factory()
            request = VipRequest(subnet_id=candidate.subnet.id)
            task = asyncio.ensure_future(dying.allocate_vip(load_balancer_id, candidate.project_id, request))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await dying.close()
            address = (await candidate.allocate(load_balancer_id)).vip.address
            require((await candidate.allocate(load_balancer_id)).vip.address == address, "the address changed")
            await candidate.driver.release_owned(load_balancer_id)
            require(load_balancer_id not in await candidate.driver.list_owned(), "something is held still")


@_checks.claim("with the feature additional_vips, each further VIP is on its own subnet, and repeats with the first")
async def additional_vips_are_given(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        load_balancer_id, request = candidate.fresh_id(), await _with_second_subnet(candidate)
        first = await candidate.driver.allocate_vip(load_balancer_id, candidate.project_id, request)
        require(len(first.additional) == 1, f"asked for one more, got {len(first.additional)}")
        further, wanted = first.additional[0], await candidate.driver.get_subnet(request.additional[0].subnet_id)
        require(further.subnet_id == wanted.id, f"it is on subnet {further.subnet_id}")
        require(ip_address(further.address) in ip_network(wanted.cidr), f"{further.address} is outside {wanted.cidr}")
        require(further.port_id and further.port_id != first.vip.port_id, "it has no port of its own")
        again = await candidate.driver.allocate_vip(load_balancer_id, candidate.project_id, request)
        require(again == first, f"first {first}, then {again}")


@_checks.claim("an additional VIP that cannot be given leaves the first one behind neither")
async def additional_vips_are_all_or_none(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        request = await _with_second_subnet(candidate)
        holder, late = candidate.fresh_id(), candidate.fresh_id()
        held = (await candidate.driver.allocate_vip(holder, candidate.project_id, request)).additional[0]
        taken = msgspec.structs.replace(request, additional=(_asked(held.subnet_id, held.address),))
        await expect(
            Conflict, candidate.driver.allocate_vip(late, candidate.project_id, taken), "an additional address taken"
        )
        same = msgspec.structs.replace(request, additional=(_asked(candidate.subnet.id),))
        await expect(
            Invalid, candidate.driver.allocate_vip(late, candidate.project_id, same), "the first VIP's subnet again"
        )
        missing = msgspec.structs.replace(request, additional=(_asked(SubnetId(new_id())),))
        await expect(Invalid, candidate.driver.allocate_vip(late, candidate.project_id, missing), "an unknown subnet")
        require(late not in await candidate.driver.list_owned(), "list_owned names who got nothing")


@_checks.claim("additional VIPs are given back with the first, by either release")
async def additional_vips_are_released(bench: NetworkBench) -> None:
    async with candidate_of(bench) as candidate:
        request = await _with_second_subnet(candidate)
        for by_owner in (False, True):
            load_balancer_id = candidate.fresh_id()
            given = await candidate.driver.allocate_vip(load_balancer_id, candidate.project_id, request)
            if by_owner:
                await candidate.driver.release_owned(load_balancer_id)
            else:
                await candidate.driver.release_vip(
                    load_balancer_id, given.vip, port_owned=given.port_owned, additional=given.additional
                )
            require(load_balancer_id not in await candidate.driver.list_owned(), "list_owned names it still")
            further = given.additional[0]
            again = msgspec.structs.replace(request, additional=(_asked(further.subnet_id, further.address),))
            next_one = candidate.fresh_id()
            await candidate.driver.allocate_vip(next_one, candidate.project_id, again)
            await candidate.driver.release_owned(next_one)


@_where_others_see_ports.claim(
    "VIPs whose ports somebody removed are given again at their addresses, and the answer tells the ports that they have"
)
async def vanished_vips_are_given_again(bench: NetworkBench) -> None:
    if bench.vanish is None:
        raise NotExaminable("the bench cannot remove a port (`vanish`)")
    async with candidate_of(bench) as candidate:
        holder, request = candidate.fresh_id(), await _with_second_subnet(candidate)
        first = await candidate.driver.allocate_vip(holder, candidate.project_id, request)
        before: tuple[Vip | AdditionalVip, ...] = (first.vip, *first.additional)
        for vip in before:
            require(vip.port_id is not None, f"{vip.address} has no port")
            await bench.vanish(PortId(vip.port_id or ""))
        held = VipRequest(
            subnet_id=first.vip.subnet_id,
            address=first.vip.address,
            additional=tuple(_asked(x.subnet_id, x.address) for x in first.additional),
        )
        given = await candidate.driver.allocate_vip(holder, candidate.project_id, held)
        after: tuple[Vip | AdditionalVip, ...] = (given.vip, *given.additional)
        require([x.address for x in after] == [x.address for x in before], f"they were {before}, and are {after}")
        require(
            not {x.port_id for x in after} & {x.port_id for x in before}, "it tells ports that are not there any more"
        )
        again = await candidate.driver.allocate_vip(holder, candidate.project_id, held)
        require(again == given, f"given {given}, then {again}")
        await candidate.driver.release_vip(holder, given.vip, port_owned=given.port_owned, additional=given.additional)
        require(holder not in await candidate.driver.list_owned(), "something is held still")


def _asked(subnet_id: SubnetId, address: str = "") -> AdditionalVip:
    return AdditionalVip(address=address, subnet_id=subnet_id)


async def _with_second_subnet(candidate: Candidate) -> VipRequest:
    """A request for a VIP on the bench's subnet and one more on another subnet of its network."""
    if "additional_vips" not in candidate.driver.features:
        raise NotExaminable("the driver does not have the feature additional_vips")
    for subnet in await candidate.subnets_on_network():
        if subnet.id != candidate.subnet.id:
            return VipRequest(subnet_id=candidate.subnet.id, additional=(_asked(subnet.id),))
    raise NotExaminable("neither driver nor bench know a second subnet on the network of the first")


CHECKS = _checks.all()

WHERE_OTHERS_SEE_PORTS = _where_others_see_ports.all()
"""Of a network whose ports others than the driver may remove; with a bench that has `vanish`."""
