"""HAProxy names a line; the object that the line is of gets the fault. The complaints are those of a real HAProxy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from frontinus.drivers.amphora.haproxy.blame import subject_of
from frontinus.drivers.amphora.haproxy.render import render
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.model.enums import Kind
from frontinus.model.tree import TreeChild

from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_monitor, a_pool, a_tree

TREE = a_tree(
    load_balancer=a_load_balancer(),
    listeners=[a_listener()],
    pools=[a_pool()],
    members=[a_member(30), a_member(31)],
    monitors=[a_monitor()],
)
TEXT = render(TREE, HaproxySettings(state_dir=Path("/nowhere"))).text
COMPLAINT = "[ALERT]    (6945) : config : parsing [{path}:{line}] : unknown keyword 'nonsense' in 'backend' section"


@pytest.mark.parametrize(
    "line, expected",
    [
        pytest.param("bind ", TREE.listeners[0], id="a line of a frontend"),
        pytest.param("balance ", TREE.pools[0], id="a line of a backend"),
        pytest.param(f"server {TREE.members[1].id}", TREE.members[1], id="a server"),
        pytest.param("timeout check", TREE.health_monitors[0], id="how long a check takes"),
        pytest.param("http-check send", TREE.health_monitors[0], id="what a check sends"),
        pytest.param("nbthread", None, id="a line of nobody's"),
    ],
)
def test_the_line_s_object_is_named(line: str, expected: TreeChild | None) -> None:
    number = next(n for n, x in enumerate(TEXT.split("\n"), 1) if x.strip().startswith(line))
    found = subject_of(COMPLAINT.format(path="scratch.cfg", line=number), TEXT, TREE)
    assert (None if expected is None else (expected.kind, expected.id)) == (found and (found.kind, found.id))


@pytest.mark.parametrize("complaint", ["", "out of memory", "[x:0]", "[x:99999]", "[x:y]"])
def test_what_names_no_line_names_nobody(complaint: str) -> None:
    assert subject_of(complaint, TEXT, TREE) is None


def test_a_real_haproxy_s_complaint_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "bad.cfg"
    bad = TEXT.replace(f"server {TREE.members[0].id}", f"server {TREE.members[0].id} nonsense", 1)
    file.write_text(bad)
    found = subprocess.run(["/usr/sbin/haproxy", "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert found.returncode != 0
    subject = subject_of(found.stderr, bad, TREE)
    assert subject is not None
    assert (subject.kind, subject.id) == (Kind.MEMBER, TREE.members[0].id)
