"""Idempotency-Key: whoever sends a create again gets the first answer, and there is one object."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import MutableMapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from frontinus.api.app import create_app
from frontinus.api.idempotency import HELD_FOR, KEPT_FOR
from frontinus.api.operations import resource_operations
from frontinus.api.settings import ApiSettings
from frontinus.model.ids import LoadBalancerId, ProjectId
from frontinus.model.network import AllocatedVip, VipRequest
from frontinus.store import idempotency
from frontinus.store.engine import Store, Transaction
from frontinus.store.rows import to_microseconds
from frontinus.store.schema import idempotency_key
from frontinus.store.statement import Statement
from frontinus.testing.fake_network import FakeNetwork

from tests.integration.api.world import SUBNET_ID, Answer, World
from tests.integration.store.world import start_python

KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}
CREATE = {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "name": "once"}}


def create(world: World, body: object = CREATE, **headers: str) -> Any:
    return world.call("POST", "loadbalancers", body, {**KEY, **headers})


async def load_balancers(world: World) -> list[str]:
    return [x["id"] for x in (await world.call("GET", "loadbalancers")).json["loadbalancers"]]


async def rows(store: Store) -> int:
    return len(await store.read(lambda tx: tx.rows(Statement(idempotency_key.select()), {})))


async def bodies(world: World) -> dict[str, tuple[str, dict[str, Any]]]:
    """For each operation that makes something in a tree: where to, and a body that succeeds once only."""
    ids = await world.offers()
    load_balancer = await world.load_balancer()
    listener = await world.listener(load_balancer)
    pool = await world.pool(load_balancer)
    policy = (await world.make("l7policy", listener_id=listener, action="REJECT"))["id"]
    kind = {"protocol": "HTTP", "loadbalancer_id": load_balancer}
    rule = {"type": "PATH", "compare_type": "EQUAL_TO", "value": "/"}
    monitor = {"pool_id": pool, "type": "HTTP", "delay": 3, "timeout": 2, "max_retries": 3}
    return {
        "loadbalancer.create": ("loadbalancers", CREATE),
        "listener.create": ("listeners", {"listener": {**kind, "protocol_port": 81}}),
        "pool.create": ("pools", {"pool": {**kind, "lb_algorithm": "ROUND_ROBIN"}}),
        "member.create": (f"pools/{pool}/members", {"member": {"address": "192.0.2.1", "protocol_port": 80}}),
        "healthmonitor.create": ("healthmonitors", {"healthmonitor": monitor}),
        "l7policy.create": ("l7policies", {"l7policy": {"listener_id": listener, "action": "REJECT"}}),
        "flavorprofile.create": (
            "flavorprofiles",
            {"flavorprofile": {"name": "n", "provider_name": "amphora", "flavor_data": "{}"}},
        ),
        "flavor.create": ("flavors", {"flavor": {"name": "n", "flavor_profile_id": ids["flavor_profile"]}}),
        "availability_zone_profile.create": (
            "availabilityzoneprofiles",
            {"availability_zone_profile": {"name": "n", "provider_name": "amphora", "availability_zone_data": "{}"}},
        ),
        "availability_zone.create": (
            "availabilityzones",
            {"availability_zone": {"name": "n", "availability_zone_profile_id": ids["availability_zone_profile"]}},
        ),
        "rule.create": (f"l7policies/{policy}/rules", {"rule": rule}),
    }


async def test_every_create_can_be_sent_again(world: World) -> None:
    known = await bodies(world)
    posts = [x for x in resource_operations() if x.method == "POST"]
    assert {x.id for x in posts} == set(known)
    for operation in posts:
        path, body = known[operation.id]
        before = len(next(iter((await world.call("GET", path)).json.values())))
        first = await world.call("POST", path, body, KEY)
        again = await world.call("POST", path, body, KEY)
        assert first.status == 201, (operation.id, first.body)
        assert (again.status, again.body, again.headers["etag"]) == (201, first.body, first.headers["etag"])
        assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
        assert again.headers["content-type"] == first.headers["content-type"]
        assert len(next(iter((await world.call("GET", path)).json.values()))) == before + 1, operation.id


async def test_the_first_answer_is_given_even_when_the_object_has_changed_since(world: World) -> None:
    first = await create(world)
    path = f"loadbalancers/{first.one('loadbalancer')['id']}"
    await world.call("PUT", path, {"loadbalancer": {"name": "renamed"}})
    assert (await create(world)).body == first.body
    await world.call("DELETE", path)
    assert (await create(world)).body == first.body


@pytest.mark.engines
async def test_two_at_once_make_one_object(world: World) -> None:
    answers = await asyncio.gather(*(create(world) for _ in range(8)))
    assert {x.status for x in answers} == {201}
    assert len({x.body for x in answers}) == 1
    assert len(world.network.vips) == 1
    assert len(await load_balancers(world)) == 1


@pytest.mark.engines
async def test_two_processes_at_once_make_one_object(world: World, database_url: str) -> None:
    """Each with a store of its own on the one database, as API processes have it."""
    others = [await World.open(database_url) for _ in range(3)]
    for other in others:
        other.network.vips = world.network.vips
    answers = await asyncio.gather(*(create(x, {"loadbalancer": {"vip_subnet_id": SUBNET_ID}}) for x in others))
    assert {x.status for x in answers} == {201}
    assert len({x.body for x in answers}) == 1
    assert len(world.network.vips) == 1
    for other in others:
        await other.close()


async def test_another_body_under_the_key_is_422(world: World) -> None:
    await create(world)
    refused = await create(world, {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "name": "another"}})
    assert refused.status == 422
    assert "Idempotency-Key" in refused.fault
    assert len(await load_balancers(world)) == 1


async def test_the_order_of_attributes_and_white_space_are_no_other_body(world: World) -> None:
    first = await create(world)
    spelled = b'{ "loadbalancer": {"name": "once",  "vip_subnet_id": "%s"} }' % SUBNET_ID.encode()
    assert (await create(world, spelled)).body == first.body


async def test_a_key_counts_for_one_project_and_one_path(world: World) -> None:
    first = await create(world)
    elsewhere = await create(world, **{"X-Project-Id": "another"})
    assert elsewhere.one("loadbalancer")["id"] != first.one("loadbalancer")["id"]
    listener = {"protocol": "HTTP", "protocol_port": 80, "loadbalancer_id": first.one("loadbalancer")["id"]}
    assert (await world.call("POST", "listeners", {"listener": listener}, KEY)).status == 201
    pools = [await world.pool(first.one("loadbalancer")["id"]) for _ in range(2)]
    member = {"member": {"address": "192.0.2.1", "protocol_port": 80}}
    made = [await world.call("POST", f"pools/{x}/members", member, KEY) for x in pools]
    assert len({x.one("member")["id"] for x in made}) == 2


async def test_other_spellings_of_a_path_are_the_same_operation(world: World) -> None:
    first = await create(world)
    again = await world.call("POST", "/load-balancer/v2.0/loadbalancers/", CREATE, KEY)
    assert again.body == first.body


@pytest.mark.engines
async def test_what_fails_leaves_the_key_free(world: World) -> None:
    load_balancer = await world.load_balancer()
    listener = {"protocol": "HTTP", "protocol_port": 80, "loadbalancer_id": load_balancer}
    taken = await world.listener(load_balancer)
    assert (await world.call("POST", "listeners", {"listener": listener}, KEY)).status == 409
    assert (await create(world, {"loadbalancer": {}})).status == 400
    assert (await create(world, {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "flavor_id": SUBNET_ID}})).status >= 400
    assert await rows(world.store) == 0
    await world.call("DELETE", f"listeners/{taken}")
    assert (await world.call("POST", "listeners", {"listener": listener}, KEY)).status == 201
    assert (await create(world)).status == 201
    assert len(world.network.vips) == 2


async def test_without_the_header_nothing_is_kept(world: World) -> None:
    await bodies(world)
    assert await rows(world.store) == 0


@pytest.mark.engines
async def test_a_key_is_free_again_after_a_day_and_is_purged(world: World) -> None:
    first = await create(world)
    world.clock.now += KEPT_FOR + timedelta(seconds=1)
    second = await create(world)
    assert second.one("loadbalancer")["id"] != first.one("loadbalancer")["id"]
    assert await world.store.transact(lambda tx: idempotency.purge(tx, world.clock())) == 0
    world.clock.now += KEPT_FOR + timedelta(seconds=1)
    assert await world.store.transact(lambda tx: idempotency.purge(tx, world.clock())) == 1
    assert await rows(world.store) == 0


@pytest.mark.engines
async def test_one_sweep_forgets_a_bounded_number(world: World) -> None:
    most = idempotency.MOST_PURGED
    now = world.clock()

    def fill(tx: Any) -> None:
        for number in range(most + 5):
            idempotency.reserve(tx, f"k{number}", fingerprint="f", owner="o", now=now, until=now)

    await world.store.transact(fill)
    sweeps = [await world.store.transact(lambda tx: idempotency.purge(tx, world.clock())) for _ in range(3)]
    assert sweeps == [most, 5, 0]


async def test_a_body_that_is_no_text_is_refused_by_name(world: World) -> None:
    body = b'{"loadbalancer": {"vip_subnet_id": "%s", "name": "\\ud800"}}' % SUBNET_ID.encode()
    refused = await create(world, body)
    assert (refused.status, refused.fault.partition(":")[0]) == (400, "loadbalancer.name")
    assert await rows(world.store) == 0


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", id="empty"),
        pytest.param('""', id="empty in quotes"),
        pytest.param("x" * 256, id="too long"),
        pytest.param("a\x80b", id="beyond ASCII"),
        pytest.param('"a"b"', id="a quote inside"),
    ],
)
async def test_what_is_no_key_is_refused_by_name(world: World, key: str) -> None:
    refused = await create(world, **{"Idempotency-Key": key})
    assert refused.status == 400
    assert "Idempotency-Key" in refused.fault
    assert await load_balancers(world) == []


async def test_a_key_means_the_same_with_and_without_quotes(world: World) -> None:
    first = await create(world, **{"Idempotency-Key": "abc"})
    assert (await create(world, **{"Idempotency-Key": '"abc"'})).body == first.body


async def test_who_may_not_create_learns_nothing_by_a_key(world: World) -> None:
    """Policy and validation of the request itself come first, so a key opens no door."""
    await create(world)
    assert (await world.call("POST", "loadbalancers?fields=id", CREATE, KEY)).status == 400


KILLED = """
import asyncio, os, signal, sys
from tests.integration.api import world as w

