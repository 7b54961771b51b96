"""From the API call that changes a member to the effect in the data plane, under load; and what it costs in requests.

The effect is what HAProxy itself says on its statistics socket. `settled` is until the API says ACTIVE. Goal (DESIGN
section 10): effect below 100 ms in the median, no reload, 0 failed requests. Usage: python bench/member_change.py [SAMPLES]"""

from __future__ import annotations

import csv
import io
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from common import installation, print_result, summary
from load import SteadyLoad

from tests.acceptance.support import backend, free_port, serving, until


class Statistics:
    """HAProxy's own word. The socket is reached by a relative path: absolute ones are longer than a socket's may be."""

    def __init__(self, place: Path) -> None:
        (self._socket,) = [x for x in place.rglob("*.sock") if "master" not in x.name]

    def server(self, member_id: str) -> dict[str, str] | None:
        before = Path.cwd()
        os.chdir(self._socket.parent)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(self._socket.name)
                connection.sendall(b"show stat\n")
                text = connection.makefile().read()
        finally:
            os.chdir(before)
        rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
        return next((row for row in rows if row["svname"] == member_id), None)


def main(samples: int) -> None:
    effects: dict[str, list[float]] = {"add": [], "weight": [], "drain": [], "remove": []}
    settles: dict[str, list[float]] = {what: [] for what in effects}
    with ExitStack() as stack:
        made = stack.enter_context(installation())
        api = made.api()
        first = [stack.enter_context(backend(f"backend-{n}")) for n in (1, 2)]
        fresh = stack.enter_context(backend("fresh"))
        port = free_port()
        load_balancer = api.web_load_balancer(first, port)
        load_balancer_id, vip = load_balancer["id"], load_balancer["vip_address"]
        members = f"pools/{load_balancer['pools'][0]['id']}/members"
        serving(vip, port)
        api.settled(load_balancer_id)
        (place,) = (made.state_dir / "amphorae").iterdir()
        statistics = Statistics(place)

        def workers() -> set[int]:
            return {x.pid for x in made.amphora_processes() if re.match(r"\S*haproxy ", x.command)}

        def settled() -> bool:
            return bool(api.load_balancer(load_balancer_id)["provisioning_status"] == "ACTIVE")

        def measure(what: str, started: float, effect: Callable[[], bool]) -> None:
            until(effect, 10, f"{what} has no effect", pause=0.001)
            effects[what].append(time.perf_counter() - started)
            until(settled, 10, "not settled", pause=0.002)
            settles[what].append(time.perf_counter() - started)

        def change_members() -> None:
            for _ in range(samples):
                fresh.answered.clear()
                started = time.perf_counter()
                member = api.create(members, "member", address="127.0.0.1", protocol_port=fresh.port)
                member_id = member["id"]
                measure("add", started, lambda: bool(fresh.answered.total()))
                for what, weight in (("weight", 7), ("drain", 0)):
                    started = time.perf_counter()
                    api.update(f"{members}/{member_id}", "member", weight=weight)
                    measure(
                        what,
                        started,
                        lambda member_id=member_id, weight=weight: (  # type: ignore[misc]
                            (row := statistics.server(member_id)) is not None and row["weight"] == str(weight)
                        ),
                    )
                started = time.perf_counter()
                api.delete(f"{members}/{member_id}")
                measure(
                    "remove",
                    started,
                    lambda member_id=member_id: (  # type: ignore[misc]
                        (row := statistics.server(member_id)) is None or row["status"].startswith("MAINT")
                    ),
                )

        before = workers()
        load = SteadyLoad(vip, port)
        with load:
            change_members()
        reloaded = workers() != before
    print_result(
        "member_change",
        goal_effect_median_ms=100,
        effect={what: summary(taken) for what, taken in effects.items()},
        settled={what: summary(taken) for what, taken in settles.items()},
        reloaded=reloaded,
        **load.result,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
