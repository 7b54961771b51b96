"""Sweeping with real processes: an orphan is found, told of, and deleted after its grace; what is somebody else's, or is just
being made, stays."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.acceptance.support import COMMAND, Backend, Installation, free_port, until

GRACE_S = 3
SETTINGS = f"""\
[controller]
sweep_interval = 0.2
orphan_grace = {GRACE_S}
"""
MEMORY = Path("/dev/shm")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "state", SETTINGS)
    made.start()
    try:
        yield made
    finally:
        made.remove()


def sweep(installation: Installation, *words: str) -> Any:
    config = ("--config", str(installation.state_dir.parent / "frontinus.toml"))
    command = [*COMMAND, "sweep", *words, *config, "--state-dir", str(installation.state_dir), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def orphans(told: Any) -> dict[str, set[str]]:
    """Owner's id -> kinds of its things."""
    return {x["owner_id"]: {y["kind"] for y in x["belongings"]} for x in told["orphans"]}


def memory_of(amphora_id: str) -> list[Path]:
    return list(MEMORY.glob(f"frontinus-{amphora_id}*"))


@pytest.fixture
def lookalikes(tmp_path: Path) -> Iterator[list[object]]:
    """Others' things under names like ours: directories of keys, and processes of another state directory."""
    foreign = str(uuid4())
    directory, untagged = MEMORY / f"frontinus-{foreign}", MEMORY / f"frontinus-{uuid4()}"
    tag = MEMORY / f"frontinus-{foreign}.of"
    for each in (directory, untagged):
        each.mkdir(mode=0o700)
    tag.symlink_to(tmp_path / "elsewhere" / "amphorae" / foreign)
    sleepers = [
        subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], env=environment)
        for environment in (
            {"FRONTINUS_AMPHORA_ID": foreign, "FRONTINUS_STATE_DIR": str(tmp_path / "state2")},
            {"FRONTINUS_AMPHORA_ID": foreign},
        )
    ]
    yield [directory, untagged, tag, *sleepers]
    for sleeper in sleepers:
        sleeper.kill()
        sleeper.wait()
    tag.unlink(missing_ok=True)
    for each in (directory, untagged):
        shutil.rmtree(each, ignore_errors=True)


@pytest.mark.beside
def test_an_orphan_is_told_of_and_goes_after_its_grace(
    installation: Installation, backends: list[Backend], lookalikes: list[Any]
) -> None:
    """As after a restored backup: the database does not know what was made since."""
    api = installation.api()
    kept = api.web_load_balancer(backends, free_port(), name="kept")["id"]
    api.settled(kept)
    [amphora_kept] = api.amphorae(kept)
    database, backup = installation.state_dir / "frontinus.sqlite", installation.state_dir.parent / "backup"
    with sqlite3.connect(database) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    lost = api.web_load_balancer(backends, free_port(), name="lost")["id"]
    api.settled(lost)
    [amphora_lost] = api.amphorae(lost)
    assert installation.stop() == 0
    for name in ("-wal", "-shm"):
        Path(f"{database}{name}").unlink(missing_ok=True)
    shutil.copy(backup, database)

    # Told first, whoever asks; nothing goes, with --yes neither: the grace begins now.
    told = sweep(installation, "delete", "--yes")
    assert orphans(told) == {amphora_lost: {"directory", "memory", "process"}, lost: {"address"}}
    assert told["deleted"] == []
    assert installation.amphora_ids() == {amphora_kept, amphora_lost}
    wanted = sweep(installation, "list")["wanted"]
    assert {(x["owner_id"], x["kind"]) for x in wanted} == {
        (amphora_kept, "directory"),
        (amphora_kept, "memory"),
        (amphora_kept, "process"),
        (kept, "address"),
    }

    # A controller does it by itself, and only to them.
    installation.start()
    until(lambda: installation.amphora_ids() == {amphora_kept}, 20, "the orphan still runs")
    until(lambda: installation.places() == {amphora_kept}, 10, "its place is there still")
    assert memory_of(amphora_lost) == []
    assert len(memory_of(amphora_kept)) == 2
    until(lambda: orphans(sweep(installation, "list")) == {}, 10, "its address is not given back")
    assert installation.api().settled(kept)["provisioning_status"] == "ACTIVE"
    *files, one, other = lookalikes
    assert [x for x in files if not os.path.lexists(x)] == []
    assert [one.poll(), other.poll()] == [None, None]


def test_what_is_left_of_a_place_that_somebody_removed_goes(
    installation: Installation, backends: list[Backend]
) -> None:
    """The state directory of an amphora is gone, its processes and its keys are there: proved by their own marks."""
    api = installation.api()
    load_balancer_id = api.web_load_balancer(backends, free_port())["id"]
    api.settled(load_balancer_id)
    [amphora_id] = api.amphorae(load_balancer_id)
    installation.kill()
    with sqlite3.connect(installation.state_dir / "frontinus.sqlite") as database:
        database.execute("DELETE FROM amphora")
        database.execute("DELETE FROM load_balancer")
    shutil.rmtree(installation.state_dir / "amphorae")
    assert orphans(sweep(installation, "list", "--orphans")) == {
        amphora_id: {"memory", "process"},
        load_balancer_id: {"address"},
    }

    def deleted() -> bool:
        return amphora_id in sweep(installation, "delete", "--yes")["deleted"]

    until(deleted, GRACE_S + 20, "it is not deleted", pause=0.5)
    assert installation.amphora_ids() == set()
    assert memory_of(amphora_id) == []
    assert orphans(sweep(installation, "list")) == {}


@pytest.mark.beside
def test_what_is_being_made_when_the_controller_is_killed_is_not_swept(
    installation: Installation, backends: list[Backend]
) -> None:
    """Sweeps five times a second, deaths in the middle of creates: everything that was promised comes, in its first place."""
    ids = []
    for _ in range(4):
        api = installation.api()
        ids += [api.web_load_balancer(backends, free_port(), name=f"lb{n}")["id"] for n in range(2)]
        installation.kill()
        told = orphans(sweep(installation, "list", "--orphans"))
        assert told.keys().isdisjoint(ids), "what was promised is told to be an orphan"
        assert all(kinds == {"address"} for kinds in told.values()), f"an amphora without a row: {told}"
        installation.start()
    api = installation.api()
    assert {api.settled(x)["provisioning_status"] for x in ids} == {"ACTIVE"}
    amphorae = {y for x in ids for y in api.amphorae(x)}
    until(
        lambda: installation.places() == installation.amphora_ids() == amphorae,
        GRACE_S + 20,
        "there is too much or too little",
    )
    until(lambda: sweep(installation, "list")["orphans"] == [], GRACE_S + 20, "something is nobody's")
