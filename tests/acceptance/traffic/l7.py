"""Cases of L7 policies and rules: the table of tests/integration/drivers/test_l7.py over the API, and what follows."""

from __future__ import annotations

import asyncio
from typing import Any

from frontinus.model.tree import L7Rule

from tests.acceptance.traffic.case import Fields, Group, Secret
from tests.acceptance.traffic.stage import Stage
from tests.integration.drivers.l7_oracle import Request
from tests.integration.drivers.test_l7 import ROWS

L7 = Group("l7")
case = L7.case

NO = {"type": "PATH", "compare_type": "STARTS_WITH", "value": "/no"}
REJECTS_NO = {"action": "REJECT", "rules": [NO]}


async def status(stage: Stage, request: Request) -> int:
    client = stage.client()
    try:
        return (await asyncio.to_thread(client.ask, request.encode()))[0]
    finally:
        client.close()


# -------------------------------------------------------------- rules


async def the_rule_is_true_of_one_request_and_not_of_another(stage: Stage) -> None:
    """The listener has no pool, and rejects what the rule is true of."""
    yes, no = stage.expect
    assert (await status(stage, yes), await status(stage, no)) == (403, 503)


def _wire(rule: L7Rule) -> Fields:
    fields: Fields = {"type": str(rule.type), "compare_type": str(rule.compare_type), "value": rule.value}
    return fields | {"key": rule.key} if rule.key else fields


_KEYED = {"HEADER", "COOKIE"}

for _number, (_rule, _yes, _no) in enumerate(ROWS):
    _fields = _wire(_rule)
    _rows = [f"l7rule.type[{_rule.type} {_rule.compare_type}]", "l7rule.value"]
    _rows += ["l7rule.key"] if _fields["type"] in _KEYED else []
    for _inverted in (False, True):
        case(
            *_rows,
            f"l7rule.invert[{'true' if _inverted is not _rule.invert else 'false'}]",
            "l7policy.rules",
            "listener.l7policies",
            name=f"{_rule.type} {_rule.compare_type} {_number}{' inverted' if _inverted else ''}",
            policies=[{"action": "REJECT", "rules": [{**_fields, "invert": _inverted is not _rule.invert}]}],
            members=0,
            expect=(_no, _yes) if _inverted else (_yes, _no),
        )(the_rule_is_true_of_one_request_and_not_of_another)


_CLIENTS_MAY = {
    "protocol": "TERMINATED_HTTPS",
    "default_tls_container_ref": Secret("site"),
    "client_authentication": "OPTIONAL",
    "client_ca_tls_container_ref": Secret("clients"),
}


async def the_rule_is_true_of_a_client_with_a_certificate(stage: Stage) -> None:
    own = stage.secrets.certificates["client"]
    assert (await stage.caller(own=own).ask()).answer[:12] == b"HTTP/1.1 403"
    if stage.expect:
        # Whoever shows nothing is verified too, as far as there is something to verify.
        assert (await stage.caller().ask()).body == "one"


_ABOUT_CLIENTS: list[tuple[Fields, bool]] = [
    ({"type": "SSL_CONN_HAS_CERT", "compare_type": "EQUAL_TO", "value": "True"}, True),
    ({"type": "SSL_VERIFY_RESULT", "compare_type": "EQUAL_TO", "value": "0"}, False),
    *(
        ({"type": "SSL_DN_FIELD", "key": "CN", "compare_type": compare, "value": value}, True)
        for compare, value in [
            ("EQUAL_TO", "good"),
            ("STARTS_WITH", "goo"),
            ("ENDS_WITH", "od"),
            ("CONTAINS", "oo"),
            ("REGEX", "^g.*d$"),
        ]
    ),
]

for _fields, _is_false_without in _ABOUT_CLIENTS:
    case(
        f"l7rule.type[{_fields['type']} {_fields['compare_type']}]",
        name=f"{_fields['type']} {_fields['compare_type']}",
        listener=_CLIENTS_MAY,
        policies=[{"action": "REJECT", "rules": [_fields]}],
        expect=_is_false_without,
    )(the_rule_is_true_of_a_client_with_a_certificate)


@case(
    "l7rule.admin_state_up[true]",
    "l7rule.admin_state_up[false]",
    policies=[{"action": "REJECT", "rules": [NO, {**NO, "value": "/never", "admin_state_up": False}]}],
)
async def a_disabled_rule_asks_for_nothing(stage: Stage) -> None:
    assert await stage.ask(path="/no") == "403"
    policy = stage.listener["l7policies"][0]
    shown = await asyncio.to_thread(stage.theatre.api.get, f"/v2/lbaas/l7policies/{policy['id']}/rules")
    other = next(x for x in shown[1]["rules"] if not x["admin_state_up"])
    await stage.change(f"l7policies/{policy['id']}/rules/{other['id']}", "rule", admin_state_up=True)
    assert await stage.ask(path="/no") == "one"


