"""What is refused, how, and that nothing changes by it: the table of behaviours.yaml errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frontinus.api.app import create_app
from frontinus.api.settings import ApiSettings
from frontinus.model.capabilities import Capabilities
from frontinus.model.enums import LbAlgorithm, ListenerProtocol, PoolProtocol
from frontinus.model.errors import Retry, Unconfirmed
from frontinus.store.engine import Store, Transaction

from tests.integration.api.world import EVERYTHING, SUBNET_ID, UNKNOWN, World

JSON_BODY = {"loadbalancer": {"vip_subnet_id": SUBNET_ID}}


@pytest.mark.parametrize(
    "method, path, body, headers, status",
    [
        pytest.param("GET", "/nowhere", None, {}, 404, id="unknown path"),
        pytest.param("GET", "/v1/lbaas/loadbalancers", None, {}, 404, id="unknown version"),
        pytest.param("PATCH", "loadbalancers", None, {}, 405, id="PATCH"),
        pytest.param("HEAD", "loadbalancers", None, {}, 405, id="HEAD"),
        pytest.param("POST", f"loadbalancers/{UNKNOWN}", JSON_BODY, {}, 400, id="POST on an item"),
        pytest.param("PUT", "loadbalancers", JSON_BODY, {}, 400, id="PUT on a collection"),
        pytest.param("DELETE", "pools", None, {}, 400, id="DELETE on a collection"),
        pytest.param("GET", "loadbalancers", None, {"Accept": "text/html"}, 406, id="Accept without JSON"),
        pytest.param("GET", "loadbalancers", None, {"Accept": "application/json;q=0"}, 406, id="Accept refuses JSON"),
        pytest.param("GET", "loadbalancers", None, {"Accept": ""}, 200, id="empty Accept"),
        pytest.param("GET", "loadbalancers", None, {"Accept": "text/html, */*;q=0.1"}, 200, id="Accept wildcard"),
        pytest.param("POST", "loadbalancers", JSON_BODY, {"Content-Type": "text/plain"}, 415, id="text body"),
        pytest.param("POST", "loadbalancers", JSON_BODY, {"Content-Type": ""}, 415, id="empty Content-Type"),
        pytest.param("POST", "loadbalancers", JSON_BODY, {"Content-Type": None}, 400, id="no Content-Type"),
        pytest.param(
            "POST",
            "loadbalancers",
            b"a=b",
            {"Content-Type": "application/x-www-form-urlencoded"},
            400,
            id="form",
        ),
        pytest.param(
            "POST", "loadbalancers", JSON_BODY, {"Content-Type": "application/json; charset=utf-8"}, 201, id="charset"
        ),
        pytest.param(
            "POST", "loadbalancers", JSON_BODY, {"Content-Type": "text/javascript"}, 201, id="text/javascript"
        ),
        pytest.param("POST", "loadbalancers", b"x" * 114_689, {}, 413, id="too large"),
        pytest.param(
            "POST", "loadbalancers", b" " * 114_689, {"Content-Length": None}, 413, id="too large unannounced"
        ),
        pytest.param("POST", "loadbalancers", b" " * 114_688, {}, 400, id="as large as allowed"),
        pytest.param("POST", "loadbalancers", b"{", {}, 400, id="no JSON"),
        pytest.param("POST", "loadbalancers", b"", {}, 400, id="no body"),
        pytest.param("POST", "loadbalancers?dry_run=1", JSON_BODY, {}, 400, id="unknown argument on POST"),
        pytest.param(
            "PUT", f"loadbalancers/{UNKNOWN}?x=1", {"loadbalancer": {}}, {}, 400, id="unknown argument on PUT"
        ),
        pytest.param("DELETE", f"loadbalancers/{UNKNOWN}?force=1", None, {}, 400, id="unknown argument on DELETE"),
        pytest.param("GET", "loadbalancers?colour=red", None, {}, 400, id="unknown filter"),
        pytest.param("GET", "loadbalancers?name=%FF", None, {}, 400, id="query is not UTF-8"),
        pytest.param("GET", "loadbalancers?name=%00", None, {}, 400, id="nul in a query"),
        pytest.param("GET", "loadbalancers", b"[1]", {}, 400, id="GET with a list"),
        pytest.param("GET", f"loadbalancers/{UNKNOWN}", None, {}, 404, id="unknown load balancer"),
        pytest.param("GET", f"loadbalancers/{UNKNOWN}/status", None, {}, 404, id="status of an unknown one"),
        pytest.param("GET", f"loadbalancers/{UNKNOWN}/stats", None, {}, 404, id="stats of an unknown one"),
        pytest.param("GET", f"listeners/{UNKNOWN}/stats", None, {}, 404, id="stats of an unknown listener"),
        pytest.param("PUT", f"loadbalancers/{UNKNOWN}/failover", None, {}, 404, id="failover of an unknown one"),
        pytest.param("DELETE", f"loadbalancers/{UNKNOWN}", None, {}, 404, id="delete an unknown one"),
        pytest.param("GET", f"pools/{UNKNOWN}/members", None, {}, 404, id="members of an unknown pool"),
        pytest.param("GET", f"l7policies/{UNKNOWN}/rules", None, {}, 404, id="rules of an unknown policy"),
        pytest.param(
            "POST",
            f"pools/{UNKNOWN}/members",
            {"member": {"address": "192.0.2.1", "protocol_port": 1, "subnet_id": UNKNOWN}},
            {},
            404,
            id="an unknown pool before an unknown subnet",
        ),
        pytest.param("GET", "loadbalancers/not-a-uuid", None, {}, 404, id="malformed id"),
        pytest.param("GET", "loadbalancers", None, {"X-Project-Id": "p" * 37}, 400, id="project id too long"),
    ],
)
async def test_status_and_form(
    world: World, method: str, path: str, body: object, headers: dict[str, str | None], status: int
) -> None:
    answer = await world.call(method, path, body, headers)
    assert answer.status == status, answer.body
    assert answer.headers["x-openstack-request-id"].startswith("req-")
    if status >= 400:
        assert answer.headers["content-type"] == "application/json"
        assert answer.fault
    if status == 405:
        assert answer.headers["allow"]


async def test_ids_are_looked_up_as_they_are_written(world: World) -> None:
    load_balancer_id = await world.load_balancer()
    assert (await world.call("GET", f"loadbalancers/{load_balancer_id}")).status == 200
    assert (await world.call("GET", f"loadbalancers/{load_balancer_id.upper()}")).status == 404
    assert (await world.call("GET", f"loadbalancers/{load_balancer_id.replace('-', '')}")).status == 404


async def test_options_is_empty(world: World) -> None:
    answer = await world.call("OPTIONS", "loadbalancers")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    "values, status, named",
    [
        pytest.param({}, 400, "vip_subnet_id", id="no VIP"),
        pytest.param({"vip_subnet_id": UNKNOWN}, 400, UNKNOWN, id="unknown subnet"),
        pytest.param(
            {"vip_subnet_id": SUBNET_ID, "vip_address": "203.0.113.1"}, 400, "203.0.113.1", id="foreign address"
        ),
        pytest.param({"vip_subnet_id": SUBNET_ID, "vip_address": "here"}, 400, "vip_address", id="no address"),
        pytest.param({"vip_subnet_id": SUBNET_ID, "provider": "acme"}, 400, "acme", id="provider not enabled"),
        pytest.param({"vip_subnet_id": SUBNET_ID, "flavor_id": UNKNOWN}, 400, "flavor", id="unknown flavor"),
        pytest.param(
            {"vip_subnet_id": SUBNET_ID, "availability_zone": "z"}, 400, "availability_zone", id="unknown zone"
        ),
        pytest.param(
            {"vip_subnet_id": SUBNET_ID, "additional_vips": [{"subnet_id": SUBNET_ID}]},
            400,
            "VIP",
            id="VIPs on one subnet",
        ),
        pytest.param(
            {"vip_subnet_id": SUBNET_ID, "additional_vips": [{"subnet_id": UNKNOWN}]},
            400,
            UNKNOWN,
            id="additional VIP on an unknown subnet",
        ),
        pytest.param({"vip_subnet_id": SUBNET_ID, "project_id": "p" * 37}, 400, "project_id", id="project too long"),
        pytest.param({"vip_subnet_id": SUBNET_ID, "name": "x" * 256}, 400, "name", id="name too long"),
        pytest.param({"vip_subnet_id": SUBNET_ID, "tags": ["a", "a"]}, 400, "tags", id="tag twice"),
    ],
)
async def test_load_balancer_that_cannot_be(world: World, values: dict[str, Any], status: int, named: str) -> None:
    answer = await world.call("POST", "loadbalancers", {"loadbalancer": values})
    assert answer.status == status
    assert named in answer.fault
    assert (await world.call("GET", "loadbalancers")).json["loadbalancers"] == []
    assert not world.network.vips


async def test_address_that_is_taken_is_a_conflict(world: World) -> None:
    await world.load_balancer(vip_address="198.51.100.77")
    answer = await world.call(
        "POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": SUBNET_ID, "vip_address": "198.51.100.77"}}
    )
    assert answer.status == 409
    assert len(world.network.vips) == 1


async def test_address_is_given_back_when_what_it_was_for_cannot_be(world: World) -> None:
    """The VIP's family is known only once the network has chosen; a CIDR of another family is refused after that."""
    body = {
        "vip_subnet_id": SUBNET_ID,
        "listeners": [{"protocol": "TCP", "protocol_port": 1, "allowed_cidrs": ["2001:db8::/32"]}],
    }
    answer = await world.call("POST", "loadbalancers", {"loadbalancer": body})
    assert answer.status == 400
    assert "allowed_cidrs" in answer.fault
    assert not world.network.vips


