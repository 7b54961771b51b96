"""`frontinus driver list` and `check`, as an operator or a vendor types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from frontinus.cli.main import main
from frontinus.testing.amphora_conformance import CHECKS

NOOP = "frontinus.drivers.amphora.noop:NoopAmphoraDriver"


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["driver", *words], catch_exceptions=False)
    return done.exit_code, done.output


def test_list_shows_whose_each_driver_is_and_which_are_chosen(tmp_path: Path) -> None:
    status, text = run("list", "--state-dir", str(tmp_path), "--json")
    told = {(x["kind"], x["name"]): x for x in json.loads(text)}
    assert status == 0
    assert told["amphora", "haproxy"]["chosen"]
    assert told["amphora", "haproxy"]["distribution"] == "frontinus"
    assert told["amphora", "noop"]["refusal"] is None
    assert {kind for kind, _name in told} == {"amphora", "compute", "network", "secret"}


def test_the_report_names_every_requirement_with_what_was_seen() -> None:
    status, text = run("check", "noop", "--on-paper", "--json")
    report = json.loads(text)
    assert status == 1
    assert [x["name"] for x in report["requirements"]] == [x.name for x in CHECKS]
    assert (report["driver"], report["class"], report["passed"]) == ("noop", NOOP, False)
    by_name = {x["name"]: x for x in report["requirements"]}
    assert by_name["render is pure"]["outcome"] == "passed"
    assert by_name["digest follows the configuration"]["outcome"] == "failed"
    assert by_name["digest follows the configuration"]["detail"] == "two configurations have one digest"
    assert by_name["apply repeats"]["outcome"] == "not examined"
    assert report["counts"]["failed"] == 3


@pytest.mark.parametrize(
    "words, status, told",
    [
        pytest.param(
            (NOOP, "--on-paper", "--only", "render is pure"), 0, "1 passed", id="a class, and one requirement"
        ),
        pytest.param(("noop", "--on-paper", "--only", "apply repeats"), 0, "1 not examined", id="not examined is fine"),
        pytest.param(
            ("noop", "--on-paper", "--only", "apply repeats", "--strict"), 1, "1 not examined", id="unless strict"
        ),
        pytest.param(("noop", "--on-paper", "--only", "swims"), 2, "no requirement is called 'swims'", id="no such"),
        pytest.param(("cisterna",), 2, "neither module:Class nor one of", id="no such driver"),
        pytest.param(("json:JSONDecoder",), 2, "derives from none", id="no driver at all"),
        pytest.param(("noop", "--bench", "builtins:repr"), 2, "gave str, not AmphoraBench", id="no bench"),
        pytest.param(("noop", "--bench", "json:nothing"), 2, "cannot be imported", id="no such bench"),
        pytest.param(
            ("frontinus.drivers.network.noop:NoopNetwork", "--only", "unknown subnet is invalid"),
            1,
            "network driver noop",
            id="another kind",
        ),
    ],
)
def test_exit_status_and_what_is_said(words: tuple[str, ...], status: int, told: str) -> None:
    got, text = run("check", *words)
    assert (status, told in text) == (got, True), text


def test_settings_with_which_it_cannot_be_made_are_named(tmp_path: Path) -> None:
    file = tmp_path / "exam.toml"
    file.write_text("[driver_options.haproxy]\nagent_port = 0\n")
    status, text = run("check", "haproxy", "--config", str(file), "--on-paper")
    assert (status, "driver_options.haproxy.agent_port" in text) == (2, True), text