# -------------------------------------------------------------- policies


@case("l7policy.action[REJECT]", "l7policy.admin_state_up[true]", policies=[REJECTS_NO])
async def what_is_rejected_reaches_nobody(stage: Stage) -> None:
    assert (await stage.ask(path="/no"), await stage.ask(path="/yes")) == ("403", "one")
    assert len(stage.servers[0].requests) == 1


@case("l7policy.admin_state_up[false]", policies=[{**REJECTS_NO, "admin_state_up": False}])
async def a_disabled_policy_does_nothing(stage: Stage) -> None:
    assert await stage.ask(path="/no") == "one"
    await stage.change(f"l7policies/{stage.listener['l7policies'][0]['id']}", "l7policy", admin_state_up=True)
    assert await stage.ask(path="/no") == "403"


async def the_client_is_sent_elsewhere(stage: Stage) -> None:
    code, location = stage.expect
    answer = await stage.request(path="/no?a=b&c")
    assert (answer.status, answer.header("Location")) == (code, [location])
    assert await stage.ask() == "one"


URL = "https://elsewhere.example.org/a?b=c&d#e"
PREFIX = "https://elsewhere.example.org/a"

for _action, _more, _location in [
    ("REDIRECT_TO_URL", {"redirect_url": URL}, URL),
    ("REDIRECT_PREFIX", {"redirect_prefix": PREFIX}, f"{PREFIX}/no?a=b&c"),
]:
    for _code in (None, 301, 302, 303, 307, 308):
        _policy: dict[str, Any] = {"action": _action, **_more, "rules": [NO]}
        case(
            f"l7policy.action[{_action}]",
            f"l7policy.{next(iter(_more))}",
            *([] if _code is None else [f"l7policy.redirect_http_code[{_code}]"]),
            name=f"{_action} {_code or 'unsaid'}",
            policies=[_policy if _code is None else {**_policy, "redirect_http_code": _code}],
            expect=(_code or 302, _location),
        )(the_client_is_sent_elsewhere)


@case("l7policy.action[REDIRECT_TO_POOL]", "l7policy.redirect_pool_id", "l7policy.listener_id", members=2)
async def the_request_goes_to_another_pool(stage: Stage) -> None:
    pool = await stage.create(
        "pools", "pool", loadbalancer_id=stage.load_balancer_id, protocol="HTTP", lb_algorithm="ROUND_ROBIN"
    )
    await stage.create(f"pools/{pool['id']}/members", "member", **stage.members[1])
    policy = await stage.create(
        "l7policies",
        "l7policy",
        listener_id=stage.listener["id"],
        action="REDIRECT_TO_POOL",
        redirect_pool_id=pool["id"],
    )
    assert {await stage.ask(path="/no") for _ in range(4)} == {"one", "two"}, "without rules it does nothing"
    await stage.create(f"l7policies/{policy['id']}/rules", "rule", **NO)
    assert {await stage.ask(path="/no") for _ in range(4)} == {"two"}
    assert {await stage.ask() for _ in range(4)} == {"one", "two"}


@case(
    "l7policy.position",
    policies=[
        {"action": "REDIRECT_TO_URL", "redirect_url": "http://second.example/", "rules": [NO], "position": 1},
        {"action": "REDIRECT_TO_URL", "redirect_url": "http://first.example/", "rules": [NO], "position": 1},
    ],
)
async def the_lower_position_decides(stage: Stage) -> None:
    assert (await stage.request(path="/no")).header("Location") == ["http://first.example/"]
    first = next(x["id"] for x in stage.listener["l7policies"] if "first" in x["redirect_url"])
    await stage.change(f"l7policies/{first}", "l7policy", position=2)
    assert (await stage.request(path="/no")).header("Location") == ["http://second.example/"]


@case(
    "l7policy.rules",
    policies=[{"action": "REJECT", "rules": [NO, {"type": "FILE_TYPE", "compare_type": "EQUAL_TO", "value": "jpg"}]}],
)
async def all_rules_must_be_true(stage: Stage) -> None:
    seen = {path: await stage.ask(path=path) for path in ("/no.jpg", "/no", "/yes.jpg")}
    assert seen == {"/no.jpg": "403", "/no": "one", "/yes.jpg": "one"}