async def test_an_address_stays_where_nobody_knows_whether_its_load_balancer_is_stored(world: World) -> None:
    """The commit is done and the word of it lost. Given back, the address would be another's, and this one's as well."""

    class Deaf(Store):
        def __init__(self) -> None:
            super().__init__(world.store._database)

        async def transact(self, work: Callable[[Transaction], Any]) -> Any:
            await super().transact(work)
            raise Unconfirmed("the word was lost", after=5.0)

    world.app = create_app(Deaf(), world.network, ApiSettings(), world.clock)
    assert (await world.call("POST", "loadbalancers", JSON_BODY)).status == 503
    (stored,) = (await world.call("GET", "loadbalancers")).json["loadbalancers"]
    assert world.network.vips == {stored["vip_address"]: stored["id"]}


async def test_network_out_of_reach_asks_to_come_back(world: World) -> None:
    world.network.faults.fail("allocate_vip", error=Retry("the network does not answer", after=2.5))
    answer = await world.call("POST", "loadbalancers", JSON_BODY)
    assert answer.status == 503
    assert answer.headers["retry-after"] == "3"
    assert "does not answer" in answer.fault


async def test_without_a_controller_nothing_is_promised(database_url: str) -> None:
    world = await World.open(database_url, capabilities=None)
    answer = await world.call("POST", "loadbalancers", JSON_BODY)
    assert answer.status == 501
    assert "frontinus up" in answer.fault
    assert not world.network.vips
    await world.close()


