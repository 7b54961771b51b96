"""Silence is believed of a few, and of many only if they are a small share."""

from __future__ import annotations

from datetime import timedelta

import pytest

from frontinus.health.liveness import WakingClock, judge
from frontinus.health.settings import HealthSettings
from frontinus.model.ids import AmphoraId

pytestmark = pytest.mark.unit

SETTINGS = HealthSettings(silence_deadline=timedelta(seconds=3), brake_minimum=5, brake_share=0.25)


@pytest.mark.parametrize(
    "watched,silent,braked",
    [
        pytest.param(1, 1, False, id="the only one is believed"),
        pytest.param(5, 5, False, id="a handful is believed even if it is all"),
        pytest.param(6, 6, True, id="more than a handful and all: we are deaf"),
        pytest.param(200, 60, True, id="30 percent of 200 at once: we are deaf"),
        pytest.param(200, 50, False, id="a quarter is the limit"),
        pytest.param(10_000, 5, False, id="five of ten thousand"),
    ],
)
def test_brake(watched: int, silent: int, braked: bool) -> None:
    heard = {AmphoraId(str(n)): 0.0 if n < silent else 10.0 for n in range(watched)}
    judgement = judge(heard, 10.0, SETTINGS)
    assert judgement.braked is braked
    assert len(judgement.silent) == (0 if braked else silent)


def test_one_is_silent_only_past_the_deadline() -> None:
    heard = {AmphoraId("a"): 7.0, AmphoraId("b"): 6.9}
    assert judge(heard, 10.0, SETTINGS).silent == {AmphoraId("b")}


def test_while_heartbeats_are_lost_on_their_way_silence_must_last_longer() -> None:
    heard = {AmphoraId("a"): 40.0, AmphoraId("b"): 90.0, AmphoraId("c"): 99.0}
    assert judge(heard, 101.0, SETTINGS).silent == {AmphoraId("a"), AmphoraId("b")}
    assert judge(heard, 101.0, SETTINGS, at_least=60.0).silent == {AmphoraId("a")}


def test_silence_while_we_were_stopped_is_ours() -> None:
    """SIGSTOP for ten seconds, or a machine that gave us no turn: nobody is suspected for what waits in the socket."""
    moment = 100.0
    clock = WakingClock(lambda: moment, longest_step=0.5)
    heard = {AmphoraId("a"): clock()}
    for _ in range(8):
        moment += 0.25
        clock()
    moment += 10.0
    assert judge(heard, clock(), SETTINGS).silent == frozenset()
    for _ in range(3):
        moment += 0.25
        clock()
    assert judge(heard, clock(), SETTINGS).silent == {AmphoraId("a")}, "who stays silent is suspected all the same"
