"""Networks and values of L7 rules change without a reload, all at once, to what a start would make of them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.interface import Applied
from frontinus.model.enums import L7PolicyAction as Action
from frontinus.model.enums import L7RuleCompareType as Compare
from frontinus.model.enums import L7RuleType as Type
from frontinus.model.tree import L7Rule, LoadBalancerTree

from tests.integration.drivers.balancer import Client
from tests.integration.drivers.l7_oracle import Request, outcome
from tests.integration.drivers.world import CLIENTS, MEMBERS, VIP, World, ask, free_port
from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_policy, a_pool, a_rule, a_tree

IN, OUT = CLIENTS.format(7), CLIENTS.format(9)


class Site:
    def __init__(self, world: World, member_port: int) -> None:
        self.world, self.member_port, self.port = world, member_port, free_port()

    def tree(self, cidrs: tuple[str, ...], rules: tuple[L7Rule, ...] = (), timeout: int = 50_000) -> LoadBalancerTree:
        return a_tree(
            a_load_balancer(VIP),
            listeners=[a_listener(port=self.port, allowed_cidrs=cidrs, timeout_client_data=timeout)],
            pools=[a_pool()],
            members=[a_member(address=MEMBERS, port=self.member_port)],
            policies=[a_policy()] if rules else [],
            rules=rules,
        )

    async def shows(self, *args: object, **fields: int) -> Applied:
        return await self.world.apply(self.tree(*args, **fields))  # type: ignore[arg-type]  # passed on as they are

    def patterns(self) -> dict[str, list[str]]:
        """What HAProxy matches with, by file."""
        found = {}
        for kind in ("map", "acl"):
            for line in self.world.runtime(f"show {kind}").splitlines():
                name = line.partition("(")[2].partition(")")[0]
                if "/files/" in name:
                    entries = self.world.runtime(f"show {kind} {name}").splitlines()
                    found[name] = sorted(entry.partition(" ")[2] for entry in entries if entry)
        return found


@pytest.fixture
async def site(world: World) -> Site:
    return Site(world, (await world.member("one")).port)


async def answered(port: int, source: str) -> str:
    try:
        return await ask(port, source=source)
    except (ConnectionError, asyncio.IncompleteReadError):
        return "refused"


async def test_no_moment_lets_everybody_or_nobody_in(site: Site) -> None:
    """Who is in both sets never meets a refusal, who is in neither never an answer, though both are far apart."""
    many = tuple(f"10.{i // 250}.{i % 250}.0/24" for i in range(1_200))  # more than one command holds
    sets = [("127.84.1.0/29", *many), (f"{IN}/32",), ("127.84.1.4/30", "127.0.0.0/16", *many[:50])]
    assert (await site.shows(sets[0])).action == "start"
    seen: dict[str, set[str]] = {IN: set(), OUT: set()}
    ended = asyncio.Event()

    async def keep_asking(source: str) -> None:
        while not ended.is_set():
            seen[source].add(await answered(site.port, source))

    tasks = [asyncio.create_task(keep_asking(source)) for source in (IN, OUT) for _ in range(2)]
    try:
        actions = {(await site.shows(sets[turn % 3])).action for turn in range(1, 10)}
    finally:
        ended.set()
        await asyncio.gather(*tasks)
    assert (actions, seen) == ({"runtime"}, {IN: {"one"}, OUT: {"refused"}})
    changed = site.patterns()
    assert (await site.shows(sets[0], timeout=40_000)).action == "reload"
    assert changed == site.patterns()
    assert (await site.shows(tuple(reversed(sets[0])), timeout=40_000)).action == "unchanged"


HOSTILE = [
    *(
        "v",
        "-f",
        "--",
        "-i",
        "a#b",
        "a\\",
        "\\",
        "\\\\;",
        ";",
        "a;show",
        "<<",
        "a<<",
        "'",
        "a'b",
        "$HOME",
        "%[src]",
    ),
    *(
        "@1",
        "@prepared",
        "*",
        "\u00fc",
        "\u4e2d",
        "a,b",
        "x" * 255,
        '"a b"',
        '"a  b;show info"',
        '"two words <<"',
        "{",
        "a|b",
    ),
    *("#", "#v", "#v\\", '" v"', '" # v"'),
]
"""The last ones are what a file of patterns cannot hold."""


@pytest.mark.parametrize("compare", [Compare.EQUAL_TO, Compare.CONTAINS])
async def test_values_change_to_what_a_start_would_make_of_them(site: Site, compare: Compare) -> None:
    def rules(value: str) -> tuple[L7Rule, ...]:
        return (a_rule(60, 50, Type.HEADER, compare, value, key="X-Kind"),)

    actions = {}
    await site.shows(("127.0.0.0/8",), rules("first"))
    for value in HOSTILE:
        actions[value] = (await site.shows(("127.0.0.0/8",), rules(value))).action
        bare = value[1:-1] if value.startswith('"') else value
        tree = site.tree((), rules(value))
        with contextlib.closing(Client(site.port)) as client:
            for header in (bare, f"x{bare}x", f"{bare}x", "first", "w"):
                request = Request(headers=(("X-Kind", header.strip()),))
                expected = outcome(tree, tree.listeners[0], request).status
                got = await asyncio.to_thread(client.ask, request.encode())
                assert (value, header, got[0]) == (value, header, expected)
    assert {actions[x] for x in HOSTILE[:16]} == {"runtime"}
    assert {actions[x] for x in ("#", '" v"')} == {"reload"}
    await site.shows(("127.0.0.0/8",), rules("b\\ ;'#"))
    assert (await site.shows(("127.0.0.0/8",), rules("c\\;'#"))).action in ("runtime", "reload")
    changed = site.patterns()
    assert (await site.shows(("127.0.0.0/8",), rules("c\\;'#"), timeout=40_000)).action == "reload"
    assert changed == site.patterns()


TARGETS = [
    "http://one.example/",
    "http://two.example/?a=b&c=%[src]%20%%#it's",
    'https://three.example:8443/$HOME/"{|}~^`\\;show info<<',
    "http://four.example/\u00fc\u4e2d,(x),map(y)",
    "http://five.example/" + "x" * 235,
    "http://six.example/  two blanks and @prepared",
]


@pytest.mark.parametrize("action", [Action.REDIRECT_TO_URL, Action.REDIRECT_PREFIX])
async def test_a_redirect_leads_elsewhere_without_a_reload(site: Site, action: Action) -> None:
    """Byte for byte, and as it would after a start."""

    def tree(target: str, timeout: int = 50_000) -> LoadBalancerTree:
        field = "redirect_url" if action is Action.REDIRECT_TO_URL else "redirect_prefix"
        shown = site.tree(("127.0.0.0/8",), (a_rule(60, 50, Type.PATH, Compare.STARTS_WITH, "/"),), timeout)
        return replace(shown, l7_policies=(replace(a_policy(action=action), **{field: target}),))

    def location() -> str | None:
        client = Client(site.port)
        with contextlib.closing(client):
            return client.ask(b"GET /here HTTP/1.1\r\nHost: x\r\n\r\n")[1].get("location")

    behind = "" if action is Action.REDIRECT_TO_URL else "/here"
    assert (await site.world.apply(tree("http://first.example/"))).action == "start"
    for target in TARGETS:
        assert (await site.world.apply(tree(target))).action == "runtime"
        told = await asyncio.to_thread(location)
        assert told == f"{target}{behind}".encode().decode("latin-1")
        assert (await site.world.apply(tree(target, 40_000))).action == "reload"
        assert await asyncio.to_thread(location) == told
        assert (await site.world.apply(tree(target))).action == "reload"