NARROW = Capabilities(
    listener_protocols=frozenset({ListenerProtocol.HTTP}),
    pool_protocols=frozenset({PoolProtocol.HTTP}),
    lb_algorithms=frozenset({LbAlgorithm.ROUND_ROBIN}),
)


@pytest.mark.parametrize(
    "key, values, named",
    [
        ("listener", {"protocol": "TCP", "protocol_port": 1}, "listener.protocol"),
        ("listener", {"protocol": "HTTP", "protocol_port": 1, "connection_limit": 5}, "listener.connection_limit"),
        ("pool", {"protocol": "HTTP", "lb_algorithm": "SOURCE_IP_PORT"}, "pool.lb_algorithm"),
    ],
)
async def test_what_the_driver_cannot_do_is_refused_when_it_is_asked_for(
    database_url: str, key: str, values: dict[str, Any], named: str
) -> None:
    world = await World.open(database_url, NARROW)
    load_balancer_id = await world.load_balancer()
    answer = await world.call("POST", f"{key}s", {key: {"loadbalancer_id": load_balancer_id, **values}})
    assert answer.status == 501
    assert named.rpartition(".")[2] in answer.fault
    assert [*(await world.tree(load_balancer_id)).children()] == []
    await world.close()


async def test_provider_of_its_own_name_is_enabled_by_its_controller(world: World) -> None:
    await world.register(EVERYTHING, provider="acme")
    made = await world.make("loadbalancer", vip_subnet_id=SUBNET_ID, provider="acme")
    assert made["provider"] == "acme"
    names = [x["name"] for x in (await world.call("GET", "providers")).json["providers"]]
    assert names == ["amphora", "octavia", "acme"]


