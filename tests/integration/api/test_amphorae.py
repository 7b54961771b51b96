"""Amphorae over HTTP: what is shown and filtered, and what is written down for the controller."""

from __future__ import annotations

from typing import Any

import pytest

from frontinus.model.enums import AmphoraStatus
from frontinus.model.heartbeat import Counters, ListenerTraffic
from frontinus.model.ids import AmphoraId, ControllerId, ListenerId, LoadBalancerId, ProjectId, new_id
from frontinus.model.tree import Amphora
from frontinus.store import convergence, health, leases

from tests.contract import facts
from tests.integration.api.world import COHORT, UNKNOWN, World

pytestmark = pytest.mark.integration

AMPHORAE = "/v2/octavia/amphorae"


async def an_amphora(world: World, load_balancer_id: str, status: AmphoraStatus = AmphoraStatus.ALLOCATED) -> Amphora:
    made = Amphora(
        id=AmphoraId(new_id()),
        load_balancer_id=LoadBalancerId(load_balancer_id),
        project_id=ProjectId("default"),
        status=status,
        compute_id="42",
        management_address="127.128.0.1",
        created_at=world.clock(),
    )
    owner = ControllerId("controller of amphora")
    now = world.clock()
    await world.store.transact(lambda tx: health.mark_due(tx, [made.load_balancer_id], now))
    claimed = await world.store.transact(
        lambda tx: leases.claim_due(tx, owner, COHORT, world.clock(), world.clock() - now, 10)
    )
    lease = next(x for x in claimed if x.load_balancer_id == load_balancer_id)
    await world.store.transact(lambda tx: convergence.add_amphora(tx, lease, made))
    for each in claimed:
        await world.store.transact(lambda tx, each=each: leases.release(tx, each))  # type: ignore[misc]
    return made


async def stored(world: World, amphora: Amphora) -> Amphora:
    tree = await world.tree(amphora.load_balancer_id)
    return next(x for x in tree.amphorae if x.id == amphora.id)


async def shown(world: World, query: str = "") -> list[Any]:
    answer = await world.call("GET", f"{AMPHORAE}{query}")
    assert answer.status == 200, answer.body
    assert answer.json["amphorae_links"] == []
    return list(answer.json["amphorae"])


async def test_an_amphora_is_shown_with_every_attribute_of_the_contract(world: World) -> None:
    load_balancer_id = await world.load_balancer()
    amphora = await an_amphora(world, load_balancer_id)
    one = (await world.call("GET", f"{AMPHORAE}/{amphora.id}")).one("amphora")
    assert set(one) == set(facts.fields("amphora"))
    vip = (await world.tree(load_balancer_id)).load_balancer.vip
    assert (one["ha_ip"], one["ha_port_id"], one["lb_network_ip"]) == (vip.address, vip.port_id, "127.128.0.1")
    assert (one["role"], one["status"], one["vrrp_priority"]) == ("STANDALONE", "ALLOCATED", None)
    assert await shown(world) == [one]
    assert (await world.call("GET", f"{AMPHORAE}/{UNKNOWN}")).status == 404


async def test_amphorae_are_filtered_by_what_the_contract_names(world: World) -> None:
    amphora = await an_amphora(world, await world.load_balancer())
    await an_amphora(world, await world.load_balancer(), AmphoraStatus.BOOTING)
    (one,) = await shown(world, f"?loadbalancer_id={amphora.load_balancer_id}")
    for name in facts.resources()["filterable"]["amphorae"]:
        name = name.removesuffix(" (filter only)")
        value = one.get(name)
        if value is not None:
            assert amphora.id in {x["id"] for x in await shown(world, f"?{name}={value}")}, name
        elif name not in ("project_id", "updated_at"):
            other = "2026-01-31T12:00:00" if name == "cert_expiration" else "1"
            assert await shown(world, f"?{name}={other}") == [], name
        assert len(await shown(world, f"?sort={name}:desc")) == 2
    assert [x["id"] for x in await shown(world, "?status=ALLOCATED&project_id=default")] == [amphora.id]
    assert await shown(world, "?project_id=other") == []
    assert (await world.call("GET", f"{AMPHORAE}?tags=x")).status == 400


async def test_traffic_is_told_by_listener(world: World) -> None:
    load_balancer_id = await world.load_balancer()
    listener_id = await world.listener(load_balancer_id)
    amphora = await an_amphora(world, load_balancer_id)
    assert (await world.call("GET", f"{AMPHORAE}/{amphora.id}/stats")).status == 404
    counters = Counters(bytes_in=1, bytes_out=2, active_connections=3, total_connections=4, request_errors=5)
    traffic = ListenerTraffic(listener_id=ListenerId(listener_id), amphora_id=amphora.id, counters=counters)
    await world.store.transact(lambda tx: health.write_statistics(tx, [traffic]))
    (told,) = (await world.call("GET", f"{AMPHORAE}/{amphora.id}/stats")).one("amphora_stats")
    assert set(told) == set(facts.example("amphora-show-stats-response")["amphora_stats"][0])
    assert (told["id"], told["listener_id"], told["total_connections"]) == (amphora.id, listener_id, 4)


async def test_failover_of_one_and_of_all_is_written_down(world: World) -> None:
    load_balancer_id = await world.load_balancer()
    one, other = await an_amphora(world, load_balancer_id), await an_amphora(world, load_balancer_id)
    await world.settle(load_balancer_id)
    assert (await world.call("PUT", f"{AMPHORAE}/{one.id}/failover")).status == 202
    assert ((await stored(world, one)).replacement_requested_at is None) is False
    assert (await stored(world, other)).replacement_requested_at is None
    assert (await world.tree(load_balancer_id)).load_balancer.provisioning_status == "PENDING_UPDATE"
    assert (await world.call("PUT", f"loadbalancers/{load_balancer_id}/failover")).status == 202
    assert ((await stored(world, other)).replacement_requested_at is None) is False
    assert (await world.call("PUT", f"{AMPHORAE}/{UNKNOWN}/failover")).status == 404
    await world.call("DELETE", f"loadbalancers/{load_balancer_id}")
    assert (await world.call("PUT", f"{AMPHORAE}/{one.id}/failover")).status == 409


async def test_a_push_changes_no_status(world: World) -> None:
    load_balancer_id = await world.load_balancer()
    amphora = await an_amphora(world, load_balancer_id)
    await world.settle(load_balancer_id)
    assert (await world.call("PUT", f"{AMPHORAE}/{amphora.id}/config")).status == 202
    assert (await stored(world, amphora)).push_requested_at is not None
    assert (await world.tree(load_balancer_id)).load_balancer.provisioning_status == "ACTIVE"
    assert (await world.call("PUT", f"{AMPHORAE}/{amphora.id}/config", b"nonsense")).status == 400


async def test_only_one_in_error_is_deleted(world: World) -> None:
    load_balancer_id = await world.load_balancer()
    serving = await an_amphora(world, load_balancer_id)
    broken = await an_amphora(world, load_balancer_id, AmphoraStatus.ERROR)
    assert (await world.call("DELETE", f"{AMPHORAE}/{serving.id}")).status == 409
    assert (await world.call("DELETE", f"{AMPHORAE}/{broken.id}")).status == 204
    assert (await stored(world, broken)).status is AmphoraStatus.PENDING_DELETE
    assert (await world.call("PUT", f"{AMPHORAE}/{broken.id}/config")).status == 409
    assert (await world.call("DELETE", f"{AMPHORAE}/{UNKNOWN}")).status == 404
    assert (await world.call("POST", AMPHORAE, {"amphora": {}})).status == 405
