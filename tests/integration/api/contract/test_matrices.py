"""What goes with what: every matrix of resources.yaml over HTTP, cell by cell, on every way in."""

from __future__ import annotations

import string
from typing import Any

from tests.contract import facts
from tests.integration.api.contract.family import CERTIFICATE, Family, encoded, listener_with, rule_with
from tests.integration.api.contract.ledger import Ledger
from tests.integration.api.world import SUBNET_ID, Answer, World

MATRICES = facts.resources()["matrices"]
HTTP_FIELDS = MATRICES["healthmonitor_http_fields"]


def is_refused(answer: Answer) -> bool:
    """Refused as a value or combination that is never right; all else than that is a success or another rule's word."""
    assert answer.status < 500 or answer.status == 501, answer.body
    return answer.status == 400


async def whole(world: World, **tree: Any) -> Answer:
    world.network.vips.clear()
    return await world.call("POST", "loadbalancers", encoded({"loadbalancer": {"vip_subnet_id": SUBNET_ID, **tree}}))


async def test_listener_and_pool_protocols(world: World, ledger: Ledger) -> None:
    for listener_protocol, row in MATRICES["listener_to_pool_protocol"]["grid"].items():
        family = await Family.born(world)
        bare = await family.made("listener", protocol=listener_protocol)
        listener = {**listener_with(listener_protocol), "protocol": listener_protocol, "protocol_port": 1}
        for pool_protocol, fits in row.items():
            cell = f"{listener_protocol} listener, {pool_protocol} pool: "
            pool = family.sample_pool(pool_protocol)
            pool_id = await family.made("pool", **pool)

            def check(way: str, answer: Answer, cell: str = cell, fits: bool = fits) -> None:
                ledger.check(cell + way, not fits, is_refused(answer), answer.body)

            check(
                "listener created",
                await family.create(
                    "listener",
                    **{**listener_with(listener_protocol), "protocol": listener_protocol, "default_pool_id": pool_id},
                ),
            )
            check("listener updated", await family.update("listener", bare, default_pool_id=pool_id))
            await family.update("listener", bare, default_pool_id=None)
            check("pool of a listener", await family.create("pool", **pool, listener_id=bare))
            await family.update("listener", bare, default_pool_id=None)
            body = {**pool, "listener_id": bare}
            answer = await world.call("POST", "pools", {"pool": body})
            check("pool of a listener alone", answer)
            await family.update("listener", bare, default_pool_id=None)
            check("whole tree", await whole(world, listeners=[{**listener, "default_pool": pool}]))
            policy = {"action": "REDIRECT_TO_POOL", "redirect_pool_id": pool_id, "listener_id": bare}
            check("policy created", await family.create("l7policy", **policy))
            policies = [{"action": "REDIRECT_TO_POOL", "redirect_pool": pool}]
            check("policy in a whole tree", await whole(world, listeners=[{**listener, "l7policies": policies}]))
            if listener_protocol in ("HTTP", "TERMINATED_HTTPS"):  # where alone policies are: l7policy_action
                policy_id = await family.made("l7policy", listener_id=bare)
                change = {"action": "REDIRECT_TO_POOL", "redirect_pool_id": pool_id}
                check("policy updated", await family.update("l7policy", policy_id, **change))


async def test_ports_of_listeners(world: World, ledger: Ledger) -> None:
    families = facts.behaviours()["uniqueness"]["listener_port"]["families"]
    family_of = {protocol: name for name, protocols in families.items() for protocol in protocols}
    for one, of_one in family_of.items():
        for other, of_other in family_of.items():
            family = await Family.born(world)
            await family.made("listener", **{**listener_with(one), "protocol": one, "protocol_port": 9})
            answer = await family.create("listener", **{**listener_with(other), "protocol": other, "protocol_port": 9})
            expected = 409 if of_one == of_other else 201
            ledger.check(f"{one} and {other}", expected, answer.status, answer.body)
            listeners = [{**listener_with(x), "protocol": x, "protocol_port": 9} for x in (one, other)]
            answer = await whole(world, listeners=listeners)
            ledger.check(f"{one} and {other} in a whole tree", expected, answer.status, answer.body)