async def test_octavia_is_another_name_of_amphora(world: World) -> None:
    assert (await world.make("loadbalancer", vip_subnet_id=SUBNET_ID, provider="octavia"))["provider"] == "octavia"


Clash = Callable[[World, str], Any]


async def _same_port(world: World, load_balancer_id: str) -> Any:
    await world.listener(load_balancer_id)
    return "listeners", {"listener": {"loadbalancer_id": load_balancer_id, "protocol": "TCP", "protocol_port": 80}}


async def _same_member(world: World, load_balancer_id: str) -> Any:
    pool_id = await world.pool(load_balancer_id)
    await world.member(pool_id)
    return f"pools/{pool_id}/members", {"member": {"address": "192.0.2.1", "protocol_port": 80}}


async def _second_monitor(world: World, load_balancer_id: str) -> Any:
    pool_id = await world.pool(load_balancer_id)
    await world.health_monitor(pool_id)
    return "healthmonitors", {
        "healthmonitor": {"pool_id": pool_id, "type": "TCP", "delay": 1, "timeout": 1, "max_retries": 1}
    }


async def _second_default_pool(world: World, load_balancer_id: str) -> Any:
    listener_id = await world.listener(load_balancer_id)
    await world.pool(load_balancer_id, listener_id=listener_id)
    return "pools", {"pool": {"listener_id": listener_id, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}}


@pytest.mark.parametrize("clash", [_same_port, _same_member, _second_monitor, _second_default_pool])
async def test_what_clashes_is_a_conflict_and_changes_nothing(world: World, clash: Clash) -> None:
    load_balancer_id = await world.load_balancer()
    path, body = await clash(world, load_balancer_id)
    before = await world.tree(load_balancer_id)
    answer = await world.call("POST", path, body)
    assert answer.status == 409, answer.body
    assert answer.fault
    assert await world.tree(load_balancer_id) == before


async def test_pool_that_a_policy_redirects_to_is_not_deleted(world: World) -> None:
    load_balancer_id = await world.load_balancer()
    listener_id, pool_id = await world.listener(load_balancer_id), await world.pool(load_balancer_id)
    await world.make("l7policy", listener_id=listener_id, action="REDIRECT_TO_POOL", redirect_pool_id=pool_id)
    assert (await world.call("DELETE", f"pools/{pool_id}")).status == 409


async def test_51st_rule_is_one_too_many(world: World) -> None:
    listener_id = await world.listener(await world.load_balancer())
    policy = await world.make("l7policy", listener_id=listener_id, action="REJECT")
    rules = f"l7policies/{policy['id']}/rules"
    for n in range(50):
        await world.make("rule", l7policy=policy["id"], type="PATH", compare_type="EQUAL_TO", value=f"/{n}")
    one_more = {"rule": {"type": "PATH", "compare_type": "EQUAL_TO", "value": "/more"}}
    assert (await world.call("POST", rules, one_more)).status == 409


