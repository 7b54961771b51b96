"""L7 policies in real traffic: a table of single rules, the order of policies, and random ones against an oracle."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy.render import render
from frontinus.drivers.amphora.haproxy.text import read, write
from frontinus.model.enums import L7PolicyAction as Action
from frontinus.model.enums import L7RuleCompareType as Compare
from frontinus.model.enums import L7RuleType as Type
from frontinus.model.ids import PoolId
from frontinus.model.tree import L7Policy, L7Rule, LoadBalancerTree
from frontinus.model.validation import validate_l7_policy, validate_l7_rule

from tests.integration.drivers.balancer import SETTINGS, Client, balancing, members_that_echo
from tests.integration.drivers.l7_oracle import Outcome, Request, outcome
from tests.integration.drivers.strategies import COOKIES, KEYS, PATH_PIECE, PIECE, l7_policies
from tests.integration.drivers.world import MEMBERS, VIP, free_port
from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_policy, a_pool, a_rule, a_tree, number

LISTENER = a_listener().id
AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(:[0-9]*)?")
"""What a Host may be made of (RFC 3986 3.2)."""
POOLS = {number(20): "pool20", number(21): "pool21", number(22): "pool22"}


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """The port of the member of each pool."""
    ports = {name: free_port(MEMBERS) for name in POOLS.values()}
    with members_that_echo(tmp_path_factory.mktemp("members") / "echo", ports):
        yield ports


def site(
    ports: dict[str, int],
    policies: list[L7Policy],
    rules: list[L7Rule],
    *,
    listen: int,
    down: frozenset[str] = frozenset(),
) -> LoadBalancerTree:
    return a_tree(
        a_load_balancer(VIP),
        listeners=[a_listener(port=listen)],
        pools=[replace(a_pool(20 + i), admin_state_up=a_pool(20 + i).id not in down) for i in range(3)],
        members=[a_member(30 + i, 20 + i, MEMBERS, ports[f"pool{20 + i}"]) for i in range(3)],
        policies=policies,
        rules=rules,
    )


def asked(client: Client, request: Request) -> Outcome:
    status, headers, body = client.ask(request.encode())
    ids = {name: pool_id for pool_id, name in POOLS.items()}
    return Outcome(status, headers.get("location"), ids[body.decode()] if status == 200 else None)


def _rule(type_: Type, compare: Compare, value: str, key: str | None = None, *, invert: bool = False) -> L7Rule:
    return a_rule(60, 50, type_, compare, value, key=key, invert=invert)


def _headers(*pairs: tuple[str, str], target: str = "/", host: str = "here") -> Request:
    return Request(target, host, pairs)


X, COOKIE = "X-Kind", "Cookie"
ROWS = [
    (_rule(Type.PATH, Compare.EQUAL_TO, "/a"), Request("/a?b"), Request("/A")),
    (_rule(Type.PATH, Compare.STARTS_WITH, "/a"), Request("/ab"), Request("/b/a")),
    (_rule(Type.PATH, Compare.ENDS_WITH, "a"), Request("/b/a"), Request("/ab?a")),
    (_rule(Type.PATH, Compare.CONTAINS, "-f"), Request("/x-fy"), Request("/f")),
    (_rule(Type.PATH, Compare.REGEX, "^/[0-9]+$"), Request("/42"), Request("/4x")),
    (_rule(Type.PATH, Compare.EQUAL_TO, "/%[src]$HOME'\\"), Request("/%[src]$HOME'\\"), Request("/%")),
    (_rule(Type.PATH, Compare.EQUAL_TO, "/a", invert=True), Request("/b"), Request("/a")),
    (_rule(Type.HOST_NAME, Compare.EQUAL_TO, "www.Example.com"), Request(host="WWW.example.com"), Request(host="w")),
    (_rule(Type.HOST_NAME, Compare.EQUAL_TO, "a.b"), Request(host="a.b:8080"), Request(host="a.b.c")),
    (_rule(Type.HOST_NAME, Compare.EQUAL_TO, "a.b:8080"), Request(host="a.b:8080"), Request(host="a.b")),
    (_rule(Type.HOST_NAME, Compare.STARTS_WITH, "api."), Request(host="API.x"), Request(host="x.api.")),
    (_rule(Type.HOST_NAME, Compare.ENDS_WITH, ".b"), Request(host="a.b:1"), Request(host="a.bc")),
    (_rule(Type.HOST_NAME, Compare.CONTAINS, "mid"), Request(host="a.MID.b"), Request(host="a.b")),
    (_rule(Type.HOST_NAME, Compare.REGEX, "^a[.](b|c)$"), Request(host="A.C:81"), Request(host="xa.c")),
    (_rule(Type.HOST_NAME, Compare.EQUAL_TO, "[::1]"), Request(host="[::1]:80"), Request(host="[::2]")),
    (_rule(Type.FILE_TYPE, Compare.EQUAL_TO, "jpg"), Request("/a.b/c.jpg?x.png"), Request("/jpg")),
    (_rule(Type.FILE_TYPE, Compare.EQUAL_TO, "jpg"), Request("/.jpg"), Request("/a.jpg/b")),
    (_rule(Type.FILE_TYPE, Compare.REGEX, "^(jpe?g|png)$"), Request("/a.jpeg"), Request("/a.jpegs")),
    (_rule(Type.FILE_TYPE, Compare.REGEX, r"\.gif$"), Request("/a.gif"), Request("/gif")),
    (_rule(Type.HEADER, Compare.EQUAL_TO, "v", X), _headers((X, "v")), _headers((X, "V"))),
    (_rule(Type.HEADER, Compare.EQUAL_TO, "v", "x-kIND"), _headers((X, " v ")), _headers(("X-Kin", "v"))),
    (_rule(Type.HEADER, Compare.EQUAL_TO, "b", X), _headers((X, "a, b")), _headers((X, '"a,b"'))),
    (_rule(Type.HEADER, Compare.EQUAL_TO, "b", X), _headers((X, "a"), (X, "b")), _headers()),
    (_rule(Type.HEADER, Compare.EQUAL_TO, "a,b", X), _headers((X, "a,b")), _headers((X, "a, b"))),
    (_rule(Type.HEADER, Compare.EQUAL_TO, '"two words"', X), _headers((X, "two words")), _headers((X, "two"))),
    (_rule(Type.HEADER, Compare.EQUAL_TO, 'a"b', X), _headers((X, 'a"b')), _headers((X, "ab"))),
    (_rule(Type.HEADER, Compare.STARTS_WITH, "-i", X), _headers((X, "-ix")), _headers((X, "x-i"))),
    (_rule(Type.HEADER, Compare.ENDS_WITH, "#", X), _headers((X, "a#")), _headers((X, "#a"))),
    (_rule(Type.HEADER, Compare.CONTAINS, '"L, like G"', X), _headers((X, "HTML, like Gecko")), _headers((X, "L"))),
    (_rule(Type.HEADER, Compare.REGEX, "a, *b", X), _headers((X, "xa,  bx")), _headers((X, "ab"))),
    (_rule(Type.HEADER, Compare.EQUAL_TO, "v", "o'k|~^"), _headers(("o'k|~^", "v")), _headers(("ok", "v"))),
    (_rule(Type.COOKIE, Compare.EQUAL_TO, "v", "c"), _headers((COOKIE, "a=1; c=v; d=2")), _headers((COOKIE, "C=v"))),
    (_rule(Type.COOKIE, Compare.STARTS_WITH, "v$", "c"), _headers((COOKIE, "c=v$w")), _headers((COOKIE, "c=v"))),
    (_rule(Type.COOKIE, Compare.ENDS_WITH, "w", "c"), _headers((COOKIE, "c=vw;x=y")), _headers((COOKIE, "cc=vw"))),
    (_rule(Type.COOKIE, Compare.CONTAINS, "%", "c"), _headers((COOKIE, "c=a%b")), _headers((COOKIE, "d=%"))),
    (_rule(Type.COOKIE, Compare.REGEX, "^[0-9]$", "c"), _headers((COOKIE, "c=7")), _headers((COOKIE, "c=77"))),
    (_rule(Type.COOKIE, Compare.EQUAL_TO, "a,b", "c"), _headers((COOKIE, "c=a,b; d=1")), _headers((COOKIE, "c=a"))),
    (_rule(Type.COOKIE, Compare.CONTAINS, "a,b", "c"), _headers((COOKIE, "c=xa,b")), _headers((COOKIE, "d=a,b"))),
    (_rule(Type.COOKIE, Compare.EQUAL_TO, "v", "a'$"), _headers((COOKIE, "a'$=v")), _headers((COOKIE, "a=v"))),
]


def test_every_rule_is_true_of_one_request_and_not_of_another(tmp_path: Path) -> None:
    """All rows at once: each is the only rule of a listener that rejects, without a pool: 403, or else 503."""
    ports: set[int] = set()
    while len(ports) < len(ROWS):  # the kernel may name a port again that nobody has taken yet
        ports.add(free_port())
    listeners = [a_listener(100 + i, port=port, pool=None) for i, port in enumerate(ports)]
    for rule, _, _ in ROWS:
        validate_l7_rule(rule)
    tree = a_tree(
        a_load_balancer(VIP),
        listeners=listeners,
        policies=[a_policy(300 + i, 100 + i) for i in range(len(ROWS))],
        rules=[
            replace(rule, id=a_rule(600 + i).id, l7_policy_id=a_policy(300 + i).id)
            for i, (rule, _, _) in enumerate(ROWS)
        ],
    )
    with balancing(tmp_path, tree):
        wrong = [
            (rule.type, rule.compare_type, rule.key, rule.value, request, expected)
            for listener, (rule, yes, no) in zip(listeners, ROWS, strict=True)
            for request, expected in ((yes, 403), (no, 503))
            if asked_once(listener.protocol_port, request) != expected
            or outcome(tree, listener, request).status != expected
        ]
    assert wrong == []


def asked_once(port: int, request: Request) -> int:
    client = Client(port)
    with contextlib.closing(client):
        return client.ask(request.encode())[0]


def pool(number_: int) -> PoolId:
    return PoolId(number(number_))


ORDER = [
    a_policy(50, action=Action.REDIRECT_TO_POOL, redirect_pool_id=pool(21), position=1),
    a_policy(51, action=Action.REDIRECT_TO_URL, redirect_url="http://two.example/?a=b&c=%[src]#$x", position=2),
    a_policy(
        52,
        action=Action.REDIRECT_PREFIX,
        redirect_prefix="https://three.example/p%20",
        redirect_http_code=308,
        position=3,
    ),
    a_policy(53, position=4),
    a_policy(54, action=Action.REDIRECT_TO_POOL, redirect_pool_id=pool(22), position=5),
    a_policy(55, position=6, admin_state_up=False),
    a_policy(56, position=7),
    a_policy(57, position=8),
]
ORDER_RULES = [
    *(a_rule(60 + i, 50 + i, Type.PATH, Compare.CONTAINS, f"/{i}", key=None) for i in range(6)),
    a_rule(66, 56, Type.PATH, Compare.STARTS_WITH, "/", admin_state_up=False),
    # Rules of one policy are anded, and a disabled one does not count.
    a_rule(67, 57, Type.PATH, Compare.STARTS_WITH, "/anded"),
    a_rule(68, 57, Type.HEADER, Compare.EQUAL_TO, "yes", key="X-Too"),
    a_rule(69, 57, Type.HEADER, Compare.EQUAL_TO, "never", key="X-Other", admin_state_up=False),
]


@pytest.mark.parametrize(
    "request_, expected",
    [
        pytest.param(Request("/none"), Outcome(200, pool=pool(20)), id="no policy: the default pool"),
        pytest.param(Request("/0"), Outcome(200, pool=pool(21)), id="a pool"),
        pytest.param(Request("/0/4"), Outcome(200, pool=pool(21)), id="two pools: the first position"),
        pytest.param(Request("/4"), Outcome(200, pool=pool(22)), id="the other pool"),
        pytest.param(Request("/1"), Outcome(302, "http://two.example/?a=b&c=%[src]#$x"), id="a URL, 302 unless said"),
        pytest.param(
            Request("/2?q=%41"), Outcome(308, "https://three.example/p%20/2?q=%41"), id="a prefix, and its code"
        ),
        pytest.param(
            Request("/0/1"), Outcome(302, "http://two.example/?a=b&c=%[src]#$x"), id="a redirect beats a pool"
        ),
        pytest.param(Request("/2/1"), Outcome(302, "http://two.example/?a=b&c=%[src]#$x"), id="redirects by position"),
        pytest.param(Request("/0/1/2/3"), Outcome(403), id="a reject beats all"),
        pytest.param(Request("/5"), Outcome(200, pool=pool(20)), id="a disabled policy"),
        pytest.param(Request("/anded"), Outcome(200, pool=pool(20)), id="one rule of two"),
        pytest.param(Request("/anded", headers=(("X-Too", "yes"),)), Outcome(403), id="both rules"),
    ],
)
def test_policies_are_tried_in_order(
    tmp_path: Path, ports: dict[str, int], request_: Request, expected: Outcome
) -> None:
    tree = site(ports, ORDER, ORDER_RULES, listen=free_port())
    with balancing(tmp_path, tree):
        client = Client(tree.listeners[0].protocol_port)
        with contextlib.closing(client):
            assert asked(client, request_) == expected
    assert outcome(tree, tree.listeners[0], request_) == expected


# ---------------------------------------------------------------- random policies


@st.composite
def requests(draw: st.DrawFn, rules: list[L7Rule]) -> Request:
    """A request near to what some rules look for, in every part of it."""

    def near(kinds: set[Type], piece: st.SearchStrategy[str]) -> str:
        values = [rule.value.strip('"') for rule in rules if rule.type in kinds] or [""]
        parts = [draw(st.sampled_from(values)), draw(st.just("") | piece)]
        return "".join(draw(st.permutations(parts)))

    def wire(text: str, forbidden: str) -> str:
        return "".join(x for x in text if x not in forbidden)

    path = wire(near({Type.PATH}, PATH_PIECE), " ?#").lstrip("/")
    kind = wire(near({Type.FILE_TYPE}, PATH_PIECE), " ?#")
    dot = draw(st.sampled_from(["", "."]))
    query = draw(st.sampled_from(["", "?a=b", "?.jpg"]))
    host = wire(near({Type.HOST_NAME}, PIECE), ' ,"') or "here"
    headers = [
        (key, wire(near({Type.HEADER}, PIECE), "").strip() or "x") for key in draw(st.sets(KEYS)) if "," not in key
    ]
    cookies = [
        f"{name}={wire(near({Type.COOKIE}, PIECE), ' ;' + chr(34))}" for name in draw(st.lists(COOKIES, max_size=2))
    ]
    if cookies:
        headers.append(("Cookie", "; ".join(cookies)))
    return Request(f"/{path}{dot}{kind}{query}", host + draw(st.sampled_from(["", ":80"])), tuple(headers))


@st.composite
def documents(draw: st.DrawFn) -> tuple[list[L7Policy], list[L7Rule], frozenset[str], list[Request]]:
    drawn = [
        draw(l7_policies(50 + i, LISTENER, [pool(20), pool(21), pool(22)])) for i in range(draw(st.integers(1, 5)))
    ]
    rules = [rule for _, own in drawn for rule in own]
    down = draw(st.sampled_from([frozenset[str](), frozenset({number(21)})]))
    asked_for = [draw(requests(rules)) for _ in range(6)]
    return [policy for policy, _ in drawn], rules, down, asked_for


class Tried:
    """How much was tried, printed when a test is over."""

    documents = 0
    requests = 0
    outcomes: dict[int, int] = {}  # noqa: RUF012 - one tally for one run


def try_documents(directory: Path, ports: dict[str, int], examples: int) -> None:
    tried = Tried()
    tried.outcomes = {}

    @settings(
        max_examples=examples,
        deadline=None,
        # Not shrunk: each try is a HAProxy of its own. What fails is printed whole.
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(document=documents())
    def behaves(document: tuple[list[L7Policy], list[L7Rule], frozenset[str], list[Request]]) -> None:
        policies, rules, down, asked_for = document
        tree = site(ports, policies, rules, listen=free_port(), down=down)
        for policy in policies:
            validate_l7_policy(policy, tree)
        text = render(tree, SETTINGS).text
        assert write(read(text)) == text
        with balancing(directory, tree):
            client = Client(tree.listeners[0].protocol_port)
            with contextlib.closing(client):
                for request in asked_for:
                    expected = outcome(tree, tree.listeners[0], request)
                    got = asked(client, request)
                    if got.status == 400 and not AUTHORITY.fullmatch(request.host):
                        continue  # HAProxy 3 turns away whoever sends a Host that is none
                    assert got == expected, f"{request}\n{text}"
                    tried.requests += 1
                    tried.outcomes[expected.status] = tried.outcomes.get(expected.status, 0) + 1
        tried.documents += 1

    behaves()
    sys.stdout.write(f"{tried.documents} documents, {tried.requests} requests, outcomes {tried.outcomes}\n")
    assert tried.documents >= examples // 2


def test_random_policies_do_what_the_oracle_says(tmp_path: Path, ports: dict[str, int]) -> None:
    try_documents(tmp_path, ports, 25)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_very_many_random_policies_do_what_the_oracle_says(tmp_path: Path, ports: dict[str, int]) -> None:
    try_documents(tmp_path, ports, 3_000)
