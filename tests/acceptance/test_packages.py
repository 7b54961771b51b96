"""A host of an installation gets what it needs, and no more: the commands of docs/install-openstack.md, in an environment of
their own."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

TOP = Path(__file__).resolve().parents[2]
DOCUMENT = TOP / "docs" / "install-openstack.md"
PLACE = "/opt/frontinus/0.1.0"
NOT_ON_A_HOST = ("pytest", "mypy", "ruff", "hypothesis", "keystone", "openstackclient")


def test_a_host_gets_what_it_needs_and_no_more(tmp_path: Path) -> None:
    made = tmp_path / "0.1.0"
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", TOP, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", made], check=True)
    steps = re.findall(rf"^{PLACE}/bin/(pip .*)$", DOCUMENT.read_text(), re.MULTILINE)
    assert [x.split()[:2] for x in steps] == [["pip", "install"]] * 2
    for step in steps:
        subprocess.run([made / "bin" / "pip", "--quiet", *step.split()[1:]], cwd=source, check=True)

    def python(code: str) -> str:
        done = subprocess.run(
            [made / "bin" / "python", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    groups = sorted(x for x in entry_points().groups if x.startswith("frontinus."))
    assert len(groups) >= 4
    loads = f"from importlib.metadata import entry_points\nfor g in {groups}:\n  for e in entry_points(group=g): e.load(); print(e.name)"
    assert {"haproxy", "nova", "neutron", "barbican"} <= set(python(loads).split())
    version = subprocess.run([made / "bin" / "frontinus", "--version"], capture_output=True, text=True, check=True)
    assert "0.1.0" in version.stdout
    subprocess.run([made / "bin" / "pip", "--quiet", "check"], check=True)
    found = python(f"from importlib.util import find_spec\nprint([x for x in {NOT_ON_A_HOST} if find_spec(x)])")
    assert found.strip() == "[]"
