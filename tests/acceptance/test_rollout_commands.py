"""What an operator reads who steers a rollout by hand: who is meant and who is not, and what repeating a command comes to."""

from __future__ import annotations

import signal
import subprocess
from functools import partial

import pytest

from tests.acceptance.support import COMMAND, Installation, free_port

pytestmark = [pytest.mark.beside, pytest.mark.timeout(180)]


def test_an_operator_is_told_what_a_command_came_to(installation: Installation) -> None:
    """On the embedded default, where only one version can run."""
    api = installation.api()

    def said(*words: str, expect: int = 0) -> str:
        where = ["--state-dir", str(installation.state_dir)]
        done = subprocess.run([*COMMAND, "rollout", *words, *where], text=True, capture_output=True, check=False)
        assert done.returncode == expect, (words, done)
        return done.stdout + done.stderr

    assert said("list") == "There was no rollout yet.\n"
    assert "there was none yet" in said("pause", expect=1)
    assert "haproxy has no load balancer that is meant (all)" in said("start")
    profile = api.create("flavorprofiles", "flavorprofile", name="p", provider_name="amphora", flavor_data="{}")
    flavor = api.create("flavors", "flavor", name="gold", flavor_profile_id=profile["id"])
    made = api.create(
        "loadbalancers",
        "loadbalancer",
        name="web",
        vip_subnet_id=api.subnet_id(),
        flavor_id=flavor["id"],
        listeners=[{"name": "web", "protocol": "HTTP", "protocol_port": free_port()}],
    )
    api.settled(made["id"])
    for words in (("plan",), ("start",)):
        told = said(*words)
        assert "haproxy 0.1.0 serves all 1 that are meant already" in told
        assert "start a controller of it first" in told
    assert "no flavor 'silver'" in said("start", "--certificates", "--flavor", "silver", expect=2)
    assert "is meant (tag blue)" in said("start", "--certificates", "--tag", "blue")

    said("start", "--certificates", "--flavor", "gold", "--canary-soak", "60")
    assert f"flavor {flavor['id']}: 1 load balancers" in said("show")
    assert "runs already" in said("resume")
    assert said("pause").rstrip().endswith("is paused.")
    assert said("pause").rstrip().endswith("is paused already.")
    assert "goes on" in said("resume")
    watching = subprocess.Popen(
        [*COMMAND, "rollout", "watch", "--state-dir", str(installation.state_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Who runs these tests in the background has SIGINT ignored, and so would have all that they start.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - takes no lock
    )
    assert watching.stdout is not None
    watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    assert "a rollout that was started goes on" in watching.communicate(timeout=30)[0]
    assert watching.returncode == 130
    assert "(canary)" in said("show")
    said("abort")
    assert "is aborted already" in said("abort")
    assert "it may become rolling-back" in said("resume", expect=1)
    assert "which cannot be taken back" in said("rollback", expect=1)