async def test_health_monitors_of_pools(world: World, ledger: Ledger) -> None:
    for pool_protocol, row in MATRICES["pool_to_healthmonitor_type"]["grid"].items():
        family = await Family.born(world)
        for type_, fits in row.items():
            pool = family.sample_pool(pool_protocol)
            pool_id = await family.made("pool", **pool)
            monitor = {"type": type_, "delay": 3, "timeout": 2, "max_retries": 3}
            answer = await family.create("healthmonitor", **monitor, pool_id=pool_id)
            ledger.check(f"{pool_protocol} pool, {type_}", 201 if fits else 400, answer.status, answer.body)
            answer = await whole(world, pools=[{**pool, "healthmonitor": monitor}])
            ledger.check(f"{pool_protocol} pool, {type_}, in a whole tree", 201 if fits else 400, answer.status)


async def test_udp_connect_is_not_hurried(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    least = MATRICES["pool_to_healthmonitor_type"]["udp_connect_min_delay"]["default"]
    for delay in (0, least - 1, least, least + 1):
        pool_id = await family.made("pool", protocol="UDP")
        answer = await family.create("healthmonitor", type="UDP-CONNECT", delay=delay, pool_id=pool_id)
        ledger.check(f"delay {delay}", 201 if delay >= least else 400, answer.status, answer.body)
        if answer.status == 201:
            updated = await family.update("healthmonitor", answer.one("healthmonitor")["id"], delay=least - 1)
            ledger.check(f"delay {delay} updated to less", 400, updated.status, updated.body)


async def test_http_attributes_of_health_monitors(world: World, ledger: Ledger) -> None:
    samples = {"http_method": "PUT", "url_path": "/x", "expected_codes": "201"}
    assert set(samples) == set(HTTP_FIELDS["fields"])
    types = MATRICES["pool_to_healthmonitor_type"]["grid"]["HTTP"]
    for type_ in types:
        family = await Family.born(world)
        has = type_ in HTTP_FIELDS["types_with_http_fields"]
        made = (await family.create("healthmonitor", type=type_)).one("healthmonitor")
        for name, value in samples.items():
            default = HTTP_FIELDS["defaults_for_http_types"][name] if has else None
            ledger.check(f"{type_}: default of {name}", default, made[name])
            answer = await family.create("healthmonitor", type=type_, **{name: value})
            ledger.check(f"{type_} created with {name}", 201 if has else 400, answer.status, answer.body)
            for changed in (value, None):
                answer = await family.update("healthmonitor", made["id"], **{name: changed})
                ledger.check(f"{type_} updated with {name} {changed}", 200 if has else 400, answer.status, answer.body)
        if type_ == "SCTP" or type_ == "UDP-CONNECT":
            continue
        for version in (*HTTP_FIELDS["http_version_domain_name"]["http_version_values"], None):
            answer = await family.create("healthmonitor", type=type_, http_version=version)
            ledger.check(f"{type_}: http_version {version}", 201, answer.status, answer.body)
            with_name = await family.create(
                "healthmonitor", type=type_, http_version=version, domain_name="www.example.com"
            )
            expected = 201 if version == 1.1 else 400
            ledger.check(f"{type_}: domain_name with {version}", expected, with_name.status, with_name.body)
            stored = answer.one("healthmonitor")["id"]
            updated = await family.update("healthmonitor", stored, domain_name="www.example.com")
            ledger.check(f"{type_}: domain_name given to {version}", 200 if version == 1.1 else 400, updated.status)


async def test_inserted_headers(world: World, ledger: Ledger) -> None:
    table = MATRICES["insert_headers"]
    for protocol in MATRICES["listener_to_pool_protocol"]["allowed"]:
        family = await Family.born(world)
        for header in (*table["TERMINATED_HTTPS"], "X-Unknown", "x-forwarded-for"):
            fits = header in table.get(protocol, ()) if protocol in table["listener_protocols"] else False
            values: dict[str, Any] = {**listener_with(protocol), "protocol": protocol}
            answer = await family.create("listener", **values, insert_headers={header: "true"})
            ledger.check(f"{protocol}: {header}", 201 if fits else 400, answer.status, answer.body)
    longest = table["max_value_length"]
    for value in ("true", "false", "anything", "", "x" * longest):
        answer = await family_create(world, "listener", insert_headers={"X-Forwarded-For": value})
        ledger.check(f"value {value[:9]!r}", {"X-Forwarded-For": value}, answer.one("listener")["insert_headers"])
    wrong_values: tuple[Any, ...] = (True, 1, None, [], {}, "x" * (longest + 1))
    for wrong in wrong_values:
        answer = await family_create(world, "listener", insert_headers={"X-Forwarded-For": wrong})
        ledger.check(f"value {str(wrong)[:9]!r} is refused", 400, answer.status, answer.body)


async def family_create(world: World, key: str, **values: Any) -> Answer:
    return await (await Family.born(world)).create(key, **values)


PERSISTENCE = MATRICES["session_persistence"]


async def test_session_persistence(world: World, ledger: Ledger) -> None:
    types = PERSISTENCE["fields"]["type"]["enum"]
    for protocol in MATRICES["pool_to_healthmonitor_type"]["allowed"]:
        family = await Family.born(world)
        datagrams = protocol in ("UDP", "SCTP")
        for type_ in types:
            spec: dict[str, Any] = {"type": type_}
            if type_ == "APP_COOKIE":
                spec["cookie_name"] = "session"
            fits = type_ == "SOURCE_IP" or not datagrams
            for extra, goes in (
                ({}, True),
                ({"persistence_timeout": 60}, datagrams),
                ({"persistence_granularity": "255.255.255.0"}, datagrams),
            ):
                expected = fits and goes
                wanted = {**spec, **extra}
                cell = f"{protocol} pool, {type_} {sorted(extra)}"
                answer = await family.create("pool", protocol=protocol, session_persistence=wanted)
                ledger.check(cell, 201 if expected else 400, answer.status, answer.body)
                if answer.status == 201:
                    shown = {"cookie_name": None, "persistence_timeout": None, "persistence_granularity": None}
                    ledger.check(f"{cell} is shown", shown | wanted, answer.one("pool")["session_persistence"])
                answer = await whole(world, pools=[{**family.sample_pool(protocol), "session_persistence": wanted}])
                ledger.check(f"{cell} in a whole tree", 201 if expected else 400, answer.status, answer.body)
                pool_id = await family.made("pool", protocol=protocol)
                answer = await family.update("pool", pool_id, session_persistence=wanted)
                ledger.check(f"{cell} on update", 200 if expected else 400, answer.status, answer.body)


async def test_cookies_of_session_persistence(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)

    async def status(**spec: Any) -> int:
        return (await family.create("pool", session_persistence=spec)).status

    ledger.check("APP_COOKIE without a name", 400, await status(type="APP_COOKIE"))
    ledger.check("APP_COOKIE with an empty name", 400, await status(type="APP_COOKIE", cookie_name=""))
    for type_ in ("HTTP_COOKIE", "SOURCE_IP"):
        ledger.check(f"{type_} with a name", 400, await status(type=type_, cookie_name="a"))
    ledger.check("without a type", 400, await status(cookie_name="a"))
    ledger.check("empty", 400, await status())
    ledger.check("unknown key", 400, await status(type="SOURCE_IP", colour="red"))
    longest = PERSISTENCE["fields"]["cookie_name"]["max_length"]
    ledger.check("name of the greatest length", 201, await status(type="APP_COOKIE", cookie_name="x" * longest))
    ledger.check("name too long", 400, await status(type="APP_COOKIE", cookie_name="x" * (longest + 1)))
    forbidden = {*map(chr, range(0x21)), "\x7f", *'"(),/:;<=>?@[\\]{}'}
    for code in range(0x80):
        character = chr(code)
        expected = 400 if character in forbidden else 201
        ledger.check(f"U+{code:04X} in a name", expected, await status(type="APP_COOKIE", cookie_name=f"a{character}b"))


async def test_changes_of_session_persistence(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    app = {"type": "APP_COOKIE", "cookie_name": "a"}
    with_it = await family.made("pool", session_persistence=app)
    without = await family.made("pool")
    empty: dict[str, Any] = {}
    for name, pool_id, sent, status, shown in (
        ("omitted type is the stored one", with_it, {"cookie_name": "b"}, 200, ("APP_COOKIE", "b")),
        ("omitted type where none is stored", without, {"cookie_name": "b"}, 400, None),
        ("another type forgets the cookie", with_it, {"type": "SOURCE_IP"}, 200, ("SOURCE_IP", None)),
        ("back again needs it anew", with_it, {"type": "APP_COOKIE"}, 400, None),
        ("empty object", with_it, empty, 400, None),
        ("null removes", with_it, None, 200, None),
    ):
        answer = await family.update("pool", pool_id, session_persistence=sent)
        ledger.check(name, status, answer.status, answer.body)
        if status == 200:
            now = answer.one("pool")["session_persistence"]
            seen = None if now is None else (now["type"], now["cookie_name"])
            ledger.check(f"{name}: is shown", shown, seen)


async def test_comparisons_of_rules(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    for type_, row in MATRICES["l7rule_type_compare"]["grid"].items():
        for comparison, fits in row.items():
            rule = {**rule_with(type_, "abc"), "type": type_, "compare_type": comparison}
            cell = f"{type_} {comparison}"
            answer = await family.create("rule", **rule)
            ledger.check(cell, 201 if fits else 400, answer.status, answer.body)
            answer = await family.update("rule", await family.made("rule"), **rule)
            ledger.check(f"{cell} on update", 200 if fits else 400, answer.status, answer.body)
            policies = [{"action": "REJECT", "rules": [rule]}]
            listeners = [{"protocol": "HTTP", "protocol_port": 1, "l7policies": policies}]
            answer = await whole(world, listeners=listeners)
            ledger.check(f"{cell} in a whole tree", 201 if fits else 400, answer.status, answer.body)
        family = await Family.born(world)  # where there is room for more rules


async def test_keys_of_rules(world: World, ledger: Ledger) -> None:
    keys = MATRICES["l7rule_key"]
    family = await Family.born(world)
    for type_ in MATRICES["l7rule_type_compare"]["grid"]:
        rule = {**rule_with(type_, "/a"), "type": type_}
        bare = {name: value for name, value in rule.items() if name != "key"}
        needs = type_ in keys["required"]
        answer = await world.call("POST", family.path("rule"), {"rule": bare | {"compare_type": "EQUAL_TO"}})
        ledger.check(f"{type_} without a key", 400 if needs else 201, answer.status, answer.body)
        answer = await family.create("rule", **{**bare, "key": "CN"})
        ledger.check(f"{type_} with a key", 400 if type_ in keys["forbidden"] else 201, answer.status, answer.body)
        if not needs and type_ not in keys["forbidden"]:
            made = answer.one("rule")
            ledger.check(f"{type_}: key is stored", "CN", made["key"])
            changed = (await family.update("rule", made["id"], value="/b")).one("rule")
            ledger.check(f"{type_}: key is cleared by an update", None, changed["key"])
    allowed = set(string.ascii_letters + string.digits) | set("!#$%&'*+,-.^_`|~")
    for type_ in ("COOKIE", "HEADER"):
        family = await Family.born(world)
        rule_id = await family.made("rule", **{**rule_with(type_, "abc"), "type": type_})
        for code in range(0x20, 0x7F):
            answer = await family.update("rule", rule_id, key=f"a{chr(code)}b")
            ledger.check(f"{type_} key with {chr(code)!r}", chr(code) in allowed, answer.status == 200, answer.body)
    rule_id = await family.made("rule", **{**rule_with("SSL_DN_FIELD", "abc"), "type": "SSL_DN_FIELD"})
    for key, fits in (("CN", True), ("c-1", True), ("1c", False), ("-c", False), ("c_d", False), ("c d", False)):
        answer = await family.update("rule", rule_id, key=key)
        ledger.check(f"SSL_DN_FIELD key {key!r}", fits, answer.status == 200, answer.body)


async def test_values_of_rules(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    ids = {}
    for type_ in MATRICES["l7rule_type_compare"]["grid"]:
        ids[type_] = await family.made("rule", **{**rule_with(type_, "abc"), "type": type_})

    async def taken(type_: str, value: str) -> bool:
        return (await family.update("rule", ids[type_], value=value)).status == 200

    for type_ in ("HEADER", "HOST_NAME", "PATH", "FILE_TYPE"):
        for code in range(0x20, 0x7F):
            character = chr(code)
            ledger.check(f"{type_} bare {character!r}", character != " ", await taken(type_, f"a{character}b"))
            if character != '"':
                ledger.check(f"{type_} quoted {character!r}", True, await taken(type_, f'"a{character}b"'))
    for code in range(0x20, 0x7F):
        character = chr(code)
        ledger.check(f"COOKIE {character!r}", character not in ' ";\\', await taken("COOKIE", f"a{character}b"))
    for type_, value, fits in (
        ("SSL_CONN_HAS_CERT", "true", True),
        ("SSL_CONN_HAS_CERT", "TrUe", True),
        ("SSL_CONN_HAS_CERT", "false", False),
        ("SSL_CONN_HAS_CERT", "1", False),
        ("SSL_VERIFY_RESULT", "0", True),
        ("SSL_VERIFY_RESULT", "17", True),
        ("SSL_VERIFY_RESULT", "-1", False),
        ("SSL_VERIFY_RESULT", "1.5", False),
        ("SSL_VERIFY_RESULT", "x", False),
        ("SSL_DN_FIELD", "a b", True),
        ("SSL_DN_FIELD", "", False),
    ):
        ledger.check(f"{type_} {value!r}", fits, await taken(type_, value))
    pattern = await family.made("rule", compare_type="REGEX", value=".")
    for value, fits in (
        ("^/a(b|c)*$", True),
        (r"\d+", True),
        ("(", False),
        ("[", False),
        ("*", False),
        ("a{2,1}", False),
    ):
        answer = await family.update("rule", pattern, value=value)
        ledger.check(f"REGEX {value!r}", fits, answer.status == 200, answer.body)


async def test_limits_of_policies(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    most = MATRICES["l7_limits"]["max_rules_per_policy"]
    rules = [rule_with("PATH", f"/{n}") for n in range(most + 1)]
    for count, status in ((most, 201), (most + 1, MATRICES["l7_limits"]["over"])):
        policies = [{"action": "REJECT", "rules": rules[:count]}]
        answer = await whole(world, listeners=[{"protocol": "HTTP", "protocol_port": 1, "l7policies": policies}])
        ledger.check(f"{count} rules in a whole tree", status, answer.status, answer.body)
    for n in range(most - 1):  # one is there
        await family.made("rule", **rules[n])
    answer = await family.create("rule", **rules[most])
    ledger.check(f"rule number {most + 1}", MATRICES["l7_limits"]["over"], answer.status, answer.body)


ACTIONS = MATRICES["l7policy_action"]
TARGETS = {
    "redirect_url": "http://www.example.com",
    "redirect_prefix": "http://www.example.org",
    "redirect_pool_id": "pool",
}


async def test_actions_of_policies(world: World, ledger: Ledger) -> None:
    for action in ("REJECT", "REDIRECT_TO_URL", "REDIRECT_TO_POOL", "REDIRECT_PREFIX"):
        family = await Family.born(world)
        targets = {**TARGETS, "redirect_pool_id": family.ids["pool"]}
        own = [x.split()[0] for x in ACTIONS[action]["required"]]
        answer = await family.create("l7policy", action=action, **dict.fromkeys(own))
        ledger.check(f"{action} without {own}", 400 if own else 201, answer.status, answer.body)
        needed = {name: targets[name] for name in own}
        for cleared in ACTIONS[action]["cleared"]:
            if cleared == "redirect_http_code" or (action, cleared) == ("REDIRECT_PREFIX", "redirect_url"):
                continue  # the first has no effect of its own, the second means another action: see below
            answer = await family.create("l7policy", **{**needed, "action": action, cleared: targets[cleared]})
            ledger.check(f"{action} with {cleared}", 201, answer.status, answer.body)
            ledger.check(f"{action} clears {cleared}", None, answer.one("l7policy")[cleared])
        made = (await family.create("l7policy", **{**needed, "action": action})).one("l7policy")
        default = ACTIONS[action].get("redirect_http_code_default")
        ledger.check(f"{action}: default code", default, made["redirect_http_code"])
        for code in ACTIONS["redirect_http_code_values"]:
            answer = await family.create("l7policy", **{**needed, "action": action, "redirect_http_code": code})
            kept = None if action == "REDIRECT_TO_POOL" else code
            ledger.check(f"{action}: code {code}", kept, answer.one("l7policy")["redirect_http_code"])
        for code in (200, 300, 304, 309, 404):
            answer = await family.create("l7policy", **{**needed, "action": action, "redirect_http_code": code})
            ledger.check(f"{action}: code {code} is refused", 400, answer.status, answer.body)


async def test_implied_actions_of_policies(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    targets = {**TARGETS, "redirect_pool_id": family.ids["pool"]}
    implied = {
        "redirect_url": "REDIRECT_TO_URL",
        "redirect_prefix": "REDIRECT_PREFIX",
        "redirect_pool_id": "REDIRECT_TO_POOL",
    }
    for given, action in implied.items():
        for before in implied.values():
            start = await family.made("l7policy", action=before)
            both = {"action": action, given: targets[given]}
            shown = (await family.update("l7policy", start, **both)).one("l7policy")
            ledger.check(f"{action} with {given} on {before}", action, shown["action"])
            start = await family.made("l7policy", action=before)
            shown = (await family.update("l7policy", start, **{given: targets[given]})).one("l7policy")
            ledger.check(f"{given} on {before} means", action, shown["action"])
            others = {name: shown[name] for name in implied if name != given}
            ledger.check(f"{given} on {before} clears others", dict.fromkeys(others), others)
    made = (await family.create("l7policy", redirect_prefix=TARGETS["redirect_prefix"])).one("l7policy")
    ledger.check("REJECT with a prefix becomes", "REDIRECT_PREFIX", made["action"])
    both = {"action": "REDIRECT_PREFIX", "redirect_prefix": "http://a.example", "redirect_url": "http://b.example"}
    ledger.check(
        "prefix and URL become", "REDIRECT_TO_URL", (await family.create("l7policy", **both)).one("l7policy")["action"]
    )
    answer = await world.call("PUT", family.item("l7policy"), {"l7policy": {}})
    ledger.check("empty update", 400, answer.status, answer.body)
    for key in ("loadbalancer", "listener", "pool", "member", "healthmonitor", "rule"):
        answer = await world.call("PUT", family.item(key), {key: {}})
        ledger.check(f"empty update of {key}", 200, answer.status, answer.body)


TLS = MATRICES["tls"]


async def test_tls_of_listeners(world: World, ledger: Ledger) -> None:
    certificates: dict[str, Any] = {"default_tls_container_ref": CERTIFICATE, "sni_container_refs": [CERTIFICATE]}
    for protocol in MATRICES["listener_to_pool_protocol"]["allowed"]:
        family = await Family.born(world)
        capable = any(x.startswith(protocol) for x in TLS["listener_tls_capable"])
        for name, value in certificates.items():
            answer = await family.create(
                "listener", protocol=protocol, **{"default_tls_container_ref": None, name: value}
            )
            ledger.check(f"{protocol} with {name}", 201 if capable else 400, answer.status, answer.body)
        answer = await family.create("listener", protocol=protocol, default_tls_container_ref=None)
        bare = protocol != "TERMINATED_HTTPS"
        ledger.check(f"{protocol} without a certificate", 201 if bare else 400, answer.status, answer.body)
        qualified: dict[str, Any] = {"hsts_max_age": 1, "hsts_include_subdomains": True, "hsts_preload": True}
        for name, value in qualified.items():
            values: dict[str, Any] = {**listener_with(protocol), "protocol": protocol, "hsts_max_age": 1, name: value}
            answer = await family.create("listener", **values)
            fits = protocol == TLS["hsts"]["only"]
            ledger.check(f"{protocol} with {name}", 201 if fits else 400, answer.status, answer.body)
    family = await Family.born(world)
    terminated = {**listener_with("TERMINATED_HTTPS"), "protocol": "TERMINATED_HTTPS"}
    made = (await family.create("listener", **terminated)).one("listener")
    ledger.check("default of tls_versions", TLS["tls_versions_default"], made["tls_versions"])
    ledger.check("default of alpn_protocols", TLS["alpn_default"], made["alpn_protocols"])
    ledger.check("default of tls_ciphers", TLS["cipher_default"], made["tls_ciphers"])
    for name in ("hsts_include_subdomains", "hsts_preload"):
        answer = await family.create("listener", **terminated, **{name: True})
        ledger.check(f"{name} without hsts_max_age", 400, answer.status, answer.body)


async def test_tls_values(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    listener = await family.made("listener", **listener_with("TERMINATED_HTTPS") | {"protocol": "TERMINATED_HTTPS"})
    pool = await family.made("pool", tls_enabled=True)
    shown = await family.show("pool", pool)
    ledger.check("pool: default of tls_versions", TLS["tls_versions_default"], shown["tls_versions"])
    ledger.check("pool: default of alpn_protocols", TLS["alpn_default"], shown["alpn_protocols"])
    ledger.check("pool: default of tls_ciphers", TLS["cipher_default"], shown["tls_ciphers"])
    for key, item_id in (("listener", listener), ("pool", pool)):
        for name, words in (("tls_versions", TLS["tls_versions_values"]), ("alpn_protocols", TLS["alpn_values"])):
            for word in words:
                answer = await family.update(key, item_id, **{name: [word]})
                ledger.check(f"{key}.{name} {word}", [word], answer.one(key)[name])
            empty: list[str] = []
            for wrong in (empty, ["x"], [words[0], "x"], [""]):
                answer = await family.update(key, item_id, **{name: wrong})
                ledger.check(f"{key}.{name} {wrong}", 400, answer.status, answer.body)
        for code in range(0x20, 0x7F):
            character = chr(code)
            fits = character in string.ascii_letters + string.digits + "-+!:@=_."
            answer = await family.update(key, item_id, tls_ciphers=f"AES{character}")
            ledger.check(f"{key}.tls_ciphers with {character!r}", fits, answer.status == 200, answer.body)
    for pool_protocol in MATRICES["pool_to_healthmonitor_type"]["allowed"]:
        answer = await family.create("pool", protocol=pool_protocol, tls_enabled=True)
        ledger.check(f"{pool_protocol} pool with TLS", 201, answer.status, answer.body)
    answer = await family.create("pool", crl_container_ref=CERTIFICATE)
    ledger.check("pool: revocations without an authority", 400, answer.status, answer.body)
    both = await family.made("pool", crl_container_ref=CERTIFICATE, ca_tls_container_ref=CERTIFICATE)
    answer = await family.update("pool", both, ca_tls_container_ref=None)
    ledger.check("pool: the authority of revocations goes", 400, answer.status, answer.body)
    plain = await family.made("pool")
    shown = (await family.update("pool", plain, tls_enabled=True)).one("pool")
    filled = {name: shown[name] for name in ("tls_versions", "tls_ciphers", "alpn_protocols")}
    ledger.check("pool: TLS enabled by update fills nothing in", dict.fromkeys(filled), filled)


async def test_client_authentication(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    terminated = {**listener_with("TERMINATED_HTTPS"), "protocol": "TERMINATED_HTTPS"}
    authority = {"client_ca_tls_container_ref": CERTIFICATE}
    for word in TLS["client_authentication"]["values"]:
        answer = await family.create("listener", **terminated, client_authentication=word)
        ledger.check(f"{word} without an authority", 201 if word == "NONE" else 400, answer.status, answer.body)
        answer = await family.create("listener", **terminated, **authority, client_authentication=word)
        ledger.check(f"{word} with an authority", word, answer.one("listener")["client_authentication"])
    answer = await family.create("listener", **terminated, client_crl_container_ref=CERTIFICATE)
    ledger.check("revocations without an authority", 400, answer.status, answer.body)
    answer = await family.create("listener", protocol="HTTP", **authority)
    ledger.check("authority without a certificate", 400, answer.status, answer.body)


async def test_allowed_networks(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    table: tuple[tuple[Any, Any], ...] = (
        (["192.0.2.7/24"], ["192.0.2.0/24"]),
        (["192.0.2.7"], ["192.0.2.7/32"]),
        (["192.0.2.7/24", "192.0.2.9/24"], ["192.0.2.0/24"]),
        ([], None),
        (None, None),
        (["0.0.0.0/0"], ["0.0.0.0/0"]),
    )
    for sent, shown in table:
        answer = await family.create("listener", allowed_cidrs=sent)
        ledger.check(f"{sent}", shown, answer.one("listener")["allowed_cidrs"])
        answer = await family.update("listener", allowed_cidrs=sent)
        ledger.check(f"{sent} on update", shown, answer.one("listener")["allowed_cidrs"])
    for wrong in (["2001:db8::/32"], ["192.0.2.0/24", "2001:db8::/32"], ["192.0.2.0/33"], ["x"], [""]):
        answer = await family.create("listener", allowed_cidrs=wrong)
        ledger.check(f"{wrong} is refused", 400, answer.status, answer.body)


async def test_prometheus_and_datagram_listeners(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    headers = {"insert_headers": {"X-Forwarded-For": "true"}}
    for protocol in ("PROMETHEUS", "UDP", "SCTP"):
        answer = await family.create("listener", protocol=protocol, **headers)
        ledger.check(f"{protocol} inserts headers", 400, answer.status, answer.body)
    metrics = await family.made("listener", protocol="PROMETHEUS")
    answer = await family.create("l7policy", listener_id=metrics)
    ledger.check("PROMETHEUS with a policy", 400, answer.status, answer.body)
    tls = await family.create("listener", protocol="PROMETHEUS", default_tls_container_ref=CERTIFICATE)
    ledger.check("PROMETHEUS with TLS", 201, tls.status, tls.body)
    policies = [{"action": "REJECT"}]
    answer = await whole(world, listeners=[{"protocol": "PROMETHEUS", "protocol_port": 1, "l7policies": policies}])
    ledger.check("PROMETHEUS with a policy in a whole tree", 400, answer.status, answer.body)


async def test_members(world: World, ledger: Ledger) -> None:
    family = await Family.born(world)
    for address in MATRICES["member_limits"]["reserved_ips"]["default"]:
        answer = await family.create("member", address=address)
        ledger.check(f"{address} is reserved", MATRICES["member_limits"]["reserved_ips"]["status"], answer.status)
        mapped = await family.create("member", address=address, monitor_address=address)
        ledger.check(f"{address} is reserved beside others", 400, mapped.status, mapped.body)
    for weight in (1, 2):
        answer = await family.create("member", address="192.0.2.1", protocol_port=80, weight=weight, name="x")
        ledger.check(f"again with weight {weight}", 409, answer.status, answer.body)
    for address in ("2001:db8::1", "2001:DB8::1", "2001:db8:0::1"):
        answer = await family.create("member", address=address, protocol_port=80)
        ledger.check(f"{address} is another text", 201, answer.status, answer.body)
        ledger.check(f"{address} is kept as written", address, answer.one("member")["address"])
    for algorithm in MATRICES["lb_algorithms"]["values"]:
        answer = await family.create("pool", lb_algorithm=algorithm)
        ledger.check(f"algorithm {algorithm}", 201, answer.status, answer.body)
