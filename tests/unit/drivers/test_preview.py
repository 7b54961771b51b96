"""What a tenant is told of a change: the right action, why it takes a reload, and a diff that is a diff."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontinus.drivers.amphora.agent.change import Change
from frontinus.drivers.amphora.haproxy.diff import MOST_COMMANDS
from frontinus.drivers.amphora.haproxy.preview import preview
from frontinus.drivers.amphora.haproxy.render import render, rendered
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.model.certificates import Secrets
from frontinus.model.enums import ListenerProtocol, PoolProtocol
from frontinus.model.previews import ACTIONS, LONGEST_DIFF, strongest, unified
from frontinus.model.tree import LoadBalancerTree
from frontinus.testing.certificates import TestAuthority

from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_pool, a_tree

SETTINGS = HaproxySettings(state_dir=Path("/nowhere"))


def site(**fields: Any) -> LoadBalancerTree:
    parts: dict[str, Any] = {"listeners": [a_listener()], "pools": [a_pool()], "members": [a_member(), a_member(31)]}
    return a_tree(load_balancer=a_load_balancer(), **{**parts, **fields})


NOTHING = site(listeners=[])
_UDP_PARTS = {
    "listeners": [a_listener(11, ListenerProtocol.UDP, 53, 21)],
    "pools": [a_pool(21, PoolProtocol.UDP)],
    "members": [a_member(40, pool=21)],
}
UDP = site(**_UDP_PARTS)
UDP_DRAINED = site(**{**_UDP_PARTS, "members": [a_member(40, pool=21, weight=0)]})
BOTH = site(
    listeners=[a_listener(), *UDP.listeners],
    pools=[a_pool(), *UDP.pools],
    members=[a_member(), a_member(31), *UDP.members],
)
MEMBER = str(site().members[0].id)
MANY = [a_member(1000 + n, weight=1) for n in range(MOST_COMMANDS + 1)]


@pytest.mark.parametrize(
    "before, after, action, reason",
    [
        pytest.param(None, site(), "start", "", id="nothing runs yet"),
        pytest.param(NOTHING, site(), "start", "", id="the first listener"),
        pytest.param(site(), NOTHING, "stop", "", id="the last listener"),
        pytest.param(site(), None, "stop", "", id="it is removed"),
        pytest.param(None, NOTHING, "unchanged", "", id="nothing, still"),
        pytest.param(None, None, "unchanged", "", id="nothing at all"),
        pytest.param(site(), site(), "unchanged", "", id="the same"),
        pytest.param(NOTHING, UDP, "start", "", id="only nginx starts"),
        pytest.param(UDP, NOTHING, "stop", "", id="only nginx stops"),
        pytest.param(UDP, UDP_DRAINED, "reload", "nginx changes by a reload only", id="a weight of UDP"),
        pytest.param(site(), BOTH, "start", "", id="nginx joins"),
        pytest.param(BOTH, site(), "stop", "", id="nginx goes"),
        pytest.param(BOTH, UDP, "stop", "", id="haproxy goes"),
        pytest.param(site(), site(members=[a_member(weight=9), a_member(31)]), "runtime", "", id="a weight"),
        pytest.param(site(), site(members=[a_member()]), "runtime", "", id="a member less"),
        pytest.param(
            site(),
            site(listeners=[a_listener(), a_listener(11, port=81)]),
            "reload",
            "backend 00000000-0000-0000-0000-000000000014:00000000-0000-0000-0000-00000000000b comes; "
            "frontend 00000000-0000-0000-0000-00000000000b comes",
            id="a listener more",
        ),
        pytest.param(
            site(),
            site(listeners=[a_listener(timeout_client_data=9)]),
            "reload",
            "frontend 00000000-0000-0000-0000-00000000000a changes in more than its servers",
            id="a timeout",
        ),
        pytest.param(
            site(), site(members=MANY), "reload", "or by more than 1000 commands", id="more members than commands"
        ),
        pytest.param(
            site(), site(members=[a_member(backup=True), a_member(31)]), "reload", "at a start only", id="a backup"
        ),
    ],
)
def test_the_action_and_its_reason_are_told(
    before: LoadBalancerTree | None, after: LoadBalancerTree | None, action: str, reason: str
) -> None:
    told = preview(*(None if x is None else render(x, SETTINGS) for x in (before, after)))
    assert told.action == action
    assert reason in told.reason
    assert bool(told.reason) == (action == "reload")
    assert bool(told.diff) == (action != "unchanged")
    assert bool(told.commands) == (action == "runtime")


UDP = site(
    listeners=[a_listener(11, ListenerProtocol.UDP, 53, pool=21)],
    pools=[a_pool(21, PoolProtocol.UDP)],
    members=[a_member(32, pool=21)],
)
BOTH = site(
    listeners=[a_listener(), a_listener(11, ListenerProtocol.UDP, 53, pool=21)],
    pools=[a_pool(), a_pool(21, PoolProtocol.UDP)],
    members=[a_member(), a_member(31), a_member(32, pool=21)],
)
FEWER = site(
    listeners=BOTH.listeners, pools=BOTH.pools, members=[a_member(), a_member(31), a_member(32, pool=21, weight=7)]
)


@pytest.mark.parametrize(
    "before, after, action",
    [
        pytest.param(None, UDP, "start", id="nginx alone starts"),
        pytest.param(site(), BOTH, "start", id="nginx comes beside haproxy"),
        pytest.param(BOTH, site(), "stop", id="nginx goes"),
        pytest.param(BOTH, UDP, "stop", id="haproxy goes"),
        pytest.param(BOTH, FEWER, "reload", id="nginx knows no commands"),
        pytest.param(UDP, NOTHING, "stop", id="both are gone"),
    ],
)
def test_nginx_counts_like_haproxy(before: LoadBalancerTree | None, after: LoadBalancerTree, action: str) -> None:
    told = preview(None if before is None else render(before, SETTINGS), render(after, SETTINGS))
    assert told.action == action
    assert told.diff
    assert (told.reason == "nginx changes by a reload only") == (action == "reload")


def test_a_change_of_a_key_shows_that_it_is_another_and_no_more() -> None:
    tls = a_listener(protocol=ListenerProtocol.TERMINATED_HTTPS, default_tls_container_ref="local:one")
    tree = a_tree(listeners=[tls], pools=[a_pool()], members=[a_member()])
    authority = TestAuthority()
    certificates = [authority.issue("www.example.org") for _ in range(2)]
    told = preview(*(render(tree, SETTINGS, Secrets(certificates={"local:one": x})) for x in certificates))
    assert told.action == "runtime"
    assert [command.split(" ")[:3] for command in told.commands] == [["set", "ssl", "cert"], ["commit", "ssl", "cert"]]
    changed = [x for x in told.diff.splitlines() if x.startswith(("+#", "-#"))]
    assert [x[:18] for x in changed] == ["-# beside it: crt-", "+# beside it: crt-"]
    for key in (x.private_key.decode().splitlines()[1] for x in certificates):
        assert key not in repr(told)


def test_commands_are_those_that_would_be_sent() -> None:
    told = preview(render(site(), SETTINGS), render(site(members=[a_member(weight=9), a_member(31)]), SETTINGS))
    (command,) = told.commands
    assert command.endswith(f"/{MEMBER} weight 9")


def test_what_was_not_written_by_us_is_a_reload() -> None:
    told = preview(rendered("listen x\n  bind :1\n"), render(site(), SETTINGS))
    assert (told.action, told.reason) == ("reload", "what runs was not written by this version")


# ---------------------------------------------------------------- diffs


LINES = st.lists(st.sampled_from(["a", "b", "c", "  d", "-", "+", "@@ x"]), max_size=40)


@given(before=LINES, after=LINES)
def test_a_diff_is_one_that_patch_applies(before: list[str], after: list[str], tmp_path_factory: Any) -> None:
    """What both texts begin and end with is left out of the comparison, so the places in it are our own work."""
    shared = [f"same {n}" for n in range(10)]
    old, new = ([*shared, *x, *shared] for x in (before, after))
    diff = unified("\n".join(old), "\n".join(new), "f")
    assert (diff == "") == (old == new)
    assert _patched(old, diff) == new


def _patched(old: list[str], diff: str) -> list[str]:
    """A strict reader of unified diffs: every line of context and every place must be right."""
    new: list[str] = []
    position = 0
    for line in diff.split("\n")[2:-1]:
        if line.startswith("@@ -"):
            start, _, length = line.split(" ")[1][1:].partition(",")
            begin = int(start) - (0 if length == "0" else 1)
            new += old[position:begin]
            position = begin
            begin_of_new, _, length = line.split(" ")[2][1:].partition(",")
            assert len(new) == int(begin_of_new) - (0 if length == "0" else 1)
        elif line[0] in " -":
            assert old[position] == line[1:]
            position += 1
            new += [line[1:]] if line[0] == " " else []
        else:
            assert line[0] == "+"
            new.append(line[1:])
    return [*new, *old[position:]]


def test_a_real_diff_has_the_same_places(tmp_path: Path) -> None:
    old = render(site(), SETTINGS).text
    new = render(site(members=[a_member(weight=9)]), SETTINGS).text
    for name, text in (("old", old), ("new", new)):
        (tmp_path / name).write_text(text)
    real = subprocess.run(
        ["diff", "-u", "old", "new"], cwd=tmp_path, capture_output=True, text=True, check=False
    ).stdout
    assert unified(old, new, "f").splitlines()[2:] == real.splitlines()[2:]


def test_a_diff_is_bounded() -> None:
    told = unified("", "\n".join(str(x) for x in range(3 * LONGEST_DIFF)), "f").splitlines()
    assert len(told) == LONGEST_DIFF + 1
    assert told[-1].endswith("more lines")
    assert len(unified("", "x" * 100_000, "f")) < 2_000


def test_the_greatest_interference_counts() -> None:
    assert [strongest([]), strongest(["runtime", "unchanged"]), strongest(ACTIONS)] == [
        "unchanged",
        "runtime",
        "replace",
    ]


def test_texts_without_anything_in_common_are_not_compared_line_by_line() -> None:
    """Comparing them would take minutes; what goes and what comes is told all the same."""
    old, new = (["same", *(f"{word} {number % 7}" for number in range(20_000)), "end"] for word in ("old", "new"))
    began = time.process_time()
    told = unified("\n".join(old), "\n".join(new), "f").splitlines()
    assert time.process_time() - began < 2
    assert told[2:6] == ["@@ -1,20002 +1,20002 @@", "-same", "-old 0", "-old 1"]


def test_a_change_shows_no_payload() -> None:
    change = Change(("set ssl cert a.pem <<\nPRIVATE KEY", "commit ssl cert a.pem"), reload=False)
    assert "PRIVATE" not in repr(change)
    assert "set ssl cert a.pem <<" in repr(change)
