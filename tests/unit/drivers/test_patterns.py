"""What a file of patterns can hold, and how its patterns are exchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from frontinus.drivers.amphora.agent.files import Live, marks
from frontinus.drivers.amphora.haproxy.diff import diff
from frontinus.drivers.amphora.haproxy.patterns import holds
from frontinus.drivers.amphora.haproxy.preview import preview
from frontinus.drivers.amphora.haproxy.render import render
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.interface import Rendered

from tests.unit.drivers.trees import a_listener, a_member, a_policy, a_pool, a_rule, a_tree

SETTINGS = HaproxySettings(state_dir=Path("/nowhere"))


def site(*cidrs: str, value: str = "/a", base_path: str = "") -> Rendered:
    tree = a_tree(
        listeners=[a_listener(allowed_cidrs=cidrs)],
        pools=[a_pool()],
        members=[a_member()],
        policies=[a_policy()],
        rules=[a_rule(value=value)],
    )
    return render(tree, HaproxySettings(state_dir=Path("/nowhere"), base_path=base_path))


@pytest.mark.parametrize("pattern", ["a", "-f", "a#", "a ", "\u00fc", "\\", "x" * 2_000])
def test_a_file_holds(pattern: str) -> None:
    assert holds(pattern)


@pytest.mark.parametrize("pattern", ["", "#", "#a", " a", "\ta", "a\nb", "a\rb", "a\0", "x" * 2_001])
def test_a_file_does_not_hold(pattern: str) -> None:
    assert not holds(pattern)


def test_networks_and_values_are_exchanged_by_commands() -> None:
    before, after = site("10.0.0.0/8"), site("10.0.0.0/8", "192.0.2.0/24", value="/b c;")
    change = diff(Live(before.text, marks(before.files)), after)
    assert not change.reload
    assert [x.split(" ")[:2] for x in change.commands] == [[y, z] for z in ("map", "acl") for y in VERBS]
    assert change.commands[1].endswith(" <<\n10.0.0.0/8 1\n192.0.2.0/24 1\n")
    assert change.commands[4].endswith(" /b\\ c\\;")


VERBS = ("prepare", "add", "commit")


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(site(), id="everybody may come"),
        pytest.param(site("10.0.0.0/8", value="#"), id="a value that no file holds"),
        pytest.param(site("10.0.0.0/8", base_path="/var/lib/octavia"), id="no files"),
    ],
)
def test_another_structure_takes_a_reload(after: Rendered) -> None:
    before = site("10.0.0.0/8")
    assert diff(Live(before.text, marks(before.files)), after).reload
    assert diff(Live(after.text, marks(after.files)), before).reload


def test_genuine_octavia_agents_get_no_such_files() -> None:
    rendered = site("10.0.0.0/8", base_path="/var/lib/octavia")
    assert rendered.files == ()
    assert "src 10.0.0.0/8" in rendered.text
    assert "-- /a" in rendered.text


def test_a_dry_run_foretells_it_and_shows_the_networks() -> None:
    told = preview(site("10.0.0.0/8"), site("192.0.2.0/24"))
    assert told.action == "runtime"
    assert [x for x in told.diff.splitlines() if "/24" in x or "/8" in x] == [
        "-    10.0.0.0/8 1",
        "+    192.0.2.0/24 1",
    ]
