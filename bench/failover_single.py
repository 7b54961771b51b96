"""From the death of an amphora that stands alone, or of its HAProxy, to traffic restored, as a client sees it that asks
every 5 ms; compute `process`, no spare.

Goals (issue 5): HAProxy below 500 ms, the whole amphora below 5 s. Usage: python bench/failover_single.py [SAMPLES]"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from contextlib import ExitStack

from common import installation, print_result, summary
from failover import asking

from tests.acceptance.support import Installation, backend, free_port, serving, until

GOAL_MS = {"haproxy": 500, "amphora": 5000}


def kill(made: Installation, what: str) -> float:
    """SIGKILL of its HAProxy, or of all that it runs; when."""
    pids = [x.pid for x in made.amphora_processes() if what == "amphora" or re.match(r"\S*haproxy ", x.command)]
    assert pids
    moment = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return moment


def main(samples: int) -> None:
    found: dict[str, object] = {}
    with ExitStack() as stack:
        made = stack.enter_context(installation())
        backends = [stack.enter_context(backend(f"backend-{n}")) for n in (1, 2)]
        api, port = made.api(), free_port()
        load_balancer = api.web_load_balancer(backends, port)
        serving(load_balancer["vip_address"], port)
        api.settled(load_balancer["id"])
        client = stack.enter_context(asking("", load_balancer["vip_address"], port))
        for what, goal in GOAL_MS.items():
            taken = []
            for _ in range(samples):
                client.await_answer(time.monotonic())
                before = made.amphora_ids()
                killed = kill(made, what)
                if what == "amphora":
                    until(lambda before=before: made.amphora_ids() - before, 30, "it is not replaced")
                client.await_answer(time.monotonic() + 0.3)
                api.settled(load_balancer["id"])
                # Nothing may fail any more in this time either; and an agent takes deaths within ten seconds for a balancer
                # that cannot run, and waits longer each time.
                time.sleep(10.5 if what == "haproxy" else 1.0)
                client.await_answer(time.monotonic())
                taken.append(client.gap(killed))
            found[what] = {**summary(taken), "goal_ms": goal}
    print_result("failover_single", compute="process", **found)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
