"""Every row of the error table of behaviours.yaml: at least one request each, with the status of its row.

A row that no case is written for fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from frontinus.api.identity.settings import StaticToken
from frontinus.api.settings import ApiSettings, Authentication, Immutability
from frontinus.model.errors import Retry
from frontinus.model.secrets import Secret

from tests.contract import facts
from tests.integration.api.contract.family import TREE, Family, rule_with
from tests.integration.api.contract.ledger import Ledger
from tests.integration.api.world import EVERYTHING, SUBNET_ID, UNKNOWN, Answer, World

ERRORS = facts.behaviours()["errors"]
BODY = {"loadbalancer": {"vip_subnet_id": SUBNET_ID}}
JSON_TYPE = {"Content-Type": "application/json"}

Asked = list[tuple[str, Answer]]
"""What was asked, and what came."""


async def test_media_types(world: World, ledger: Ledger) -> None:
    table = ERRORS["media_types"]
    for media_type in table["unknown_request_type"]["examples"]:
        answer = await world.call("POST", "loadbalancers", BODY, {"Content-Type": media_type})
        ledger.check(f"body of {media_type}", table["unknown_request_type"]["status"], answer.status)
    for media_type in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = await world.call("POST", "loadbalancers", b"a=b", {"Content-Type": media_type})
        ledger.check(f"form of {media_type}", table["form_body"], answer.status)
    for accepted in facts.behaviours()["http"]["request_headers"]["Content-Type"]["accepted"]:
        answer = await world.call("POST", "loadbalancers", BODY, {"Content-Type": f"{accepted}; charset=utf-8"})
        ledger.check(f"body of {accepted}", 201, answer.status)
    for accept in ("text/html", "application/xml", "image/*", "application/json;q=0"):
        answer = await world.call("GET", "loadbalancers", headers={"Accept": accept})
        ledger.check(f"Accept: {accept}", table["accept_without_json"], answer.status)
    fine: tuple[str | None, ...] = (
        "",
        None,
        "*/*",
        "application/*",
        "application/json",
        "text/html, */*;q=0.1",
        "APPLICATION/JSON",
    )
    for wanted in fine:
        answer = await world.call("GET", "loadbalancers", headers={"Accept": wanted})
        ledger.check(f"Accept: {wanted}", 200, answer.status)
    for size, status in ((ERRORS["too_large"]["limit_bytes"], 400), (ERRORS["too_large"]["limit_bytes"] + 1, 413)):
        for announced in (str(size), None):
            headers = {**JSON_TYPE, "Content-Length": announced}
            answer = await world.call("POST", "loadbalancers", b" " * size, headers)
            ledger.check(f"{size} bytes, announced {announced}", status, answer.status)


def recommended(row: Any) -> int:
    """The status of a row, or the one that it recommends."""
    if isinstance(row, dict):
        return int(row["recommended"] if "recommended" in row else row["status"])
    return int(str(row).rpartition(" ")[2])  # "same as unknown attribute, 400"


async def test_malformed(world: World, ledger: Ledger) -> None:
    table = dict(ERRORS["malformed"])
    for key in TREE:
        family = await Family.born(world)
        path, item, good = family.path(key), family.item(key), await family.minimum(key)

        async def check(row: str, case: str, method: str, where: str, body: Any = None, key: str = key) -> None:
            answer = await world.call(method, where, body)
            ledger.check(f"{row}: {case} {key}", recommended(table[row]), answer.status, answer.body)
            if answer.status >= 400:
                ledger.check(f"{row}: {case} {key}: has the error's body", True, bool(answer.fault))

        for method, where in (("POST", path), ("PUT", item)):
            for n, text in enumerate((b"{", b"nonsense", b"\xff\xfe", b"{'a': 1}", b'{"a": NaN}', b"[" * 20_000)):
                await check("invalid_json", f"{method} {n}", method, where, text)
            await check("empty_body_on_POST_PUT", method, method, where, b"")
            await check("unknown_attribute", method, method, where, {key: {**good, "colour": "red"}})
            for n, body in enumerate(({}, {key: None}, {"colour": {}}, {key: {}, "colour": 1})):
                await check("missing_or_null_envelope", f"{method} {n}", method, where, body)
            for n, body in enumerate(([], [good], "x", 1, b"null", {key: []}, {key: "x"}, {key: [good]})):
                await check("body_is_array_or_string", f"{method} {n}", method, where, body)
            await check("unknown_query_argument_on_POST_PUT_DELETE", method, method, f"{where}?a=b", {key: good})
        sent = {key: {**good, "id": UNKNOWN}}
        await check("read_only_or_immutable_attribute_sent", "POST", "POST", path, sent)
        await check("read_only_or_immutable_attribute_sent", "PUT", "PUT", item, {key: {"id": UNKNOWN}})
        await check("unknown_query_argument_on_POST_PUT_DELETE", "DELETE", "DELETE", f"{item}?a=b")
        await check("unknown_query_argument_on_list", "GET", "GET", f"{path}?colour=red")
        await check("GET_with_json_array_body", "list", "GET", path, b"[1]")
        await check("GET_with_json_array_body", "show", "GET", item, b"[]")
        await check("POST_to_item_path", "POST", "POST", item, {key: good})
        await check("PATCH", "collection", "PATCH", path)
        await check("PATCH", "item", "PATCH", item)
        await check("HEAD_on_api_resource", "collection", "HEAD", path)
        await check("HEAD_on_api_resource", "item", "HEAD", item)
        await check("OPTIONS", "collection", "OPTIONS", path)
        await check("OPTIONS", "item", "OPTIONS", item)
        await check("extra_path_segment_on_GET_item", "GET", "GET", f"{item}/more")
        for method in ("PUT", "DELETE"):
            if (key, method) != ("member", "PUT"):
                answer = await world.call(method, path, {key: good} if method == "PUT" else None)
                ledger.check(f"{method} on the collection of {key}", 400, answer.status, answer.body)
        for suffix in ("/", ".json"):
            answer = await world.call("GET", item + suffix)
            ledger.check(f"{key} with {suffix}", 200, answer.status)
        answer = await world.call("GET", item + ".xml")
        ledger.check(f"{key} with .xml", 404, answer.status, answer.body)
    looked_at = {name.split(":")[0] for name in ledger.names}
    told_apart = {"PUT_or_DELETE_on_collection", "trailing_slash", "suffix_json", "suffix_xml"}
    assert set(table) - looked_at == told_apart


# ---------------------------------------------------------------- status_by_class


async def vip(world: World, **values: Any) -> Answer:
    world.network.vips.clear()
    return await world.call("POST", "loadbalancers", {"loadbalancer": {"vip_subnet_id": SUBNET_ID, **values}})


async def _values(world: World, family: Family) -> Asked:
    return [
        ("a value", await family.create("listener", protocol_port=0)),
        ("a combination", await family.create("listener", protocol="TCP", insert_headers={"X-Forwarded-For": "true"})),
        ("on update", await family.update("healthmonitor", delay=-1)),
    ]


async def _lists(world: World, family: Family) -> Asked:
    queries = ("marker=x", "colour=x", "sort=colour", "limit=x", "sort=id:up")
    return [(x, await world.call("GET", f"loadbalancers?{x}")) for x in queries]


async def _references(world: World, family: Family) -> Asked:
    return [
        ("subnet", await vip(world, vip_subnet_id=UNKNOWN)),
        ("port", await vip(world, vip_port_id=UNKNOWN)),
        ("network", await vip(world, vip_network_id=UNKNOWN)),
        ("subnet of a member", await family.create("member", subnet_id=UNKNOWN)),
    ]


async def _offers(world: World, family: Family) -> Asked:
    return [
        ("flavor", await vip(world, flavor_id=UNKNOWN)),
        ("zone", await vip(world, availability_zone="nowhere")),
        ("provider", await vip(world, provider="nobody")),
    ]


async def _incomplete(world: World, family: Family) -> Asked:
    return [("no protocol", await vip(world, pools=[{"name": "a", "lb_algorithm": "ROUND_ROBIN"}]))]


async def _children(world: World, family: Family) -> Asked:
    return [("delete", await world.call("DELETE", family.item("loadbalancer")))]


async def _twice(world: World, family: Family) -> Asked:
    member = {"address": "192.0.2.1", "protocol_port": 80}
    return [("stored", await world.call("PUT", family.path("member"), {"members": [member, member]}))]


async def _sriov(world: World, family: Family) -> Asked:
    return [("request_sriov", await family.create("member", request_sriov=True))]


async def _unknown(world: World, family: Family) -> Asked:
    return [(key, await world.call("GET", f"{family.path(key)}/{UNKNOWN}")) for key in TREE]


async def _unknown_parents(world: World, family: Family) -> Asked:
    other = await Family.born(world)
    return [
        ("load balancer", await family.create("listener", loadbalancer_id=UNKNOWN)),
        ("listener", await family.create("l7policy", listener_id=UNKNOWN)),
        ("pool", await family.create("healthmonitor", pool_id=UNKNOWN)),
        ("policy", await world.call("GET", f"l7policies/{UNKNOWN}/rules")),
        ("pool of another", await family.create("listener", default_pool_id=other.ids["pool"])),
    ]


async def _foreign_pool(world: World, family: Family) -> Asked:
    other = await family.made("pool")
    return [("show", await world.call("GET", f"pools/{other}/members/{family.ids['member']}"))]


async def _not_offered(world: World, family: Family) -> Asked:
    return [("PATCH", await world.call("PATCH", "loadbalancers")), ("PUT", await world.call("PUT", "providers"))]


async def _accept(world: World, family: Family) -> Asked:
    return [("text/html", await world.call("GET", "loadbalancers", headers={"Accept": "text/html"}))]


async def _deleted(world: World, family: Family) -> Asked:
    await world.call("DELETE", f"{family.item('loadbalancer')}?cascade=true")
    return [
        ("load balancer", await family.update("loadbalancer", name="x")),
        ("pool", await family.update("pool", name="x")),
        ("member", await family.create("member")),
        ("rule", await family.create("rule")),
    ]


async def _ports(world: World, family: Family) -> Asked:
    return [("TCP beside HTTP", await family.create("listener", protocol="TCP", protocol_port=80))]


async def _members(world: World, family: Family) -> Asked:
    return [("again", await family.create("member", address="192.0.2.1", protocol_port=80))]


async def _monitors(world: World, family: Family) -> Asked:
    return [("second", await family.create("healthmonitor", pool_id=family.ids["pool"]))]


async def _default_pools(world: World, family: Family) -> Asked:
    await family.made("pool", listener_id=family.ids["listener"])
    return [("second", await family.create("pool", listener_id=family.ids["listener"]))]


async def _used_pools(world: World, family: Family) -> Asked:
    await family.made("l7policy", action="REDIRECT_TO_POOL")
    return [("delete", await world.call("DELETE", family.item("pool")))]


async def _rules(world: World, family: Family) -> Asked:
    for n in range(49):
        await family.made("rule", **rule_with("PATH", f"/{n}"))
    return [("51st", await family.create("rule"))]


async def _addresses(world: World, family: Family) -> Asked:
    await world.load_balancer(vip_address="198.51.100.200")
    body = {"vip_subnet_id": SUBNET_ID, "vip_address": "198.51.100.200"}
    return [("again", await world.call("POST", "loadbalancers", {"loadbalancer": body}))]


async def _too_large(world: World, family: Family) -> Asked:
    return [("body", await world.call("POST", "loadbalancers", b" " * (ERRORS["too_large"]["limit_bytes"] + 1)))]


async def _media(world: World, family: Family) -> Asked:
    return [("text", await world.call("POST", "loadbalancers", BODY, {"Content-Type": "text/plain"}))]


async def _unsupported(world: World, family: Family) -> Asked:
    """A provider that offers nothing but plain HTTP."""
    await world.register(replace(EVERYTHING, features=frozenset()), provider="plain")
    made = (await vip(world, provider="plain")).one("loadbalancer")["id"]
    listener = {"loadbalancer_id": made, "protocol": "HTTP", "protocol_port": 1, "connection_limit": 5}
    return [("a limit", await world.call("POST", "listeners", {"listener": listener}))]


async def _broken(world: World, family: Family) -> Asked:
    """Not a provider of ours, which is never called while the request is answered, but the network."""
    world.network.faults.fail("allocate_vip", error=Retry("out of order", after=1))
    answer = await vip(world)
    assert answer.status == 503, "what passes by waiting is 503 with Retry-After, not 500"
    return []


Case = Callable[[World, Family], Awaitable[Asked]]

CASES: dict[tuple[int, str], Case] = {
    (400, "validation of any field, value or cross-field rule"): _values,
    (400, "invalid marker / filter / sort key / limit"): _lists,
    (400, "referenced port, subnet, network, QoS policy or security group does not exist"): _references,
    (
        400,
        "flavor or availability zone unknown or disabled; provider not enabled; provider contradicts flavor",
    ): _offers,
    (400, "incomplete nested pool definition"): _incomplete,
    (400, "load balancer with children deleted without cascade"): _children,
    (400, "vip_vnic_type direct with security groups; request_sriov without the flavor allowing it"): _sriov,
    (400, "an existing member listed twice in a batch"): _twice,
    (404, "object unknown or deleted"): _unknown,
    (404, "referenced loadbalancer/listener/pool/l7policy unknown or on another load balancer"): _unknown_parents,
    (404, "member addressed through a foreign pool"): _foreign_pool,
    (405, "method not offered"): _not_offered,
    (406, "Accept excludes JSON"): _accept,
    (409, "load balancer (or pool / l7policy parent) not in a mutable state"): _deleted,
    (409, "listener port duplicate inside its L4 family"): _ports,
    (409, "duplicate member (address, port) in pool"): _members,
    (409, "second health monitor on a pool"): _monitors,
    (409, "listener already has a default pool"): _default_pools,
    (409, "pool still used by an l7policy (delete)"): _used_pools,
    (409, "more than 50 rules in an l7policy"): _rules,
    (409, "VIP address already taken (from provider)"): _addresses,
    (413, "body too large"): _too_large,
    (415, "unsupported request media type"): _media,
    (500, "provider driver failure"): _broken,
    (501, "provider lacks the feature or rejects an option"): _unsupported,
}
ELSEWHERE: dict[tuple[int, str], str] = {
    (400, "option switched off by configuration"): "test_house_settings.py, with each switch off",
    (401, "no or invalid token"): "test_who_may, below",
    (403, "policy denied"): "test_who_may, below",
    (409, "amphora not in ERROR (delete)"): "test_amphorae.py, which has amphorae",
    (409, "provider reported a conflict"): "no provider of ours is asked while a request is answered",
    (500, "unhandled error"): "test_errors.py, with a network that breaks its promise",
    (501, "provider not loadable"): "test_errors.py, without a controller",
    (403, "quota exceeded"): "test_offers.py, and tests/integration/api/test_quotas.py",
    (
        409,
        "flavor / profile / zone in use or duplicate name",
    ): "test_offers.py, and tests/integration/api/test_quotas.py",
    (
        501,
        "provider rejects flavor or availability zone data",
    ): "test_offers.py, and tests/integration/api/test_quotas.py",
    (400, "certificate or secret unreadable"): "tests/integration/api/test_secret_references.py",
    (503, "quota record of the project locked by a concurrent request"): "requests wait for each other in the database",
}
"""Rows whose case is somewhere else, or cannot come."""


async def test_status_by_class(world: World, ledger: Ledger) -> None:
    told = set(CASES) | set(ELSEWHERE)
    table = {(int(status), str(text)) for status, text in _flat()}
    assert table - told == set(), "rows without a case"
    assert told - table == set(), "cases without a row"
    for (status, row), case in CASES.items():
        family = await Family.born(world)
        for name, answer in await case(world, family):
            ledger.check(f"{status} {row}: {name}", status, answer.status, answer.body)
            ledger.check(f"{status} {row}: {name}: has the error's body", True, bool(answer.fault))


def _flat() -> list[tuple[int, str]]:
    return [
        (status, text)
        for status, texts in ERRORS["status_by_class"].items()
        for text in (texts if isinstance(texts, list) else [texts])
    ]


async def test_who_may(database: Path, ledger: Ledger) -> None:
    token = StaticToken(token=Secret("reader-0123456789"), project_id="p", roles=("reader",))
    world = await World.open(database, settings=ApiSettings(auth=Authentication.TOKEN, tokens=(token,)))
    try:
        for sent in (None, "", "wrong-0123456789"):
            for where in ("/v2/lbaas/loadbalancers", "/v2/nothing", f"/v2/lbaas/pools/{UNKNOWN}/members", "/v2"):
                answer = await world.call("GET", where, headers={"X-Auth-Token": sent})
                ledger.check(f"401: {where} with {sent}", 401, answer.status)
                ledger.check(f"401: {where} with {sent}: body", {"error"}, set(answer.json))
                ledger.check(f"401: {where} with {sent}: challenge", True, "www-authenticate" in answer.headers)
        for where in facts.behaviours()["http"]["unauthenticated_paths"]:
            answer = await world.call("GET", where)
            ledger.check(f"open: {where}", True, answer.status in (200, 204, 404))
        body = {"loadbalancer": {"vip_subnet_id": SUBNET_ID}}
        answer = await world.call("POST", "loadbalancers", body, {"X-Auth-Token": "reader-0123456789"})
        ledger.check("403: a reader creates", 403, answer.status, answer.body)
        wrong = {"loadbalancer": {"colour": 1}}
        answer = await world.call("POST", "loadbalancers", wrong, {"X-Auth-Token": "reader-0123456789"})
        ledger.check("400 before 403: a reader creates nonsense", 400, answer.status, answer.body)
    finally:
        await world.close()


async def test_order_of_refusals(database: Path, ledger: Ledger) -> None:
    """behaviours.yaml errors.precedence, for a request that is wrong in many ways at once."""
    world = await World.open(database, settings=ApiSettings(immutable=Immutability.STRICT))
    try:
        family = await Family.born(world)  # PENDING_CREATE, so that every change is 409 at last
        text = {"Content-Type": "text/plain"}
        wrong = {"listener": {"protocol_port": "x"}}
        for name, expected, method, where, body, headers in (
            ("path before media type", 404, "POST", "/v2/nowhere", wrong, text),
            ("method before media type", 405, "PATCH", "listeners", wrong, text),
            ("media type before syntax", 415, "POST", "listeners", b"{", text),
            ("syntax before existence", 400, "PUT", f"listeners/{UNKNOWN}", b"{", None),
            ("types before existence", 400, "PUT", f"listeners/{UNKNOWN}", {"listener": {"name": 1}}, None),
            ("existence before values", 404, "PUT", f"listeners/{UNKNOWN}", {"listener": {"hsts_max_age": 1}}, None),
            ("values before state", 400, "PUT", family.item("listener"), {"listener": {"hsts_max_age": 1}}, None),
            ("state at last", 409, "PUT", family.item("listener"), {"listener": {"name": "x"}}, None),
        ):
            answer = await world.call(method, where, body, headers)
            ledger.check(name, expected, answer.status, answer.body)
    finally:
        await world.close()