async def main():
    world = await w.World.open(sys.argv[1], None)
    app = world.app
    async def killed_before_its_answer(scope, receive, send):
        async def die(message):
            os.kill(os.getpid(), signal.SIGKILL)
        await app(scope, receive, die)
    async def killed_before_its_commit(scope, receive, send):
        async def die(*_args, **_options):
            os.kill(os.getpid(), signal.SIGKILL)
        world.network.allocate_vip = die
        await app(scope, receive, send)
    world.app = {"answer": killed_before_its_answer, "commit": killed_before_its_commit}[sys.argv[2]]
    headers = {"Idempotency-Key": "of the killed"}
    await world.call("POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": w.SUBNET_ID}}, headers)

asyncio.run(main())
"""


async def killed(database_url: str, before: str) -> None:
    process = await start_python(KILLED, database_url, before)
    assert await process.wait() == -signal.SIGKILL


async def after_a_kill(world: World) -> Answer:
    body = {"loadbalancer": {"vip_subnet_id": SUBNET_ID}}
    return await world.call("POST", "loadbalancers", body, {"Idempotency-Key": "of the killed"})


@pytest.mark.engines
async def test_a_process_that_was_killed_after_its_commit_has_answered(world: World, database_url: str) -> None:
    await killed(database_url, "answer")
    (made,) = await load_balancers(world)
    answer = await after_a_kill(world)
    assert answer.one("loadbalancer")["id"] == made
    assert await load_balancers(world) == [made]


@pytest.mark.parametrize("embedded", [True, pytest.param(False, marks=pytest.mark.long)])
async def test_a_process_that_was_killed_before_its_commit_has_made_nothing(
    world: World, database_url: str, embedded: bool
) -> None:
    await killed(database_url, "commit")
    hasty = await World.open(database_url, None, ApiSettings(idempotency_wait=timedelta(0)))
    waiting = await after_a_kill(hasty)
    await hasty.close()
    assert (waiting.status, waiting.headers["retry-after"]) == (409, "1")
    # An embedded installation knows at its start that nobody works on it; others wait until the reservation runs out.
    if embedded:
        assert await world.store.transact(idempotency.release_all) == 1
    else:
        world.clock.now += HELD_FOR
    assert (await after_a_kill(world)).status == 201
    assert len(await load_balancers(world)) == 1


class SlowNetwork(FakeNetwork):
    """Gives an address when it is told to."""

    def __init__(self, vips: MutableMapping[str, LoadBalancerId]) -> None:
        super().__init__(vips)
        self.entered, self.go_on = asyncio.Event(), asyncio.Event()

    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        self.entered.set()
        await self.go_on.wait()
        return await super().allocate_vip(load_balancer_id, project_id, request)


@pytest.mark.engines
async def test_who_works_on_keeps_the_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes, nobody else gets it; only a process that died does not renew."""
    monkeypatch.setattr("frontinus.api.idempotency.RENEWED_EVERY", timedelta(milliseconds=10))
    network = SlowNetwork(world.network.vips)
    slow_app = World(world.store, network, world.clock, create_app(world.store, network, ApiSettings(), world.clock))
    hasty_settings = ApiSettings(idempotency_wait=timedelta(0))
    hasty = World(
        world.store, world.network, world.clock, create_app(world.store, network, hasty_settings, world.clock)
    )
    slow = asyncio.create_task(create(slow_app))
    await network.entered.wait()
    for _ in range(3):
        world.clock.now += HELD_FOR - timedelta(seconds=1)
        await _expires(world, world.clock.now + HELD_FOR)
        assert (await create(hasty)).status == 409
    network.go_on.set()
    assert (await slow).status == 201


async def _expires(world: World, at: datetime) -> None:
    """Wait until the reservation holds until then."""

    def until(tx: Transaction) -> int:
        row = tx.row(Statement(select(idempotency_key.c.expires_at)), {})
        assert row is not None
        return int(row[0])

    async with asyncio.timeout(5):
        while await world.store.read(until) < to_microseconds(at):  # noqa: ASYNC110 - another task writes it
            await asyncio.sleep(0.01)


@pytest.mark.engines
async def test_who_lost_the_reservation_makes_nothing(world: World) -> None:
    """The first is held up for longer than a reservation holds; the second takes over, and the first gives up."""
    network = SlowNetwork(world.network.vips)
    slow_app = World(world.store, network, world.clock, create_app(world.store, network, ApiSettings(), world.clock))
    slow = asyncio.create_task(create(slow_app))
    await network.entered.wait()
    world.clock.now += HELD_FOR
    second = await create(world)
    network.go_on.set()
    assert second.status == 201
    assert (await slow).status == 409
    assert await load_balancers(world) == [second.one("loadbalancer")["id"]]
    assert len(world.network.vips) == 1
