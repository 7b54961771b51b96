"""Examines how a compute driver attaches ports (feature `attach`) against drivers/compute/interface.py. How to use it:
exam.py.

Beside compute_conformance.py, which every compute driver sits, and with its bench."""

from __future__ import annotations

import asyncio

from frontinus.drivers.compute.interface import PlaceState
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, new_id
from frontinus.model.ports import PortPurpose
from frontinus.testing.compute_conformance import ComputeBench, candidate_of
from frontinus.testing.exam import Checks, NotExaminable, Report, expect, hold, require


async def examine(bench: ComputeBench, *, limit: float = 60.0) -> Report:
    """Run every check; each may take `limit` seconds."""
    return await hold(CHECKS, bench, limit)


_checks: Checks[ComputeBench] = Checks()


@_checks.claim("a place is built with its ports attached, and its agent's address is that of the management port")
async def place_is_built_with_its_ports(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        amphora_id = candidate.fresh_id()
        management = await candidate.port(amphora_id, PortPurpose.MANAGEMENT)
        await candidate.build(amphora_id)
        place = await candidate.until(amphora_id, PlaceState.RUNNING)
        require(place.management_address == management.addresses[0].address, f"it is {place.management_address}")
        require(place.attached == frozenset({management.id}), f"attached are {place.attached}")


@_checks.claim("attach gives a running place a link, detach takes it; both may be repeated, also after a restart")
async def ports_come_and_go(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        amphora_id = await candidate.built()
        before = (await candidate.driver.get(amphora_id)).attached or frozenset()
        vip, member = [await candidate.port(amphora_id, x) for x in (PortPurpose.VIP, PortPurpose.MEMBER)]
        for port in (vip, vip, member):
            await candidate.driver.attach(amphora_id, port)
        seen = (await candidate.driver.get(amphora_id)).attached
        require(seen == before | {vip.id, member.id}, f"attached are {seen}")
        other = bench.factory()
        try:
            await other.attach(amphora_id, vip)
            await other.detach(amphora_id, member)
            await other.detach(amphora_id, member)
            seen = (await other.get(amphora_id)).attached
        finally:
            await other.close()
        require(seen == before | {vip.id}, f"attached are {seen}")
        require((await candidate.driver.get(amphora_id)).state is PlaceState.RUNNING, "the place does not run any more")


@_checks.claim("a link that is gone is told, and attach or build brings it back")
async def lost_link_is_seen(bench: ComputeBench) -> None:
    if bench.unplug is None:
        raise NotExaminable("the bench has no `unplug`")
    async with candidate_of(bench) as candidate:
        amphora_id = await candidate.built()
        vip = await candidate.port(amphora_id, PortPurpose.VIP)
        ports = (*await candidate.management(amphora_id), vip)
        whole = frozenset(x.id for x in ports)
        await candidate.driver.attach(amphora_id, vip)
        await bench.unplug(amphora_id, vip)
        seen = (await candidate.driver.get(amphora_id)).attached
        require(seen == whole - {vip.id}, f"without its link, attached are {seen}")
        await candidate.driver.attach(amphora_id, vip)
        seen = (await candidate.driver.get(amphora_id)).attached
        require(seen == whole, f"attached again are {seen}")
        await bench.unplug(amphora_id, vip)
        boot = bench.boot(amphora_id, ports[0].addresses[0].address)
        await candidate.driver.build(amphora_id, LoadBalancerId(new_id()), boot, ports)
        seen = (await candidate.driver.get(amphora_id)).attached
        require(seen == whole, f"built again, attached are {seen}")


@_checks.claim("watch tells of a link that is lost, and not of one that was detached")
async def a_lost_link_is_told(bench: ComputeBench) -> None:
    if bench.unplug is None:
        raise NotExaminable("the bench has no `unplug`")
    async with candidate_of(bench) as candidate:
        told = asyncio.Queue[AmphoraId]()
        kept, lost = await candidate.built(), await candidate.built()
        ports = {x: await candidate.port(x, PortPurpose.VIP) for x in (kept, lost)}
        for amphora_id, port in ports.items():
            await candidate.driver.attach(amphora_id, port)
        watching = asyncio.create_task(candidate.driver.watch(told.put_nowait))
        try:
            await asyncio.sleep(0.1)
            if watching.done():
                raise NotExaminable("the driver sees nothing by itself")
            await candidate.driver.detach(kept, ports[kept])
            await bench.unplug(lost, ports[lost])
            async with asyncio.timeout(bench.patience):
                heard = await told.get()
            require(heard == lost, "told of a port that was detached")
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@_checks.claim("attach raises Retry when there is no place; then detach is done already")
async def nothing_is_attached_to_nowhere(bench: ComputeBench) -> None:
    async with candidate_of(bench) as candidate:
        amphora_id = candidate.fresh_id()
        port = await candidate.port(amphora_id, PortPurpose.VIP)
        await expect(Retry, candidate.driver.attach(amphora_id, port), "attach without a place")
        await candidate.driver.detach(amphora_id, port)
        state = (await candidate.driver.get(amphora_id)).state
        require(state is PlaceState.ABSENT, f"it is {state} now")


CHECKS = _checks.all()
