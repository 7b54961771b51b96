"""Lists by the contract's data: every name that filters and sorts, every name that does not, pages and links."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from tests.contract import facts
from tests.integration.api.contract.family import CERTIFICATE, TREE, Family, resource_of
from tests.integration.api.contract.ledger import Ledger
from tests.integration.api.world import SUBNET_ID, UNKNOWN, World

FILTERABLE = facts.resources()["filterable"]
LISTING = facts.behaviours()["listing"]
UNUSUAL: dict[str, dict[str, Any]] = {
    "loadbalancer": {"description": "d", "admin_state_up": False, "vip_qos_policy_id": UNKNOWN},
    "listener": {
        "description": "d",
        "admin_state_up": False,
        "protocol": "TERMINATED_HTTPS",
        "default_tls_container_ref": CERTIFICATE,
        "client_ca_tls_container_ref": CERTIFICATE,
        "client_crl_container_ref": CERTIFICATE,
        "client_authentication": "OPTIONAL",
        "connection_limit": 7,
        "timeout_client_data": 7,
        "timeout_member_connect": 7,
        "timeout_member_data": 7,
        "timeout_tcp_inspect": 7,
        "tls_ciphers": "AES",
        "hsts_max_age": 7,
        "hsts_include_subdomains": True,
        "hsts_preload": True,
    },
    "pool": {
        "description": "d",
        "admin_state_up": False,
        "protocol": "TCP",
        "lb_algorithm": "SOURCE_IP",
        "tls_container_ref": CERTIFICATE,
        "ca_tls_container_ref": CERTIFICATE,
        "crl_container_ref": CERTIFICATE,
        "tls_enabled": True,
        "tls_ciphers": "AES",
    },
    "member": {
        "admin_state_up": False,
        "weight": 7,
        "backup": True,
        "subnet_id": SUBNET_ID,
        "monitor_address": "192.0.2.200",
        "monitor_port": 7,
    },
    "healthmonitor": {
        "admin_state_up": False,
        "delay": 7,
        "timeout": 7,
        "max_retries": 7,
        "max_retries_down": 7,
        "http_method": "PUT",
        "url_path": "/x",
        "expected_codes": "207",
        "http_version": 1.1,
        "domain_name": "www.example.com",
    },
    "l7policy": {
        "description": "d",
        "admin_state_up": False,
        "action": "REDIRECT_TO_URL",
        "redirect_url": "http://www.example.com",
        "redirect_http_code": 307,
    },
    "rule": {"admin_state_up": False, "type": "HEADER", "compare_type": "CONTAINS", "key": "X-Name", "invert": True},
}
"""An object that differs from the usual one in as much as it can."""


def names_of(key: str) -> list[str]:
    return [x for x in FILTERABLE[resource_of(key)["collection_key"]] if not x.endswith("*")]


@pytest.mark.parametrize("key", TREE)
async def test_filters_and_order(world: World, ledger: Ledger, key: str) -> None:
    family = await Family.born(world)
    if key == "l7policy":
        await family.made(key, action="REDIRECT_PREFIX")
        await family.made(key, action="REDIRECT_TO_POOL")
    unusual = {**UNUSUAL[key], **({} if key == "rule" else {"name": "unusual"})}
    if key == "listener":
        unusual["default_pool_id"] = family.ids["pool"]
    other_id = await family.made(key, **unusual)
    if key == "pool":
        await world.health_monitor(other_id, type="TCP")
    await family.update(key, other_id, admin_state_up=False)
    path, collection = family.path(key), resource_of(key)["collection_key"]
    everything = (await world.call("GET", path)).json[collection]
    ids_of_all = {x["id"] for x in everything}
    for name in names_of(key):
        for one in everything:
            value = await value_of(family, key, name, one)
            if value is None:
                continue
            who = "unusual" if one["id"] == other_id else f"number {everything.index(one)}"
            answer = await world.call("GET", f"{path}?{name}={quote(text_of(value), safe='')}")
            found = {x["id"] for x in answer.json.get(collection, ())}
            alike = set()
            for x in everything:
                if await value_of(family, key, name, x) == value:
                    alike.add(x["id"])
            ledger.check(f"{name} of {who} finds it and those like it", alike, found, answer.body[:200])
        answer = await world.call("GET", f"{path}?{name}=no-such-value")
        is_clear = answer.status in (200, 400)
        ledger.check(f"{name} by what there is not", True, is_clear, answer.body)
        for direction in ("asc", "desc"):
            if name == "healthmonitor_id":
                continue  # not of the pool's own: see below
            answer = await world.call("GET", f"{path}?sort={name}:{direction}")
            ledger.check(f"sort={name}:{direction} shows all", ids_of_all, {x["id"] for x in answer.json[collection]})
            values = [await value_of(family, key, name, x) for x in answer.json[collection]]
            known = [x for x in values if x is not None]
            expected = sorted(known, reverse=direction == "desc")
            ledger.check(f"sort={name}:{direction} is in order", expected, known)
            two = await world.call("GET", f"{path}?sort_key={name}&sort_dir={direction}")
            ledger.check(f"sort_key={name} {direction} is the same", answer.json[collection], two.json[collection])
    unknown = [x.split(" ")[0] for x in FILTERABLE["rejected"] if key in x or " on " not in x]
    for name in sorted({*unknown, "colour", *unfilterable(key)}):
        for query in (f"{name}=x", f"sort={name}", f"sort_key={name}"):
            answer = await world.call("GET", f"{path}?{query}")
            ledger.check(f"{query} is refused", 400, answer.status, answer.body)
    repeated = await world.call("GET", f"{path}?id=a&id=b")
    ledger.check("a filter twice", 400, repeated.status, repeated.body)


def unfilterable(key: str) -> set[str]:
    """Shown attributes that the contract does not name among the filters."""
    shown = {wire for wire, fact in resource_of(key)["fields"].items() if fact["in_response"]}
    return shown - set(names_of(key)) - {"tags", "tenant_id"}


async def value_of(family: Family, key: str, name: str, one: Any) -> Any:
    """What an object has where a filter looks: mostly an attribute that is shown."""
    owners = {
        "loadbalancer_id": family.ids["loadbalancer"],
        "pool_id": (one.get("pools") or [{"id": None}])[0]["id"],
        "topology": "SINGLE",
        "vip_vnic_type": "normal",
    }
    return owners[name] if name in owners and name not in one else one.get(name)


def text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


async def many(world: World, count: int) -> tuple[Family, list[str]]:
    family = await Family.born(world)
    for n in range(count):
        family.next_port = 9000 + n
        await family.made("member", name=f"m{n}")
    listed = (await world.call("GET", family.path("member"))).json["members"]
    return family, [x["id"] for x in listed]


async def test_pages(world: World, ledger: Ledger) -> None:
    """Whole walks, forwards and backwards, over every size of page; links as behaviours.yaml listing.links has them."""
    family, ids = await many(world, 6)
    path = f"/v2/lbaas/{family.path('member')}"
    for limit in range(1, len(ids) + 2):
        seen: list[str] = []
        where: str | None = f"{path}?limit={limit}&sort=created_at&fields=id"
        pages = []
        while where is not None:
            answer = await world.call("GET", where)
            page = [x["id"] for x in answer.json["members"]]
            seen += page
            links = {x["rel"]: x["href"] for x in answer.json["members_links"]}
            pages.append((where, page, links))
            parts = urlsplit(links.get("next", ""))
            where = f"{parts.path}?{parts.query}" if "next" in links else None
            if not page:
                break
        ledger.check(f"pages of {limit}: all, once, in order", ids, seen)
        for n, (asked, page, links) in enumerate(pages):
            full = len(page) == limit
            ledger.check(f"page {n} of {limit}: next", full, "next" in links, asked)
            ledger.check(f"page {n} of {limit}: previous", n > 0 and bool(page), "previous" in links, asked)
            if "next" in links:
                query = dict(parse_qsl(urlsplit(links["next"]).query))
                kept = {"limit": str(limit), "sort": "created_at", "fields": "id", "marker": page[-1]}
                ledger.check(f"page {n} of {limit}: next keeps all", kept, query)
            if "previous" in links and n > 0:
                parts = urlsplit(links["previous"])
                back = (await world.call("GET", f"{parts.path}?{parts.query}")).json["members"]
                ledger.check(
                    f"page {n} of {limit}: previous is the page before", pages[n - 1][1], [x["id"] for x in back]
                )
    for unlimited in ("0", "-1", "infinite"):
        answer = await world.call("GET", f"{path}?limit={unlimited}")
        ledger.check(f"limit={unlimited} is all", ids, [x["id"] for x in answer.json["members"]])
        ledger.check(f"limit={unlimited} has no next page", [], answer.json["members_links"])
    for wrong in ("None", "x", "1.5", ""):
        answer = await world.call("GET", f"{path}?limit={wrong}")
        ledger.check(f"limit={wrong} is refused", 400, answer.status)
    for marker in (UNKNOWN, "x", ""):
        answer = await world.call("GET", f"{path}?marker={marker}")
        ledger.check(f"marker={marker} is refused", 400, answer.status, answer.body)
    for direction in ("up", "ascending"):
        answer = await world.call("GET", f"{path}?sort=id:{direction}")
        ledger.check(f"direction {direction} is refused", 400, answer.status)
    for order in ("sort=id:DESC", "sort_key=id&sort_dir=DESC,asc,asc"):
        answer = await world.call("GET", f"{path}?{order}")
        ledger.check(order, sorted(ids, reverse=True), [x["id"] for x in answer.json["members"]])


@pytest.mark.parametrize("collection", LISTING["tags"]["resources"])
async def test_tags(world: World, ledger: Ledger, collection: str) -> None:
    key = next(x for x in TREE if resource_of(x)["collection_key"] == collection)
    family = await Family.born(world)
    sets = {frozenset(x) for x in ((), ("a",), ("b",), ("a", "b"), ("a", "b", "c"))}
    ids = {await family.made(key, tags=sorted(x)): x for x in sorted(sets, key=sorted)}
    rules: dict[str, Callable[[frozenset[str], frozenset[str]], bool]] = {
        "tags": lambda have, want: want <= have,
        "tags-any": lambda have, want: bool(want & have),
        "not-tags": lambda have, want: not want <= have,
        "not-tags-any": lambda have, want: not want & have,
    }
    for name, rule in rules.items():
        for wanted in ("a", "b", "a,b", "a,b,c", "d"):
            expected = {x for x, tags in ids.items() if rule(tags, frozenset(wanted.split(",")))}
            for form, query in (
                ("list", f"{name}={wanted}"),
                ("repeated", "&".join(f"{name}={x}" for x in wanted.split(","))),
            ):
                answer = await world.call("GET", f"{family.path(key)}?{query}")
                found = {x["id"] for x in answer.json[collection]} & set(ids)
                ledger.check(f"{name}={wanted}, {form}", expected, found)
    both = await world.call("GET", f"{family.path(key)}?tags=a&not-tags-any=b")
    found = {x["id"] for x in both.json[collection]} & set(ids)
    ledger.check("tags and not-tags-any", {x for x, tags in ids.items() if tags == {"a"}}, found)


async def test_chosen_attributes(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    for key in TREE:
        for where in (family.path(key), family.item(key)):

            async def picked(query: str, where: str = where, key: str = key) -> Any:
                body = (await world.call("GET", f"{where}?{query}")).json
                return body[key] if key in body else body[resource_of(key)["collection_key"]][0]

            one = await picked("fields=id&fields=admin_state_up")
            ledger.check(f"{where.count('/')} {key}: two", {"id", "admin_state_up"}, set(one))
            ledger.check(f"{where.count('/')} {key}: comma list", {}, await picked("fields=id,admin_state_up"))
            ledger.check(f"{where.count('/')} {key}: unknown name", {}, await picked("fields=colour"))
            ledger.check(f"{where.count('/')} {key}: tenant_id", {}, await picked("fields=tenant_id"))
