"""Who is silent, and whether to believe it. Pure: times come in as arguments, in seconds of a monotonic clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from frontinus.health.settings import HealthSettings
from frontinus.model.ids import AmphoraId

NO_DEADLINES: Mapping[AmphoraId, float] = {}


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """`silent` are to be suspected now. `braked` says that so many are silent (`counted`) that none of them is believed."""

    silent: frozenset[AmphoraId]
    braked: bool
    counted: int = 0


class WakingClock:
    """Seconds that this process was there to listen: a monotonic clock that leaves out the time in which nobody looked at it.

    Health looks at it several times a second. When much more time has passed since the last look, the process was stopped or
    starved: what amphorae sent meanwhile still waits in the socket, and their silence is ours. One owner: the health loop."""

    def __init__(self, monotonic: Callable[[], float], longest_step: float) -> None:
        """A step between two looks counts for `longest_step` seconds at most."""
        self._monotonic = monotonic
        self._longest_step = longest_step
        self._looked_at = monotonic()
        self._awake = self._looked_at

    def __call__(self) -> float:
        looked_at = self._monotonic()
        self._awake += min(looked_at - self._looked_at, self._longest_step)
        self._looked_at = looked_at
        return self._awake


def is_silent(last_heard: float, now: float, deadline: float) -> bool:
    """Whether more than `deadline` seconds have passed since the amphora was heard."""
    return now - last_heard > deadline


def judge(
    last_heard: Mapping[AmphoraId, float],
    now: float,
    settings: HealthSettings,
    *,
    own_deadlines: Mapping[AmphoraId, float] = NO_DEADLINES,
    lag: float = 0.0,
    at_least: float = 0.0,
) -> Judgement:
    """Weigh a whole fleet. `last_heard` holds every watched amphora; one that was never heard counts from the moment
    that watching it began, which gives it and a receiver that just started their grace.

    `own_deadlines` are of amphorae that beat more slowly than the settings expect; `lag` is how late it may be known here
    what another receiver heard; `at_least` is the deadline while heartbeats are known to be lost on their way."""
    deadline = max(settings.silence_deadline.total_seconds(), at_least)
    silent = frozenset(
        x
        for x, heard in last_heard.items()
        if now - heard > deadline and is_silent(heard, now, max(deadline, own_deadlines.get(x, 0.0)) + lag)
    )
    if brake(len(silent), len(last_heard), settings):
        return Judgement(silent=frozenset(), braked=True, counted=len(silent))
    return Judgement(silent=silent, braked=False, counted=len(silent))


def brake(silent: int, watched: int, settings: HealthSettings) -> bool:
    """Whether too many are silent at once to be true."""
    return silent > settings.brake_minimum and silent > settings.brake_share * watched
