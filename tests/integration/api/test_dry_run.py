"""?dry_run=true: every write is judged like the real one and told about, and nothing is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.api.settings import ApiSettings, Immutability
from frontinus.controller.hands import Hands
from frontinus.controller.previewer import Previewer
from frontinus.controller.settings import ControllerSettings
from frontinus.model.cohorts import CohortName
from frontinus.model.enums import ListenerProtocol
from frontinus.model.ids import ControllerId
from frontinus.model.previews import Question
from frontinus.store import previews, schema, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.statement import Statement
from frontinus.testing.fake_amphora import FakeAmphoraDriver
from frontinus.testing.fake_compute import FakeCompute
from frontinus.testing.fake_secret import FakeSecrets

from tests.integration.api.world import COHORT, EVERYTHING, SUBNET_ID, UNKNOWN, World
from tests.integration.api.writes import AMPHORA, MEMBER, WRITING, bodies, whole


def a_previewer(world: World, unspeakable: set[str]) -> Previewer:
    hands = Hands(
        store=world.store,
        amphora_driver=FakeAmphoraDriver(unspeakable=unspeakable),
        compute=FakeCompute(),
        network=world.network,
        secret=FakeSecrets(),
        settings=ControllerSettings(),
        now=lambda: world.clock.now,
    )
    return Previewer(ControllerId("previewer"), hands)


@pytest.fixture
async def unspeakable(world: World) -> AsyncIterator[set[str]]:
    """A controller that answers questions. It cannot render the objects in this set."""
    words: set[str] = set()
    task = asyncio.create_task(a_previewer(world, words).run())
    yield words
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def everything(store: Store) -> dict[str, list[Any]]:
    """Every row of every table."""

    def work(tx: Transaction) -> dict[str, list[Any]]:
        tables = schema.metadata.sorted_tables
        return {x.name: sorted(tx.rows(Statement(x.select()), {}), key=repr) for x in tables}

    return await store.read(work)


ACTIONS = {
    "loadbalancer.create": "unchanged",  # no listener: nothing listens
    "loadbalancer.update": "unchanged",
    "loadbalancer.delete": "stop",
    "loadbalancer.failover": "replace",
    "listener.delete": "stop",
    "member.create": "runtime",
    "member.update": "runtime",
    "member.delete": "runtime",
    "member.batch": "runtime",
    "l7policy.update": "unchanged",
    "amphora.config": "unchanged",
    "amphora.failover": "replace",
}
"""What the fake driver does; for all others it reloads."""

WITHOUT_AMPHORAE = ("quota", "flavor", "flavorprofile", "availability_zone", "availability_zone_profile")


@pytest.mark.parametrize("operation", [x.id for x in WRITING if x.id != "amphora.delete"])
async def test_every_write_can_be_tried_and_does_nothing(world: World, unspeakable: set[str], operation: str) -> None:
    ids = await whole(world)
    if operation == "healthmonitor.create":
        await world.call("DELETE", f"healthmonitors/{ids['health_monitor']}")
        await world.settle(ids["load_balancer"])
        ids["pool"] = await world.pool(ids["load_balancer"])
        await world.call("PUT", f"listeners/{ids['listener']}", {"listener": {"default_pool_id": ids["pool"]}})
    asked = next(x for x in WRITING if x.id == operation)
    path = asked.path.format(**ids)
    cascade = "cascade=true&" if operation == "loadbalancer.delete" else ""
    before, vips = await everything(world.store), dict(world.network.vips)
    body = bodies(ids).get(operation)
    answer = await world.call(asked.method, f"{path}?{cascade}dry_run=true", body)
    assert answer.status == 200, answer.body
    assert await everything(world.store) == before
    assert world.network.vips == vips
    told = answer.json["dry_run"]
    resource = operation.partition(".")[0]
    envelope = "members" if operation == "member.batch" else resource
    assert set(answer.json) == {envelope, "dry_run"}
    assert told["faults"] == []
    if resource in WITHOUT_AMPHORAE:
        assert (told["preview"], told["action"], told["amphorae"]) == ("none", "unchanged", [])
        return
    assert told["preview"] == "complete", told
    assert told["action"] == ACTIONS.get(operation, "reload"), told
    assert len(told["amphorae"]) == 1
    expected_amphora = None if operation == "loadbalancer.create" else AMPHORA
    assert told["amphorae"][0]["amphora_id"] == expected_amphora
    real = await world.call(asked.method, f"{path}{'?cascade=true' if cascade else ''}", body)
    assert real.status == asked.success, "what was tried succeeds"
    assert await everything(world.store) != before
    if real.status in (200, 201):
        assert answer.json[envelope].keys() == real.json[envelope].keys()


@pytest.mark.engines
async def test_the_object_is_shown_as_it_would_be(world: World, unspeakable: set[str]) -> None:
    ids = await whole(world)
    path = f"pools/{ids['pool']}/members/{ids['member']}"
    changed = await world.call("PUT", f"{path}?dry_run=true", {"member": {"weight": 7}})
    assert (changed.json["member"]["weight"], changed.json["member"]["provisioning_status"]) == (7, "PENDING_UPDATE")
    (amphora,) = changed.json["dry_run"]["amphorae"]
    assert amphora["diff"].startswith("--- fake (now)\n+++ fake (then)\n@@ ")
    removed, added = (next(x for x in amphora["diff"].splitlines()[3:] if x[0] == sign) for sign in "-+")
    assert '"weight":1' in removed
    assert '"weight":7' in added
    gone = await world.call("DELETE", f"{path}?dry_run=true")
    assert gone.json["member"]["provisioning_status"] == "PENDING_DELETE"
    members = [{**MEMBER, "address": "192.0.2.9"}]
    batch = await world.call("PUT", f"pools/{ids['pool']}/members?dry_run=true", {"members": members})
    shown = {x["address"]: x["provisioning_status"] for x in batch.json["members"]}
    assert shown == {"192.0.2.1": "PENDING_DELETE", "192.0.2.9": "PENDING_CREATE"}


@pytest.mark.engines
async def test_a_whole_tree_is_tried_in_one_go(world: World, unspeakable: set[str]) -> None:
    pool = {"name": "p", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": [MEMBER]}
    listener = {"protocol": "HTTP", "protocol_port": 80, "default_pool": pool}
    asked = {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "listeners": [listener]}}
    answer = await world.call("POST", "loadbalancers?dry_run=true", asked)
    told = answer.json["dry_run"]
    assert (told["action"], told["amphorae"][0]["role"]) == ("start", "STANDALONE")
    assert answer.json["loadbalancer"]["listeners"][0]["protocol_port"] == 80
    foreseen = answer.json["loadbalancer"]["vip_address"]
    assert (await world.call("GET", "loadbalancers")).json["loadbalancers"] == []
    assert (await world.call("POST", "loadbalancers", asked)).one("loadbalancer")["vip_address"] == foreseen
    taken = {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "vip_address": foreseen}}
    assert (await world.call("POST", "loadbalancers?dry_run=true", taken)).status == 409


@pytest.mark.engines
async def test_what_fails_fails_alike(world: World) -> None:
    ids = await whole(world)
    member = f"pools/{ids['pool']}/members/{ids['member']}"
    listener = {"loadbalancer_id": ids["load_balancer"], "protocol": "HTTP"}
    cases: list[tuple[str, str, object, dict[str, str]]] = [
        ("PUT", member, {"member": {"weight": 999}}, {}),
        ("PUT", f"pools/{ids['pool']}/members/{UNKNOWN}", {"member": {"weight": 9}}, {}),
        ("POST", f"pools/{ids['pool']}/members", {"member": MEMBER}, {}),
        ("POST", "listeners", {"listener": {**listener, "protocol_port": 80}}, {}),
        ("PUT", member, {"member": {"weight": 9}}, {"If-Match": '"other"'}),
        ("PUT", member, b"{", {}),
        ("DELETE", f"loadbalancers/{ids['load_balancer']}", None, {}),
        ("POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": UNKNOWN}}, {}),
        ("POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "provider": "nobody"}}, {}),
        ("DELETE", f"/v2/octavia/amphorae/{AMPHORA}", None, {}),
    ]
    before = await everything(world.store)
    for method, path, body, headers in cases:
        tried = await world.call(method, f"{path}?dry_run=true", body, headers)
        meant = await world.call(method, path, body, headers)
        assert (tried.status, tried.body) == (meant.status, meant.body)
        assert 400 <= tried.status < 500
    assert await everything(world.store) == before


async def test_strict_immutability_and_missing_capabilities_hold_in_a_dry_run(world: World, database_url: str) -> None:
    ids = await whole(world)
    path = f"pools/{ids['pool']}/members"
    await world.member(ids["pool"], address="192.0.2.77")
    strict = await World.open(database_url, None, ApiSettings(immutable=Immutability.STRICT))
    assert (await strict.call("POST", f"{path}?dry_run=true", {"member": {**MEMBER, "protocol_port": 9}})).status == 409
    await strict.close()
    await world.register(replace(EVERYTHING, listener_protocols=frozenset({ListenerProtocol.TCP})))
    listener = {"loadbalancer_id": ids["load_balancer"], "protocol": "HTTP", "protocol_port": 99}
    assert (await world.call("POST", "listeners?dry_run=true", {"listener": listener})).status == 501


async def test_without_a_controller_it_is_said_to_be_valid_and_no_more(world: World, database_url: str) -> None:
    ids = await whole(world)
    hasty = await World.open(database_url, None, ApiSettings(preview_wait=timedelta(milliseconds=20)))
    path = f"pools/{ids['pool']}/members/{ids['member']}?dry_run=true"
    answer = await hasty.call("PUT", path, {"member": {"weight": 7}})
    await hasty.close()
    told = answer.json["dry_run"]
    assert (answer.status, told["preview"], told["action"], told["amphorae"]) == (200, "unavailable", None, [])
    assert "0.02 s" in told["reason"]
    assert answer.json["member"]["weight"] == 7
    assert (await everything(world.store))["preview"] == []


async def test_a_question_is_answered_by_controllers_of_its_cohort_only(world: World) -> None:
    question = Question(before=None, after=await world.tree(await world.load_balancer()))

    def ask(tx: Transaction) -> None:
        asked = (("amphora", None), ("nobody's", None), ("amphora", COHORT), ("amphora", CohortName("fake", "0.1")))
        for number, (provider, cohort) in enumerate(asked):
            previews.ask(tx, f"q{number}", provider, cohort, question.after.id, question, world.clock())

    await world.store.transact(ask)
    assert await a_previewer(world, set()).turn()
    answered = [await world.store.read(partial(previews.answer_to, question_id=f"q{n}")) is not None for n in range(4)]
    assert answered == [True, False, True, False]


@pytest.mark.engines
async def test_one_controller_gets_a_question(world: World) -> None:
    question = Question(before=None, after=await world.tree(await world.load_balancer()))
    now = world.clock()
    await world.store.transact(lambda tx: previews.ask(tx, "q", "amphora", COHORT, question.after.id, question, now))
    first = await world.store.transact(lambda tx: previews.claim(tx, ControllerId("one"), COHORT, now, 5))
    second = await world.store.transact(lambda tx: previews.claim(tx, ControllerId("two"), COHORT, now, 5))
    assert [x.question for x in first] == [question]
    assert second == []
    later = now + previews.STALE_AFTER + timedelta(seconds=1)
    assert await world.store.transact(lambda tx: previews.purge(tx, later)) == 1


async def test_what_could_not_be_carried_is_told_as_a_fault(world: World, unspeakable: set[str]) -> None:
    ids = await whole(world)
    unspeakable.add(ids["member"])
    path = f"pools/{ids['pool']}/members/{ids['member']}?dry_run=true"
    new = (await world.call("PUT", path, {"member": {"weight": 7}})).json["dry_run"]
    assert (new["action"], [x["left_out"] for x in new["faults"]]) == ("unchanged", [True])
    before = await world.tree(ids["load_balancer"])
    load_balancer = replace(before.load_balancer, applied_generation=before.load_balancer.generation)
    carried = replace(before, load_balancer=load_balancer)
    await world.store.transact(lambda tx: trees.write_tree(tx, before, carried))
    told = (await world.call("PUT", path, {"member": {"weight": 7}})).json["dry_run"]
    assert told["amphorae"] == []
    (fault,) = told["faults"]
    assert (fault["code"], fault["object_type"], fault["object_id"]) == ("rejected", "member", ids["member"])
    assert fault["left_out"] is False
    assert "faults" in told["reason"]


async def test_dry_run_false_is_meant(world: World) -> None:
    load_balancer = await world.load_balancer()
    path = f"loadbalancers/{load_balancer}?dry_run=false"
    assert (await world.call("PUT", path, {"loadbalancer": {"name": "x"}})).one("loadbalancer")["name"] == "x"
    assert (await world.tree(load_balancer)).load_balancer.name == "x"


@pytest.mark.parametrize("value", ["", "yes", "1", "tru", "true&dry_run=true"])
async def test_what_may_be_a_mistake_is_refused(world: World, value: str) -> None:
    load_balancer = await world.load_balancer()
    refused = await world.call("DELETE", f"loadbalancers/{load_balancer}?dry_run={value}")
    assert refused.status == 400
    assert "dry_run" in refused.fault
    assert not (await world.tree(load_balancer)).load_balancer.delete_requested


async def test_a_read_cannot_be_tried(world: World) -> None:
    assert (await world.call("GET", "loadbalancers?dry_run=true")).status == 400


async def test_a_key_is_neither_asked_nor_kept_in_a_dry_run(world: World, unspeakable: set[str]) -> None:
    body, key = {"loadbalancer": {"vip_subnet_id": SUBNET_ID}}, {"Idempotency-Key": "k"}
    tried = await world.call("POST", "loadbalancers?dry_run=true", body, key)
    meant = await world.call("POST", "loadbalancers", body, key)
    assert (tried.status, meant.status) == (200, 201)
    assert (await world.call("POST", "loadbalancers?dry_run=true", body, key)).json["loadbalancer"] != meant.json


async def test_dry_runs_are_counted_apart(world: World, unspeakable: set[str]) -> None:
    body = {"loadbalancer": {"vip_subnet_id": SUBNET_ID}}
    await world.call("POST", "loadbalancers?dry_run=true", body)
    await world.call("POST", "loadbalancers", body, {"Idempotency-Key": "k"})
    await world.call("POST", "loadbalancers", body, {"Idempotency-Key": "k"})
    text = (await world.call("GET", "/metrics")).body.decode()
    assert 'frontinus_api_requests_total{operation="loadbalancer.create",status="201"} 2.0' in text
    assert 'frontinus_api_requests_total{operation="loadbalancer.create.dry_run",status="200"} 1.0' in text
    assert 'frontinus_api_replays_total{operation="loadbalancer.create"} 1.0' in text
