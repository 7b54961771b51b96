"""Every kind of change under load: whether HAProxy had to reload, and the time from the API's answer to effect.

The table of kinds is that of tests/acceptance/hitless.py, and so is the load: kept connections, new ones, and long-lived
ones that must hear every word back. In effect is when HAProxy's own runtime socket says so (another worker, a server that
takes traffic, a limit), when the port of a UDP listener is bound, or when another certificate is shown. Goals (DESIGN
section 10): members below 100 ms in the median without a reload, structure below 300 ms, 0 errors.
Usage: python bench/change_latency.py [TIMES] [BEGIN-OF-A-KIND'S-NAME...] [--markdown]"""

from __future__ import annotations

import os
import sys
from collections import Counter

from common import installation, print_result, summary

from tests.acceptance.hitless import KINDS, Made, Stage


def effects(made: list[Made]) -> dict[str, float] | None:
    seen = [x.effect_s for x in made if x.effect_s is not None]
    return summary(seen) if seen else None


def main(times: int, *, markdown: bool, names: list[str]) -> None:
    made: dict[str, list[Made]] = {}
    with installation() as running, Stage(running) as stage:
        for kind in KINDS:
            if not names or any(kind.name.startswith(x) for x in names):
                made[kind.name] = [stage.make(kind, turn) for turn in range(times)]
        told = stage.crowd.more(20)
    actions = {name: Counter(x.action for x in each) for name, each in made.items()}
    if markdown:
        print("| change | HAProxy | in effect, median | best | worst |\n|---|---|---|---|---|")
        for name, each in made.items():
            figures = effects(each)
            words = [f"{figures[x]:.0f} ms" for x in ("median_ms", "best_ms", "worst_ms")] if figures else ["–"] * 3
            print(f"| {name} | {', '.join(actions[name])} | {' | '.join(words)} |")
    print_result(
        "change_latency",
        goal_median_ms={"runtime": 100, "reload": 300},
        effect={
            action: effects([x for each in made.values() for x in each if x.action == action])
            for action in ("runtime", "reload")
        },
        kinds={name: {"actions": actions[name], "effect": effects(each)} for name, each in made.items()},
        changes=sum(len(x) for x in made.values()),
        load_average=os.getloadavg()[0],
        requests=told.requests,
        echoes=told.echoes,
        datagrams=told.datagrams,
        kept_connections_reopened=told.reopened,
        errors=told.errors,
    )


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    words = [word for word in sys.argv[1:] if not word.isdigit() and not word.startswith("--")]
    main(numbers[0] if numbers else 20, markdown="--markdown" in sys.argv, names=words)
