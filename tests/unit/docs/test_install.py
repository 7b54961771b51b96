"""docs/install-openstack.md names only what there is: commands, options, units and settings. That it leads somewhere is shown by
tests/acceptance/test_install_document.py, which carries it out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from frontinus.cli.main import main
from frontinus.main import check
from frontinus.settings import load

TOP = Path(__file__).parents[3]
TEXT = (TOP / "docs" / "install-openstack.md").read_text()
BLOCKS = re.findall(r"^```sh.*?\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = "".join(BLOCKS).replace("\\\n", " ").splitlines()
    return [x.partition(">")[0].strip() for x in lines if x.startswith("frontinus ")]


def mentioned() -> list[str]:
    """In the text between."""
    between = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    found = (" ".join(x.split()) for x in re.findall(r"`(frontinus [a-z][^`]*)`", between))
    return sorted(set(found))


@pytest.mark.parametrize("line", [*commands(), *mentioned()])
def test_every_command_and_its_options_are_there(line: str) -> None:
    words = shlex.split(line)[1:]
    found: click.Command = main
    while words and isinstance(found, click.Group) and words[0] in found.commands:
        found = found.commands[words.pop(0)]
    assert found is not main, f"there is no such command: {line}"
    known = {name for option in found.params for name in option.opts}
    assert {x for x in words if x.startswith("-")} <= known, line
    if isinstance(found, click.Group):
        assert words == [], line


def test_the_settings_are_such_that_all_parts_would_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {
        name: text
        for text in BLOCKS
        for name, text in re.findall(r"cat >(\S+) <<END\n(.*?)^END$", text, re.MULTILINE | re.DOTALL)
    }
    clouds, settings = written["/etc/frontinus/clouds.yaml"], written["/etc/frontinus/frontinus.toml"]
    (tmp_path / "clouds.yaml").write_text(
        clouds.replace("$KEYSTONE", "http://keystone:5000/v3").replace("$PASSWORD", "p")
    )
    file = tmp_path / "frontinus.toml"
    file.write_text(re.sub(r"\$\([^)]*\)", "some-id", settings).replace("$DATABASE_PASSWORD", "p"))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    assert {"nova", "neutron", "barbican", "haproxy"} <= set(check(load(file)))


def test_every_unit_is_there() -> None:
    units = {x.name for x in (TOP / "packaging" / "systemd").glob("*.service")}
    named = set(re.findall(r"frontinus-[a-z]+(?:@)?", "".join(x for x in BLOCKS if "systemctl" in x)))
    assert {f"{x}.service" for x in named} == units
