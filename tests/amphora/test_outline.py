"""What the agent makes of an outline: statuses, who rests, and the one word that it adds to a text."""

import json
from typing import Any

import pytest

from frontinus_amphora.encoding import Counters
from frontinus_amphora.errors import Invalid
from frontinus_amphora.outline import (
    judged,
    mark_down,
    parse_outline,
    pool_rows,
    resting,
    sessions_of_listeners,
)
from frontinus_amphora.tally import add_up

pytestmark = pytest.mark.unit

CHECK = {"kind": "TCP", "address": "127.0.0.1", "port": 1, "interval": 1, "timeout": 1, "rise": 2, "fall": 3}


def outline_of(**members: dict[str, Any]) -> Any:
    return parse_outline(json.dumps({"listeners": {}, "pools": {"p": members}}).encode())


@pytest.mark.parametrize(
    "members, healths, statuses, pool",
    [
        pytest.param({}, {}, {}, "UP", id="a pool without members"),
        pytest.param({"a": {}}, {}, {"a": "no check"}, "UP", id="nobody is examined"),
        pytest.param({"a": {"status": "MAINT"}}, {}, {"a": "MAINT"}, "UP", id="disabled, nobody is examined"),
        pytest.param({"a": {"check": CHECK}}, {}, {"a": "UP 1/3"}, "UP", id="not examined yet"),
        pytest.param({"a": {"check": CHECK}}, {"p/a": 4}, {"a": "UP"}, "UP", id="in good health"),
        pytest.param({"a": {"check": CHECK}}, {"p/a": 3}, {"a": "UP 2/3"}, "UP", id="up, having failed once"),
        pytest.param({"a": {"check": CHECK}}, {"p/a": 0}, {"a": "DOWN"}, "DOWN", id="the only one is down"),
        pytest.param({"a": {"check": CHECK}}, {"p/a": 1}, {"a": "DOWN 1/2"}, "DOWN", id="down, having succeeded once"),
        pytest.param(
            {"a": {"check": CHECK}, "b": {"check": CHECK}},
            {"p/a": 0, "p/b": 4},
            {"a": "DOWN", "b": "UP"},
            "UP",
            id="one of two is down",
        ),
        pytest.param(
            {"a": {"check": CHECK}, "b": {"status": "DRAIN"}},
            {"p/a": 0},
            {"a": "DOWN", "b": "DRAIN"},
            "DOWN",
            id="one is down, the other drains",
        ),
    ],
)
def test_statuses(members: dict[str, Any], healths: dict[str, int], statuses: dict[str, str], pool: str) -> None:
    row = pool_rows(outline_of(**members), healths)["p"]
    assert (statuses, pool) == (row.members, row.status)


@pytest.mark.parametrize(
    "members, healths, rests",
    [
        pytest.param({"a": {}, "b": {"backup": True}}, {}, {"b"}, id="a backup waits"),
        pytest.param({"a": {"status": "MAINT"}, "b": {"backup": True}}, {}, {"a"}, id="a backup steps in"),
        pytest.param(
            {"a": {"check": CHECK}, "b": {"backup": True}, "c": {"backup": True}},
            {"p/a": 0},
            {"a"},
            id="all backups step in together",
        ),
        pytest.param(
            {"a": {"check": CHECK}, "b": {"check": CHECK, "backup": True}},
            {"p/a": 0, "p/b": 0},
            {"a", "b"},
            id="nobody is able",
        ),
        pytest.param({"a": {"status": "DRAIN"}, "b": {}}, {}, {"a"}, id="who drains gets nothing new"),
    ],
)
def test_who_rests(members: dict[str, Any], healths: dict[str, int], rests: set[str]) -> None:
    assert {f"p/{name}" for name in rests} == resting(outline_of(**members), healths)


@pytest.mark.parametrize(
    "results, healths",
    [
        pytest.param([True], [4], id="a success makes it well"),
        pytest.param([False], [0], id="a new one goes down at its first failure"),
        pytest.param([True, False, False, False], [4, 3, 2, 0], id="three failures in a row"),
        pytest.param([True, False, False, True], [4, 3, 2, 4], id="one success makes up for failures"),
        pytest.param([False, True, False, True, True], [0, 1, 0, 1, 4], id="two successes in a row bring it up"),
    ],
)
def test_health_counts_as_haproxy_does(results: list[bool], healths: list[int]) -> None:
    check = parse_outline(json.dumps({"listeners": {}, "pools": {"p": {"a": {"check": CHECK}}}}).encode()).checks()[
        "p/a"
    ]
    seen, health = [], check.rise
    for succeeded in results:
        health = judged(health, check, succeeded)
        seen.append(health)
    assert healths == seen


def test_only_the_named_servers_are_marked() -> None:
    text = "upstream p {\n    server 1.2.3.4:5 weight=1; # p/a\n    server 1.2.3.4:6 weight=1; # p/ab\n}\n"
    assert text.replace("weight=1; # p/a\n", "weight=1 down; # p/a\n") == mark_down(text, {"p/a", "q/a"})
    assert text == mark_down(text, set())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no listeners"),
        pytest.param(b"[" * 100_000, id="nested without end"),
        pytest.param(b'{"listeners": {"a": {"binds": [["x", 1]], "datagrams": true}}, "pools": {}}', id="no address"),
        pytest.param(b'{"listeners": {"a": {"binds": [["::1", 0]], "datagrams": true}}, "pools": {}}', id="no port"),
        pytest.param(
            json.dumps({"listeners": {}, "pools": {"p": {"a": {"check": {**CHECK, "kind": "SMELL"}}}}}).encode(),
            id="a check that nobody knows",
        ),
        pytest.param(
            json.dumps({"listeners": {}, "pools": {"p": {"a": {"check": {"kind": "TCP"}}}}}).encode(),
            id="a check without a port",
        ),
    ],
)
def test_an_outline_that_makes_no_sense_is_refused(content: bytes) -> None:
    with pytest.raises(Invalid):
        parse_outline(content)


def test_a_log_is_added_up_and_nonsense_passed_over() -> None:
    lines = b"a 10 1 1 0\nb 5 5 1 1\nrubbish\na 1 2 0 0\na x 2 0 0\n\xff 1 1 1 1 1\n"
    assert {"a": Counters(11, 3, 1, 0), "b": Counters(5, 5, 1, 1)} == add_up(lines)


def test_sessions_are_told_by_the_members_that_a_listener_has_alone() -> None:
    text = """
    server 10.0.0.1:53 weight=1 max_fails=0; # p/a
    server [fd00::1]:53 weight=1 max_fails=0 down; # p/b
    server 10.0.0.2:53 weight=1 max_fails=0; # q/c
    server 10.0.0.3:53 weight=1 max_fails=0; # r/d
"""
    listeners = {x: {"binds": [], "datagrams": True, "pool": x[0]} for x in ("p1", "q1", "q2")}
    outline = parse_outline(json.dumps({"listeners": listeners, "pools": {}}).encode())
    peers = {(f"10.0.0.{last}", 53): 1 for last in (1, 2, 3, 9)} | {("fd00::1", 53): 2}
    assert sessions_of_listeners(text, outline, peers) == {"p1": 3}
