"""Replays change nothing, changes are weighed once, counters survive a failed write."""

from __future__ import annotations

import base64
import zlib

import pytest
from msgspec.structs import replace

from frontinus.health import memory
from frontinus.health.accounts import FORGET_AFTER_S, Accounts
from frontinus.model.heartbeat import Counters, Heartbeat, ListenerReport, PoolReport
from frontinus.model.ids import AmphoraId

pytestmark = pytest.mark.unit

A = AmphoraId("00000000-0000-4000-8000-00000000000a")


def beat(
    sequence: int | None,
    *,
    boot: int | None = 1,
    member: str = "UP",
    total: int = 0,
    incremental: bool = False,
    part: int = 0,
    parts: int = 1,
) -> Heartbeat:
    return Heartbeat(
        part=part,
        parts=parts,
        amphora_id=A,
        boot=boot,
        sequence=sequence,
        incremental=incremental,
        listeners={"l": ListenerReport(status="OPEN", counters=Counters(total_connections=total))},
        pools={"p": PoolReport(status="UP", members={"m": member})},
    )


def watching() -> Accounts:
    accounts = Accounts()
    accounts.watch([A], 0.0)
    return accounts


def test_replayed_and_overtaken_heartbeats_are_refused() -> None:
    accounts = watching()
    assert accounts.hear(beat(5), 1.0) is None
    assert accounts.hear(beat(5), 2.0) is not None
    assert accounts.hear(beat(4), 2.0) is not None
    assert accounts.last_heard() == {A: 1.0}


def test_of_a_pair_the_one_that_serves_is_believed() -> None:
    accounts, b = Accounts(), AmphoraId("b")
    accounts.watch([A, b], 0.0)
    assert accounts.spokesman([A, b]) is None
    accounts.hear(replace(beat(1), active=True), 1.0)
    standby = replace(beat(1, member="DOWN"), amphora_id=b, active=False)
    accounts.hear(standby, 2.0)
    assert accounts.spokesman([A, b]) == replace(beat(1), active=True)
    took_over = replace(standby, sequence=2, active=True)
    accounts.take_to_weigh(2.0)
    accounts.hear(took_over, 3.0)
    assert accounts.spokesman([A, b]) == took_over
    assert accounts.take_to_weigh(3.0) == [took_over], "a takeover is weighed although nothing else changed"


def test_restarted_agent_begins_a_new_sequence() -> None:
    accounts = watching()
    assert accounts.hear(beat(5, boot=1), 1.0) is None
    assert accounts.hear(beat(0, boot=2), 2.0) is None
    assert accounts.hear(beat(6, boot=1), 3.0) is not None


def test_plain_datagrams_are_taken_as_they_come() -> None:
    accounts = watching()
    assert accounts.hear(beat(None, boot=None), 1.0) is not None, "of an amphora that is not marked"
    assert accounts.last_heard() == {A: 0.0}
    accounts.watch([A], 1.0, plain=[A])
    assert accounts.hear(beat(None, boot=None), 1.0) is None
    assert accounts.hear(beat(None, boot=None), 2.0) is None
    assert accounts.last_heard() == {A: 2.0}


def test_what_another_receiver_heard_is_a_sign_of_life_and_no_longer_news() -> None:
    accounts, other = watching(), watching()
    assert other.hear(beat(7), 3.0) is None
    accounts.hear_of(memory.read(memory.write(other.tell(4.0))), 10.0)
    assert accounts.last_heard() == {A: 9.0}
    assert accounts.hear(beat(7), 11.0) is not None
    assert accounts.hear(beat(8), 11.0) is None


def test_what_was_heard_before_a_restart_is_refused_and_no_sign_of_life() -> None:
    before, after = watching(), watching()
    before.hear(beat(7), 3.0)
    told = [x._replace(ago=memory.LONGEST_AGO) for x in memory.read(memory.write(before.tell(3.0)))]
    after.hear_of(told, 50.0)
    assert after.last_heard() == {A: 0.0}
    assert [after.hear(beat(x), 51.0) is None for x in (6, 7, 8)] == [False, False, True]


