"""Every kind of change under load: whether HAProxy had to reload, and the time from the API's answer to effect.

The table of kinds is that of tests/acceptance/hitless.py, and so is the load: kept connections, new ones, and long-lived
ones that must hear every word back. In effect is when the agent says so, with the new file on disk. Goals (DESIGN section
10): members below 100 ms in the median without a reload, structure below 300 ms, 0 errors.
Usage: python bench/change_latency.py [TIMES] [--markdown]"""

from __future__ import annotations

import sys
from collections import Counter

from common import installation, print_result, summary

from tests.acceptance.hitless import KINDS, Made, Stage


def main(times: int, *, markdown: bool) -> None:
    made: dict[str, list[Made]] = {}
    not_offered = []
    with installation() as running, Stage(running) as stage:
        for kind in KINDS:
            if kind.optional and not stage.offers(kind):
                not_offered.append(kind.name)
                continue
            made[kind.name] = [stage.make(kind, turn) for turn in range(times)]
        stage.load.more(20)
    actions = {name: Counter(x.action for x in each) for name, each in made.items()}
    if markdown:
        print("| change | HAProxy | in effect, median | worst |\n|---|---|---|---|")
        for name, each in made.items():
            figures = summary([x.effect_s for x in each])
            how = ", ".join(actions[name])
            told = "–" if how == "none" else f"{figures['median_ms']:.0f} ms"
            print(
                f"| {name} | {how} | {told} | {'–' if how == 'none' else format(figures['worst_ms'], '.0f') + ' ms'} |"
            )
        return

    def effects(action: str) -> dict[str, float]:
        return summary([x.effect_s for each in made.values() for x in each if x.action == action] or [0.0])

    print_result(
        "change_latency",
        goal_median_ms={"runtime": 100, "reload": 300},
        effect={"runtime": effects("runtime"), "reload": effects("reload")},
        kinds={
            name: {"actions": actions[name], "effect": summary([x.effect_s for x in each])}
            for name, each in made.items()
        },
        not_offered=not_offered,
        requests=stage.load.total,
        echoes=stage.long_lived.echoes,
        kept_connections_reopened=stage.load.reopened,
        errors=stage.errors,
    )


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    main(numbers[0] if numbers else 20, markdown="--markdown" in sys.argv)
