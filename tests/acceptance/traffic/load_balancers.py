"""Cases of load balancers: which addresses they have, who may use them, how large they are. Each makes its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from tests.acceptance.support import free_port, processes
from tests.acceptance.test_vips import SUBNET_V6
from tests.acceptance.traffic.case import Decorator, Fields, Group
from tests.acceptance.traffic.stage import Stage, headers_of
from tests.integration.drivers.world import closed

LOAD_BALANCERS = Group("load balancers")

ADDRESS = "127.85.21.7"
MOST_CONNECTIONS = 100
"""HAProxy starts with no fewer. It counts descriptors, so there may be half as many again, but not more."""

LEAST_MEMORY = 32
"""MiB; with room for some six hundred connections."""


def case(*rows: str, **more: Any) -> Decorator:
    return LOAD_BALANCERS.case(*rows, **{"bare": True, **more})


async def made(stage: Stage, listener: Fields | None = None, **fields: Any) -> Fields:
    """A load balancer of the case's own over its members; clients of the stage ask this one."""
    stage.port = free_port()
    given = {"vip_subnet_id", "vip_network_id"} & fields.keys()
    where = {} if given else {"vip_subnet_id": await asyncio.to_thread(stage.theatre.api.subnet_id)}
    pool = {"name": "web", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": stage.members}
    wished = {"protocol": "HTTP", "protocol_port": stage.port, "default_pool": {"name": "web"}, **(listener or {})}
    load_balancer = await stage.create(
        "loadbalancers", "loadbalancer", **where, listeners=[wished], pools=[pool], **fields
    )
    stage.load_balancer_id, stage.address = load_balancer["id"], load_balancer["vip_address"]
    return load_balancer


async def end(stage: Stage) -> None:
    path = f"/v2/lbaas/loadbalancers/{stage.load_balancer_id}"
    assert (await asyncio.to_thread(stage.theatre.api.call, "DELETE", f"{path}?cascade=true"))[0] == 204
    await asyncio.to_thread(stage.theatre.api.gone, f"loadbalancers/{stage.load_balancer_id}")


@case("loadbalancer.admin_state_up[false]", "loadbalancer.admin_state_up[true]", "loadbalancer.pools")
async def a_disabled_load_balancer_does_not_listen(stage: Stage) -> None:
    await made(stage, admin_state_up=False)
    assert await stage.ask() == "refused"
    await stage.change(f"loadbalancers/{stage.load_balancer_id}", "loadbalancer", admin_state_up=True)
    assert await stage.ask() == "one"
    await stage.change(f"loadbalancers/{stage.load_balancer_id}", "loadbalancer", admin_state_up=False)
    assert await stage.ask() == "refused"
    await end(stage)


@case("loadbalancer.vip_address")
async def it_serves_at_the_address_that_was_asked_for(stage: Stage) -> None:
    await made(stage, vip_address=ADDRESS)
    assert await stage.ask(address=ADDRESS) == "one"
    await end(stage)
    assert await stage.ask(address=ADDRESS) == "refused"


@case("loadbalancer.vip_network_id", "loadbalancer.provider")
async def it_serves_on_the_network_that_was_asked_for(stage: Stage) -> None:
    subnets = (await asyncio.to_thread(stage.theatre.api.get, "/v2.0/subnets"))[1]["subnets"]
    load_balancer = await made(stage, vip_network_id=subnets[0]["network_id"], provider="amphora")
    assert load_balancer["provider"] == "amphora"
    assert await stage.ask() == "one"
    await end(stage)


@case("loadbalancer.vip_subnet_id")
async def a_vip_of_ipv6_serves_members_of_ipv4(stage: Stage) -> None:
    listener = {"insert_headers": {"X-Real-IP": "true"}, "allowed_cidrs": ["::1/128"]}
    load_balancer = await made(stage, listener, vip_subnet_id=SUBNET_V6)
    assert stage.address == "::1"
    assert await stage.ask() == "one"
    assert headers_of(stage.servers[0].requests[-1], "X-Real-IP") == ["::1"]
    path = f"listeners/{load_balancer['listeners'][0]['id']}"
    await stage.change(path, "listener", allowed_cidrs=["2001:db8::/32"])
    assert await stage.ask() == "refused"
    await end(stage)


@case("loadbalancer.additional_vips", servers=["http6"])
async def every_listener_is_on_every_vip(stage: Stage) -> None:
    load_balancer = await made(stage, additional_vips=[{"subnet_id": SUBNET_V6}])
    assert [x["ip_address"] for x in load_balancer["additional_vips"]] == ["::1"]
    assert (await stage.ask(), await stage.ask(address="::1")) == ("one", "one")
    await end(stage)


async def flavor(stage: Stage, **data: int) -> str:
    profile = await stage.create_offer(
        "flavorprofiles", "flavorprofile", name="sized", provider_name="amphora", flavor_data=json.dumps(data)
    )
    name = f"sized by {' and '.join(data)}"
    made = await stage.create_offer("flavors", "flavor", name=name, flavor_profile_id=profile["id"], enabled=True)
    return str(made["id"])


async def hold(stage: Stage, stack: contextlib.AsyncExitStack, count: int) -> None:
    """So many connections that ask for nothing."""
    for _ in range(count):
        _, writer = await asyncio.open_connection(stage.address, stage.port)
        stack.push_async_callback(closed, writer)


@case("loadbalancer.flavor_id")
async def a_flavor_says_how_many_connections_there_may_be(stage: Stage) -> None:
    await made(stage, {"protocol": "TCP"}, flavor_id=await flavor(stage, max_connections=MOST_CONNECTIONS))
    assert await stage.ask() == "one"
    async with contextlib.AsyncExitStack() as stack:
        await hold(stage, stack, MOST_CONNECTIONS - 1)
        assert await stage.ask() == "one"
        await hold(stage, stack, MOST_CONNECTIONS // 2 + 1)
        one_more = asyncio.create_task(stage.ask(within=20))
        assert not (await asyncio.wait({one_more}, timeout=0.3))[0]
    assert await one_more == "one"
    await end(stage)


@case("loadbalancer.flavor_id")
async def a_flavor_says_how_much_memory_there_is(stage: Stage) -> None:
    """The kernel knows it, and clients for whom there is no room wait, though the flavor lets many more connect."""
    sizes = {"max_memory": LEAST_MEMORY, "max_connections": 10_000}
    load_balancer = await made(stage, {"protocol": "TCP"}, flavor_id=await flavor(stage, **sizes))
    amphora_ids = await asyncio.to_thread(stage.theatre.api.amphorae, load_balancer["id"])
    told = [
        line.split()[3]
        for amphora_id in amphora_ids
        for process in processes(FRONTINUS_AMPHORA_ID=amphora_id)
        if "haproxy" in process.command
        for line in Path(f"/proc/{process.pid}/limits").read_text().splitlines()
        if line.startswith("Max data size")
    ]
    assert len(told) == 2, "master and worker"
    assert set(told) == {str(LEAST_MEMORY << 20)}
    assert await stage.ask() == "one"
    async with contextlib.AsyncExitStack() as stack:
        await hold(stage, stack, 400)
        assert await stage.ask() == "one"
        await hold(stage, stack, 300)
        one_more = asyncio.create_task(stage.ask(within=20))
        assert not (await asyncio.wait({one_more}, timeout=0.3))[0]
    assert await one_more == "one"
    await end(stage)