@pytest.mark.parametrize("text", ["", "2:abc", "1:\u20ac", "1:abcde", "1:" + "0" * 40])
def test_a_memory_that_is_damaged_says_nothing(text: str) -> None:
    assert list(memory.read(text)) == []


@pytest.mark.parametrize(
    "moments, deadline",
    [
        pytest.param([1.0, 2.0, 3.0, 4.0], None, id="every second: the settings' own"),
        pytest.param([0.0, 10.0, 20.0], 25.0, id="every ten, as Octavia's"),
        pytest.param([0.0, 40.0, 80.0], 60.0, id="never more than the longest"),
        pytest.param([0.0, 300.0, 301.0, 302.0], None, id="an outage is no pace"),
    ],
)
def test_each_amphora_has_a_deadline_by_its_own_pace(moments: list[float], deadline: float | None) -> None:
    accounts = watching()
    for number, moment in enumerate(moments):
        accounts.hear(beat(number), moment)
    assert accounts.deadlines(2.5, 3.0, 60.0).get(A) == deadline


def test_a_receiver_that_was_just_started_knows_the_pace_of_slow_beaters() -> None:
    before, after = watching(), watching()
    for number, moment in ((1, 0.0), (2, 10.0), (3, 20.0)):
        before.hear(beat(number), moment)
    told = memory.read(memory.write(before.tell(21.0)))
    after.hear_of((x._replace(ago=memory.LONGEST_AGO) for x in told), 50.0)
    assert after.deadlines(2.5, 3.0, 60.0) == {A: 25.0}
    after.hear(beat(4), 51.0)
    after.hear(beat(5), 52.0)
    assert after.deadlines(2.5, 3.0, 60.0)[A] < 25.0, "what it hears itself counts from then on"


def test_an_agent_of_octavia_that_nobody_knows_yet_has_the_longest_deadline() -> None:
    accounts = watching()
    accounts.watch([A], 1.0, plain=[A])
    accounts.hear(beat(None, boot=None), 1.0)
    assert accounts.deadlines(2.5, 3.0, 60.0) == {A: 60.0}
    accounts.hear(beat(None, boot=None), 11.0)
    assert accounts.deadlines(2.5, 3.0, 60.0) == {A: 25.0}


def test_receivers_of_before_and_after_paces_were_told_understand_each_other() -> None:
    told = [memory.Heard(A, 1, 7, 2.0, 10.0)]
    text = memory.write(told)
    packed = zlib.decompress(base64.b64decode(text[2:]))  # as the one of before reads it
    assert len(packed) == 34
    of_before = "1:" + base64.b64encode(zlib.compress(packed)).decode()
    assert list(memory.read(text)) == told
    assert list(memory.read(of_before)) == [told[0]._replace(pace=0.0)]


def test_lost_datagrams_change_no_pace() -> None:
    accounts = watching()
    for number, moment in ((1, 1.0), (2, 2.0), (9, 9.0), (10, 10.0)):
        accounts.hear(beat(number), moment)
    assert accounts.deadlines(2.5, 3.0, 60.0) == {}


def test_only_news_is_weighed_until_the_refresh() -> None:
    accounts = watching()
    accounts.hear(beat(1), 1.0)
    assert len(accounts.take_to_weigh(1.0)) == 1
    accounts.hear(beat(2), 2.0)
    assert accounts.take_to_weigh(2.0) == []
    accounts.hear(beat(3, member="DOWN"), 3.0)
    assert accounts.take_to_weigh(3.0) == [beat(3, member="DOWN")]
    accounts.hear(beat(4, member="DOWN"), 4.0)
    assert accounts.take_to_weigh(13.0) == []
    assert accounts.take_long_unweighed(12.9, 10.0, 5) == []
    assert accounts.take_long_unweighed(13.0, 10.0, 5) == [beat(4, member="DOWN")]
    assert accounts.take_long_unweighed(13.0, 10.0, 5) == []


