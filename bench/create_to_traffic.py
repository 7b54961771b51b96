"""From the create call to the first request served, `process` compute: the whole tree in one call.

Goal (DESIGN section 10): median below 500 ms. Usage: python bench/create_to_traffic.py [SAMPLES]"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

from common import installation, print_result, summary

from tests.acceptance.support import ask, backend, free_port, until


def main(samples: int) -> None:
    taken, answered = [], []
    with ExitStack() as stack:
        made = stack.enter_context(installation())
        backends = [stack.enter_context(backend(f"backend-{n}")) for n in (1, 2, 3)]
        api = made.api()
        subnet = api.subnet_id()
        for number in range(samples):
            port = free_port()
            started = time.perf_counter()
            load_balancer = api.create(
                "loadbalancers",
                "loadbalancer",
                name=f"bench-{number}",
                vip_subnet_id=subnet,
                listeners=[
                    {
                        "protocol": "HTTP",
                        "protocol_port": port,
                        "default_pool": {
                            "name": "web",
                            "protocol": "HTTP",
                            "lb_algorithm": "ROUND_ROBIN",
                            "members": [{"address": "127.0.0.1", "protocol_port": x.port} for x in backends],
                        },
                    }
                ],
            )
            answered.append(time.perf_counter() - started)
            vip = load_balancer["vip_address"]
            until(lambda vip=vip, port=port: ask(vip, port, timeout=1)[0] == 200, 20, "no traffic", pause=0.001)
            taken.append(time.perf_counter() - started)
            api.settled(load_balancer["id"])
    print_result("create_to_traffic", goal_median_ms=500, create_call=summary(answered), to_traffic=summary(taken))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
