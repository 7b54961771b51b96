"""A machine of its own has the time of its controllers; an agent that shares a machine leaves its clock alone."""

import time
import uuid
from collections.abc import Callable

import pytest

from frontinus_amphora.clock import Clock, step

from tests.amphora.test_heartbeat import next_beat
from tests.amphora.world import Amphora

NOW = 1_764_280_000.0
HOUR = 3600.0

IN_A_MACHINE_OF_ITS_OWN = """
import sys, time
behind = -100 * 86400.0
real_time, real_time_ns = time.time, time.time_ns
def set_to(clock, to):
    global behind
    behind = to - real_time()
time.time = lambda: real_time() + behind
time.time_ns = lambda: real_time_ns() + int(behind * 1e9)
time.clock_settime = set_to
from frontinus_amphora.main import serve
sys.exit(serve(sys.argv[1], owns_machine=True))
"""
"""The agent as the image starts it, with a clock of a hundred days ago that is not this machine's."""


@pytest.mark.parametrize(
    "told, expected",
    [
        pytest.param(NOW + 0.5, None, id="as good as right"),
        pytest.param(NOW + 2.5, NOW + 2.5, id="a little behind"),
        pytest.param(NOW + 90 * 24 * HOUR, NOW + 90 * 24 * HOUR, id="suspended for months"),
        pytest.param(NOW - 40.0, None, id="ahead, or a request that took its time"),
        pytest.param(NOW - HOUR, NOW - HOUR, id="an hour ahead"),
        pytest.param(12.0, None, id="a controller that knows no time itself"),
        pytest.param(1e12, None, id="milliseconds"),
        pytest.param("", None, id="empty"),
        pytest.param("nan", None, id="no number"),
        pytest.param("yesterday", None, id="words"),
    ],
)
def test_a_clock_is_set_when_it_is_off(told: object, expected: float | None) -> None:
    assert step(str(told), NOW) == expected


def test_who_was_told_the_time_once_is_not_set_again() -> None:
    clock, changes = [NOW - HOUR], []
    guest = Clock(lambda: changes.append(clock[0]), lambda: clock[0], lambda to: clock.__setitem__(0, to))
    guest.heed(str(NOW))
    guest.heed(str(NOW))
    assert (clock, changes) == ([NOW], [NOW])


def test_a_clock_that_cannot_be_set_is_no_trouble() -> None:
    def refuse(to: float) -> None:
        raise PermissionError(1, "Operation not permitted")

    changes: list[int] = []
    Clock(lambda: changes.append(1), lambda: NOW - HOUR, refuse).heed(str(NOW))
    assert changes == []


@pytest.mark.integration
def test_a_machine_whose_clock_was_behind_is_heard_again(new_amphora: Callable[..., Amphora]) -> None:
    """Its first beats are older than those of its life before, which whoever heard that takes for replays."""
    amphora = new_amphora()
    amphora.kill()
    amphora.ears.drain()
    (amphora.base / "stats_counters.json").unlink()  # its memory is gone with the machine
    amphora.program = ("-c", IN_A_MACHINE_OF_ITS_OWN)
    amphora.start()
    began = time.time_ns()
    first = next_beat(amphora.ears)
    assert first.boot < began - 99 * 86400 * 10**9
    controller = amphora.controller()
    asked = {"Frontinus-Time": f"{time.time():.3f}"}
    assert controller.call("GET", "/frontinus", headers=asked).status == 200
    while (beat := next_beat(amphora.ears)).boot == first.boot:
        pass
    assert (beat.boot >= began - 10**9, beat.sequence) == (True, 0)
    assert controller.call("GET", "/frontinus", headers=asked).status == 200
    assert next_beat(amphora.ears).boot == beat.boot  # once is enough


@pytest.mark.integration
def test_an_agent_that_shares_its_machine_leaves_the_clock_alone(amphora: Amphora) -> None:
    before = next_beat(amphora.ears)
    asked = {"Frontinus-Time": str(time.time() + HOUR)}
    assert amphora.controller().call("GET", f"/frontinus/1/loadbalancer/{uuid.uuid4()}", headers=asked).status == 200
    assert abs(time.time() - float(asked["Frontinus-Time"])) > HOUR / 2
    amphora.ears.drain()
    assert next_beat(amphora.ears).boot == before.boot
