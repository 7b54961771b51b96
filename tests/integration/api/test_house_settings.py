"""Settings by which an operator offers less, or fills in otherwise (behaviours.yaml configuration)."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from frontinus import main
from frontinus.api.settings import ApiSettings
from frontinus.model.errors import Invalid
from frontinus.settings import Settings

from tests.integration.api.world import SUBNET_ID, World

TLS: dict[str, Any] = {"protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_tls_container_ref": "ref"}


@asynccontextmanager
async def house(database: Path, **values: Any) -> AsyncIterator[World]:
    world = await World.open(database, settings=dataclasses.replace(ApiSettings(), **values))
    yield world
    await world.close()


@pytest.mark.parametrize(
    "values, listener, named",
    [
        pytest.param({"allow_tls_terminated_listeners": False}, TLS, "protocol", id="no TLS"),
        pytest.param(
            {"allow_prometheus_listeners": False},
            {"protocol": "PROMETHEUS", "protocol_port": 9090},
            "protocol",
            id="no PROMETHEUS",
        ),
        pytest.param(
            {"tls_cipher_prohibit_list": ("RC4-SHA",)},
            {**TLS, "tls_ciphers": "AES128-SHA:RC4-SHA"},
            "RC4-SHA",
            id="cipher",
        ),
        pytest.param({"minimum_tls_version": "TLSv1.3"}, {**TLS, "tls_versions": ["TLSv1.2"]}, "TLSv1.2", id="old TLS"),
    ],
)
async def test_what_is_not_allowed_is_refused_in_every_way_in(
    database: Path, values: dict[str, Any], listener: dict[str, Any], named: str
) -> None:
    async with house(database, **values) as world:
        whole = {"vip_subnet_id": SUBNET_ID, "listeners": [listener]}
        single = {**listener, "loadbalancer_id": await world.load_balancer()}
        for path, key, asked in (("loadbalancers", "loadbalancer", whole), ("listeners", "listener", single)):
            answer = await world.call("POST", path, {key: asked})
            assert (answer.status, named in answer.fault) == (400, True), answer.body
    async with house(database) as world:
        assert (await world.call("POST", "listeners", {"listener": single})).status == 201


async def test_what_is_older_than_a_rule_can_still_be_edited(database: Path) -> None:
    async with house(database) as world:
        load_balancer = await world.load_balancer()
        listener = await world.listener(load_balancer, **TLS, tls_versions=["TLSv1.1"])
        pool = (await world.make("pool", listener_id=listener, protocol="HTTP", lb_algorithm="ROUND_ROBIN"))["id"]
    async with house(database, minimum_tls_version="TLSv1.2", allow_tls_terminated_listeners=False) as world:
        await world.member(pool)
        where = f"listeners/{listener}"
        assert (await world.call("PUT", where, {"listener": {"name": "n"}})).status == 200
        assert (await world.call("PUT", where, {"listener": {"tls_versions": ["TLSv1"]}})).status == 400
        assert (await world.call("PUT", where, {"listener": {"tls_versions": ["TLSv1.2"]}})).status == 200


async def test_monitors_and_members_by_the_house_rules(database: Path) -> None:
    values = {
        "allow_ping_health_monitors": False,
        "udp_connect_min_interval_health_monitor": 7,
        "reserved_ips": ("192.0.2.99",),
    }
    async with house(database, **values) as world:
        load_balancer = await world.load_balancer()
        pool = await world.pool(load_balancer)
        udp = await world.pool(load_balancer, protocol="UDP")
        timing = {"timeout": 2, "max_retries": 3}
        ping = {"pool_id": pool, "type": "PING", "delay": 9, **timing}
        assert (await world.call("POST", "healthmonitors", {"healthmonitor": ping})).status == 400
        connect = {"pool_id": udp, "type": "UDP-CONNECT", "delay": 6, **timing}
        assert (await world.call("POST", "healthmonitors", {"healthmonitor": connect})).status == 400
        assert (await world.call("POST", "healthmonitors", {"healthmonitor": connect | {"delay": 7}})).status == 201
        member = {"address": "192.0.2.99", "protocol_port": 80}
        assert (await world.call("POST", f"pools/{pool}/members", {"member": member})).status == 400
        assert (await world.call("PUT", f"pools/{pool}/members", {"members": [member]})).status == 400
        assert (
            await world.call("POST", f"pools/{pool}/members", {"member": member | {"address": "169.254.169.254"}})
        ).status == 201


async def test_tls_defaults_are_the_operators_at_create_and_on_null(database: Path) -> None:
    values = {
        "default_listener_tls_versions": ("TLSv1.3",),
        "default_listener_alpn_protocols": ("http/1.1",),
        "default_listener_ciphers": "AES128-SHA",
        "default_pool_tls_versions": ("TLSv1.2",),
        "default_pool_alpn_protocols": ("h2",),
        "default_pool_ciphers": "AES256-SHA",
    }
    of_listener = {"tls_versions": ["TLSv1.3"], "alpn_protocols": ["http/1.1"], "tls_ciphers": "AES128-SHA"}
    of_pool = {"tls_versions": ["TLSv1.2"], "alpn_protocols": ["h2"], "tls_ciphers": "AES256-SHA"}
    async with house(database, **values) as world:
        pools = [{"name": "p", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "tls_enabled": True}]
        made = await world.make("loadbalancer", vip_subnet_id=SUBNET_ID, listeners=[TLS], pools=pools)
        for key, collection, defaults in (("listener", "listeners", of_listener), ("pool", "pools", of_pool)):
            shown = made[collection][0]
            assert {name: shown[name] for name in defaults} == defaults
            where = f"{collection}/{shown['id']}"
            own = {
                "tls_versions": ["TLSv1.2", "TLSv1.3"],
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_ciphers": "DES-CBC-SHA",
            }
            assert (await world.call("PUT", where, {key: own})).status == 200
            again = (await world.call("PUT", where, {key: dict.fromkeys(defaults)})).one(key)
            expected = defaults | ({"alpn_protocols": None} if key == "pool" else {})
            assert {name: again[name] for name in defaults} == expected, key


async def test_lists_without_pages_order_filters_and_fields(database: Path) -> None:
    off = {f"allow_{x}": False for x in ("pagination", "sorting", "filtering", "field_selection")}
    async with house(database, **off, pagination_max_limit=1) as world:
        ids = [await world.load_balancer(name=name) for name in ("b", "a")]
        shown = await world.call("GET", f"loadbalancers?limit=1&marker={ids[0]}&sort=name&name=a&fields=id&nonsense=1")
        assert [x["id"] for x in shown.json["loadbalancers"]] == ids
        assert shown.json["loadbalancers_links"] == []
        assert "name" in (await world.call("GET", f"loadbalancers/{ids[0]}?fields=id")).one("loadbalancer")
        assert (await world.call("GET", "loadbalancers?project_id=other")).json["loadbalancers"] == []


@pytest.mark.parametrize(
    "values, field",
    [
        ({"minimum_tls_version": "TLSv9"}, "minimum_tls_version"),
        ({"minimum_tls_version": "TLSv1.3"}, "default_listener_tls_versions"),
        ({"default_pool_tls_versions": ()}, "default_pool_tls_versions"),
        ({"default_listener_alpn_protocols": ("spdy",)}, "default_listener_alpn_protocols"),
        ({"tls_cipher_prohibit_list": ("TLS_AES_128_GCM_SHA256",)}, "default_listener_ciphers"),
        ({"reserved_ips": ("here",)}, "reserved_ips"),
    ],
    ids=str,
)
def test_settings_that_no_listener_could_live_with_are_refused(values: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        main.check(Settings(api=dataclasses.replace(ApiSettings(), **values)))
    assert refused.value.field == f"api.{field}"
