"""From the death of something of a pair's master to traffic restored, as a client sees it that asks every 5 ms.

The gap is the longest time between two answers around the death. Goals (issue 5): a process below 100 ms, the amphora or
its link below 400 ms. Needs root, for namespaces. Usage: python bench/failover.py [SAMPLES] [WHAT ...]"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import print_result, summary
from pairs_by_hand import VIP, PairByHand

GOAL_MS = {"haproxy": 100, "keepalived": 100, "agent": 100, "amphora": 400, "link": 400, "haproxy-alone": 100}
"""`haproxy-alone` is HAProxy's death while the other amphora is dead."""

WATCHED_S = 1.5
CALM_S = 10.5
"""Between the death of the other amphora and that of HAProxy, which is always the same one: what dies again sooner is
started again later (frontinus_amphora/restarts.py)."""


class Client:
    """What bench/asker.py heard: (asked, answered, what)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.answers: list[tuple[float, float, str]] = []
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            asked, answered, what = line.split()
            self.answers.append((float(asked), float(answered), what))

    def await_answer(self, since: float, patience: float = 30.0) -> None:
        """Until something was answered that was asked after `since`."""
        deadline = time.monotonic() + patience
        while not any(asked > since for asked, _, _ in self.answers[-20:]):
            if time.monotonic() > deadline:
                raise AssertionError("nobody answers")
            time.sleep(0.01)

    def gap(self, since: float) -> float:
        """The longest time without an answer, from the last one before `since` on."""
        moments = sorted(answered for _, answered, _ in list(self.answers))
        first = max(x for x, moment in enumerate(moments) if moment <= since)
        return max(later - earlier for earlier, later in zip(moments[first:], moments[first + 1 :], strict=False))


@contextmanager
def asking(namespace: str, address: str, port: int, every_ms: float = 5) -> Iterator[Client]:
    """A client in this namespace; in ours when it is empty."""
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    command = [*inside, sys.executable, str(Path(__file__).parent / "asker.py")]
    with subprocess.Popen([*command, address, str(port), str(every_ms)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Client(process)
        finally:
            process.terminate()


def sample(pair: PairByHand, client: Client, what: str) -> tuple[float, bool]:
    """One death: the gap in seconds, and whether the VIP moved."""
    number = pair.holder()
    assert number is not None
    victim, _, alone = what.partition("-")
    if alone:
        pair.kill(1 - number, "amphora")
        time.sleep(CALM_S)
    client.await_answer(time.monotonic())
    killed = pair.kill(number, victim)
    time.sleep(WATCHED_S)  # what is measured: nothing may fail any more in this time either
    client.await_answer(time.monotonic())
    gap = client.gap(killed)
    moved = pair.holder() != number
    if alone:
        pair.heal(1 - number, "amphora")
    pair.heal(number, victim)
    return gap, moved


def main(samples: int, kinds: list[str]) -> None:
    found: dict[str, object] = {}
    pair = PairByHand()
    try:
        with asking(pair.client, VIP, 80) as client:
            for what in kinds:
                taken = [sample(pair, client, what) for _ in range(samples)]
                figures = summary([gap for gap, _ in taken])
                figures["moved"] = sum(moved for _, moved in taken)
                found[what] = {**figures, "goal_ms": GOAL_MS[what]}
            learnt = {table for number in (0, 1) for table in [_entries(pair, number)]}
            members = {what for _, _, what in client.answers if what != "-"}
        # One client, remembered by both: every answer came from one member, over all takeovers.
        print_result("failover", **found, tables=sorted(learnt), members=len(members), answers=len(client.answers))
    finally:
        pair.close()


def _entries(pair: PairByHand, number: int) -> str:
    tables = [x for x in pair.ask_haproxy(number, "show table").splitlines() if x.startswith("# table")]
    return "; ".join(sorted(x.rpartition("used:")[2] for x in tables))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    count = int(arguments.pop(0)) if arguments and arguments[0].isdecimal() else 20
    main(count, arguments or list(GOAL_MS))