def test_a_large_fleet_is_weighed_anew_a_few_at_a_time_the_longest_first() -> None:
    accounts, fleet = Accounts(), [AmphoraId(str(x)) for x in range(7)]
    accounts.watch(fleet, 0.0)
    for number, amphora_id in enumerate(fleet):
        accounts.hear(replace(beat(1), amphora_id=amphora_id), float(number))
        accounts.take_to_weigh(float(number))
    taken = [[x.amphora_id for x in accounts.take_long_unweighed(100.0 + x, 50.0, 3)] for x in range(4)]
    assert taken == [fleet[:3], fleet[3:6], fleet[6:], []]


def test_counters_that_wait_longest_are_taken_first() -> None:
    accounts, fleet = Accounts(), [AmphoraId(str(x)) for x in range(3)]
    accounts.watch(fleet, 0.0)
    for sequence in (1, 2):
        for amphora_id in fleet:
            accounts.hear(replace(beat(sequence, total=sequence), amphora_id=amphora_id), float(sequence))
        if sequence == 1:
            assert [x.amphora_id for x in accounts.take_counters(2)] == fleet[:2]
    taken = [(x.amphora_id, x.counters.total_connections) for x in accounts.take_counters(2)]
    assert taken == [(fleet[2], 2), (fleet[0], 2)]


def test_lost_files_are_told_once_in_a_while() -> None:
    accounts = watching()
    lost = replace(beat(1), incomplete=frozenset({"b"}))
    accounts.hear(lost, 1.0)
    assert accounts.take_incomplete(1.0, 30.0) == [lost]
    assert accounts.take_incomplete(30.0, 30.0) == []
    assert accounts.take_incomplete(31.0, 30.0) == [lost]
    accounts.take_incomplete_again([A])
    assert accounts.take_incomplete(32.0, 30.0) == [lost], "it was not written"
    accounts.hear(beat(2), 33.0)
    assert accounts.take_incomplete(90.0, 30.0) == []
    accounts.hear(replace(lost, sequence=3), 91.0)
    assert len(accounts.take_incomplete(91.0, 30.0)) == 1, "it is a new loss"


@pytest.mark.parametrize("heard,told", [(0.5, []), (1.5, [A])], ids=["before its first push, perhaps", "afterwards"])
def test_who_has_nothing_left_is_told(heard: float, told: list[AmphoraId]) -> None:
    accounts = watching()
    accounts.hear(replace(beat(1), empty=True), heard)
    assert [x.amphora_id for x in accounts.take_incomplete(heard, 30.0)] == told


def test_what_could_not_be_written_is_weighed_again() -> None:
    accounts = watching()
    accounts.hear(beat(1), 1.0)
    accounts.take_to_weigh(1.0)
    accounts.weigh_again([A])
    assert len(accounts.take_to_weigh(1.1)) == 1


def test_increments_add_up_also_over_a_failed_write() -> None:
    accounts = watching()
    accounts.hear(beat(1, total=3, incremental=True), 1.0)
    accounts.hear(beat(2, total=4, incremental=True), 2.0)
    rows = accounts.take_counters(100)
    assert [x.counters.total_connections for x in rows] == [7]
    accounts.hear(beat(3, total=1, incremental=True), 3.0)
    accounts.restore_counters(rows)
    assert [x.counters.total_connections for x in accounts.take_counters(100)] == [8]


def test_absolute_counters_are_written_when_they_change() -> None:
    accounts = watching()
    accounts.hear(beat(1, total=3), 1.0)
    assert [x.counters.total_connections for x in accounts.take_counters(100)] == [3]
    accounts.hear(beat(2, total=3), 2.0)
    assert accounts.take_counters(100) == []
    accounts.hear(beat(3, total=5), 3.0)
    rows = accounts.take_counters(100)
    accounts.hear(beat(4, total=6), 4.0)
    accounts.restore_counters(rows)
    assert [x.counters.total_connections for x in accounts.take_counters(100)] == [6]


