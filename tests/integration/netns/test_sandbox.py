"""The stories of networks and namespaces, each file in a machine of its own: namespaces of network, mounts and processes,
which end with all that is in them when the test does, however that is. Needs root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
PREPARE = 'mount -t tmpfs tmpfs /run && mount -t sysfs sysfs /sys && ip link set lo up && exec "$@"'


def run(file: str, *words: str, seconds: float = 300) -> str:
    """What it printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(HERE / file), *words]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", PREPARE, "sh", *command],
        env={**environment, "PATH": path},
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}"
    return done.stdout


@pytest.mark.beside
@pytest.mark.parametrize("file", ["stories_kits.py", "stories_networks.py", "stories_spoofing.py", "stories_sweep.py"])
def test_stories(file: str) -> None:
    run(file)


@pytest.mark.long
@pytest.mark.parametrize("story", ["loses_one_process", "failover_that_is_asked_for", "both_dead", "reload"])
def test_stories_of_pairs(story: str) -> None:
    """Each in a machine of its own: two installations would want one management network."""
    run("stories_pairs.py", "-k", story)


@pytest.mark.long
@pytest.mark.parametrize(
    "story", ["amphora-0.5", "amphora-0.6", "failover and balancer", "failover and amphora]", "lasts_too_long"]
)
def test_stories_of_upgrades(story: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What the clients saw is printed."""
    told = run("stories_upgrades.py", "-s", "-k", story)
    with capsys.disabled():
        sys.stdout.write(
            "\n" + "\n".join(x.removeprefix("seen: ") for x in told.splitlines() if x.startswith("seen: "))
        )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_stories_of_faults() -> None:
    run("stories_faults.py", seconds=580)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", ["stories_machines.py", "stories_machine_pairs.py"])
def test_stories_of_machines(file: str) -> None:
    """Needs QEMU and the image: make image."""
    run(file, "-m", "long", seconds=900)
