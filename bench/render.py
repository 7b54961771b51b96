"""What it costs the controller to render a large load balancer, and to compare two renderings.

10 listeners × 10 pools × 100 members: every pool hangs on one listener, through L7 policies. CPU seconds of one core, since
nothing waits. Usage: python bench/render.py [SAMPLES]"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from common import print_result, summary
from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy.diff import diff_texts
from frontinus.drivers.amphora.haproxy.render import render
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.model.enums import L7PolicyAction
from frontinus.model.tree import LoadBalancerTree

from tests.unit.drivers.trees import a_listener, a_member, a_monitor, a_policy, a_pool, a_rule, a_tree, number

LISTENERS, POOLS, MEMBERS = 10, 10, 100
SETTINGS = HaproxySettings(state_dir=Path("/nowhere"))


def large_tree() -> LoadBalancerTree:
    listeners = [a_listener(1_000 + each, pool=2_000 + each * POOLS, port=8_000 + each) for each in range(LISTENERS)]
    pools = [a_pool(2_000 + each) for each in range(LISTENERS * POOLS)]
    members = [
        a_member(100_000 + each, pool=2_000 + each // MEMBERS, address=f"10.0.{each // 250}.{1 + each % 250}")
        for each in range(LISTENERS * POOLS * MEMBERS)
    ]
    further = [each for each in range(LISTENERS * POOLS) if each % POOLS]  # what is no default pool of a listener
    policies = [
        a_policy(
            5_000 + each,
            listener=1_000 + each // POOLS,
            action=L7PolicyAction.REDIRECT_TO_POOL,
            position=each % POOLS,
            redirect_pool_id=number(2_000 + each),
        )
        for each in further
    ]
    rules = [a_rule(7_000 + each, policy=5_000 + each, value=f"/{each}") for each in further]
    monitors = [a_monitor(9_000 + each, pool=2_000 + each) for each in range(LISTENERS * POOLS)]
    return a_tree(listeners=listeners, pools=pools, members=members, monitors=monitors, policies=policies, rules=rules)


def timed(work: Callable[[], object], samples: int) -> list[float]:
    taken = []
    for _ in range(samples):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return taken


def main(samples: int) -> None:
    tree = large_tree()
    reweighted = replace(tree, members=(replace(tree.members[0], weight=7), *tree.members[1:]))
    before, after = (render(each, SETTINGS).text for each in (tree, reweighted))
    change = diff_texts(before, after)
    print_result(
        "render",
        listeners=LISTENERS,
        pools=LISTENERS * POOLS,
        members=len(tree.members),
        bytes=len(before),
        render=summary(timed(lambda: render(tree, SETTINGS), samples)),
        diff_one_member=summary(timed(lambda: diff_texts(before, after), samples)),
        commands=change.commands,
        reload=change.reload,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