def test_never_heard_counts_from_when_watching_began() -> None:
    accounts = Accounts()
    accounts.watch([A], 100.0)
    assert accounts.last_heard() == {A: 100.0}


def test_heartbeats_before_the_row_is_there_are_kept() -> None:
    """An amphora beats before it is ALLOCATED; its replay window must not be forgotten by a look at the list."""
    accounts = Accounts()
    accounts.hear(beat(7), 1.0)
    accounts.watch([], 2.0)
    assert accounts.hear(beat(7), 3.0) is not None
    accounts.watch([], 2.0 + FORGET_AFTER_S)
    assert accounts.hear(beat(7), 70.0) is None


def a_part(sequence: int, number: int, of: int, boot: int = 1) -> Heartbeat:
    """Each part has a listener and a member of its own; the pool is in all of them."""
    return Heartbeat(
        amphora_id=A,
        boot=boot,
        sequence=sequence,
        incremental=False,
        listeners={f"l{number}": ListenerReport(status="OPEN", counters=Counters(total_connections=number + 1))},
        pools={"p": PoolReport(status="UP", members={f"m{number}": "UP"})},
        part=number,
        parts=of,
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=["in order", "out of order"])
def test_parts_become_one_message_when_all_are_there(order: tuple[int, ...]) -> None:
    accounts = watching()
    for moment, number in enumerate(order[:2]):
        assert accounts.hear(a_part(5, number, 3), float(moment)) is None
        assert accounts.last_heard() == {A: float(moment)}  # a part is a sign of life
    assert accounts.take_to_weigh(1.0) == []
    assert accounts.take_counters(100) == []
    assert accounts.hear(a_part(5, order[2], 3), 2.0) is None
    (whole,) = accounts.take_to_weigh(2.0)
    assert whole.pools == {"p": PoolReport(status="UP", members={"m0": "UP", "m1": "UP", "m2": "UP"})}
    assert sorted(whole.listeners) == ["l0", "l1", "l2"]
    assert sorted(x.counters.total_connections for x in accounts.take_counters(100)) == [1, 2, 3]


@pytest.mark.parametrize(
    "said_again",
    [
        pytest.param(a_part(5, 0, 3), id="a part that is there already"),
        pytest.param(a_part(4, 1, 3), id="a part of an earlier message"),
        pytest.param(a_part(9, 1, 3, boot=0), id="a part of an earlier boot"),
        pytest.param(a_part(5, 1, 4), id="a part of another division"),
    ],
)
def test_replayed_parts_are_refused_and_keep_nobody_alive(said_again: Heartbeat) -> None:
    accounts = watching()
    assert accounts.hear(a_part(5, 0, 3), 1.0) is None
    assert accounts.hear(said_again, 2.0) is not None
    assert accounts.last_heard() == {A: 1.0}


def test_parts_of_a_message_that_was_accepted_are_refused() -> None:
    accounts = watching()
    for number in range(2):
        assert accounts.hear(a_part(5, number, 2), 1.0) is None
    for number in range(2):
        assert accounts.hear(a_part(5, number, 2), 2.0) is not None
    assert accounts.hear(beat(5), 2.0) is not None
    assert accounts.hear(beat(6), 3.0) is None


def test_a_lost_part_costs_one_message() -> None:
    accounts = watching()
    assert accounts.hear(a_part(5, 0, 2), 1.0) is None
    assert accounts.hear(a_part(6, 1, 2), 2.0) is None
    assert accounts.hear(a_part(5, 1, 2), 2.0) is not None
    assert accounts.hear(a_part(6, 0, 2), 2.0) is None
    (whole,) = accounts.take_to_weigh(2.0)
    assert (whole.sequence, len(whole.listeners)) == (6, 2)
