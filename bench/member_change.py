"""From the API call that changes members to the effect in the data plane, under load; and what it costs in requests.

add: until the new member answers a request. remove: until haproxy sends it nothing more, seen as the receipt's
status being settled. weight: until settled. Goal (DESIGN section 10): median below 100 ms, no reload, 0 failed.
Usage: python bench/member_change.py [SAMPLES]"""

from __future__ import annotations

import re
import sys
import time
from contextlib import ExitStack

from common import installation, print_result, summary

from tests.acceptance.support import Load, backend, free_port, serving, until


def main(samples: int) -> None:
    times: dict[str, list[float]] = {"add": [], "weight": [], "drain": [], "remove": []}
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

        def workers() -> set[int]:
            return {x.pid for x in made.amphora_processes() if re.match(r"\S*haproxy ", x.command)}

        def settled() -> bool:
            return api.load_balancer(load_balancer_id)["provisioning_status"] == "ACTIVE"

        before = workers()
        with Load(vip, port, kept=1, fresh=1) as load:
            for _ in range(samples):
                fresh.answered.clear()
                started = time.perf_counter()
                member = api.create(members, "member", address="127.0.0.1", protocol_port=fresh.port)
                until(fresh.answered.total, 10, "no request", pause=0.001)
                times["add"].append(time.perf_counter() - started)
                until(settled, 10, "not settled", pause=0.002)
                for what, change in (("weight", {"weight": 7}), ("drain", {"weight": 0})):
                    started = time.perf_counter()
                    api.update(f"{members}/{member['id']}", "member", **change)
                    until(settled, 10, "not settled", pause=0.002)
                    times[what].append(time.perf_counter() - started)
                started = time.perf_counter()
                api.delete(f"{members}/{member['id']}")
                until(settled, 10, "not settled", pause=0.002)
                times["remove"].append(time.perf_counter() - started)
        reloads = workers() != before
    print_result(
        "member_change",
        goal_median_ms=100,
        **{what: summary(taken) for what, taken in times.items()},
        reloaded=reloads,
        requests=load.total,
        failed_requests=len(load.errors),
        kept_connections_reopened=load.reopened,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