async def test_member_through_another_pool_is_not_found(world: World) -> None:
    load_balancer_id = await world.load_balancer()
    one, other = await world.pool(load_balancer_id), await world.pool(load_balancer_id)
    member_id = await world.member(one)
    for method, body in (("GET", None), ("PUT", {"member": {"weight": 2}}), ("DELETE", None)):
        assert (await world.call(method, f"pools/{other}/members/{member_id}", body)).status == 404


async def test_unknown_subnet_of_a_member(world: World) -> None:
    pool_id = await world.pool(await world.load_balancer())
    body = {"address": "192.0.2.1", "protocol_port": 80, "subnet_id": UNKNOWN}
    answer = await world.call("POST", f"pools/{pool_id}/members", {"member": body})
    assert answer.status == 400
    assert answer.fault.startswith("member.subnet_id")


async def test_a_bug_costs_one_request_and_says_where_to_look(database_url: str) -> None:
    """The last resort, reached on purpose: a network that breaks its promise."""
    world = await World.open(database_url)
    world.network.faults.fail("allocate_vip", error=ZeroDivisionError("surprise"))
    answer = await world.call("POST", "loadbalancers", JSON_BODY)
    assert answer.status == 500
    assert answer.headers["x-openstack-request-id"] in answer.fault
    assert "surprise" not in answer.fault
    assert (await world.call("GET", "loadbalancers")).status == 200
    await world.close()


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=40),
    st.sampled_from(
        ["HTTP", "TCP", "UDP", "ROUND_ROBIN", "REJECT", "PATH", "EQUAL_TO", "192.0.2.1", SUBNET_ID, UNKNOWN]
    ),
)
_VALUES = st.recursive(
    _SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=10), x, max_size=3), max_leaves=6
)
_WORDS = st.sampled_from(
    [
        "name",
        "tags",
        "protocol",
        "protocol_port",
        "loadbalancer_id",
        "listener_id",
        "pool_id",
        "vip_subnet_id",
        "listeners",
        "pools",
        "members",
        "healthmonitor",
        "default_pool",
        "l7policies",
        "rules",
        "address",
        "weight",
        "type",
        "delay",
        "timeout",
        "max_retries",
        "url_path",
        "expected_codes",
        "session_persistence",
        "insert_headers",
        "allowed_cidrs",
        "action",
        "position",
        "redirect_url",
        "value",
        "key",
        "compare_type",
    ]
)
_PATHS = {
    "loadbalancers": "loadbalancer",
    "listeners": "listener",
    "pools": "pool",
    "pools/{pool}/members": "member",
    "healthmonitors": "healthmonitor",
    "l7policies": "l7policy",
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(sorted(_PATHS)), values=st.dictionaries(_WORDS, _VALUES, max_size=6), update=st.booleans())
async def test_no_body_reaches_the_last_resort(world: World, path: str, values: dict[str, Any], update: bool) -> None:
    """Whatever is sent is taken or refused in words (the fixture fails the test on any bug that was met)."""
    if not world.ids:
        load_balancer_id = await world.load_balancer()
        world.ids |= {
            "loadbalancer": load_balancer_id,
            "pool": await world.pool(load_balancer_id),
            "listener": await world.listener(load_balancer_id),
        }
    key = _PATHS[path]
    where = path.format(**world.ids)
    if update and key in world.ids:
        answer = await world.call("PUT", f"{where}/{world.ids[key]}", _encoded({key: values}))
    else:
        answer = await world.call("POST", where, _encoded({key: values}))
    assert answer.status in (200, 201, 400, 404, 409, 501), (answer.status, answer.body)


def _encoded(document: object) -> bytes:
    return json.dumps(document).encode()
