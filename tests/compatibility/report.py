"""docs/compatibility.md, from a run of every trial on every agent: `make compatibility` writes it.

    python -m tests.compatibility.report [--check]

With --check it is compared instead, and the exit status is 1 when an agent does otherwise than the page says. Figures of load
(how many requests) are no part of the page. Agents that this clone's history lacks are named, and the exit status is 1."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys

from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver

from tests.compatibility.subjects import OCTAVIA, PAST, REPOSITORY, TODAY
from tests.compatibility.trials import TRIALS
from tests.octavia import genuine

PAGE = REPOSITORY / "docs/compatibility.md"
Results = dict[str, dict[str, dict[str, str]]]

HEAD = """# Compatibility

Which agents today's HAProxy driver ({version}) commands, and how each trial went. Written by `make compatibility`; by hand
nothing is changed here. Real HAProxy, real traffic, each agent in a machine of its own (namespaces).

The versions `amphora-0.x` are agents of this repository's past, each before the agent learnt what the last column of the
second table says; they are taken from its history (`git archive`), so a shallow clone cannot try them
(`git fetch --unshallow`). `octavia 19.0.0` is the genuine agent of the package from PyPI, installed by name and hash from
`tests/octavia/requirements.txt` into an environment of its own. It speaks the plain protocol of Octavia and knows nothing of
ours.

"""

STUBBED = """
## What is stubbed beside the genuine agent

The agent, its interfaces, HAProxy and keepalived are real. No systemd runs here: `tests/octavia/stand_in/systemctl` obeys the
units that the agent writes (ExecStart, ExecStartPre, ExecReload, Environment, Requires, Type, PIDFile, LimitNOFILE), without
Restart=, SELinux and start at boot. In place of the image, `tests/octavia/stand_in/machine` makes the directories, HAProxy's
file for its group, a syslog socket, and an empty `lvs-masquerade.sh`. UDP and SCTP, which Octavia's agents carry by LVS, are not
tried with it: the driver does not speak that part of the protocol, and replaces such an amphora.
"""


def try_all() -> Results:
    results: Results = {}
    for name in (TODAY, *(x.name for x in reversed(PAST)), OCTAVIA):
        done = genuine.run("-m", "tests.compatibility.trials", name, seconds=240)
        if done.returncode:
            print(f"{name}: {done.stderr[-2_000:]}", file=sys.stderr)  # noqa: T201
            results[name] = {"info": {"failed": "not tried: see above"}}
            continue
        sys.stderr.write(done.stderr)
        results[name] = json.loads(done.stdout)
    return results


def page(results: Results) -> str:
    names = list(results)
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for trial, title in TRIALS.items():
        lines.append(f"| {title} | {' | '.join(_cell(results[x].get(trial)) for x in names)} |")
    past = ["", "| agent | commit | does not know yet |", "|---|---|---|"]
    past += [f"| {x.name} | `{x.commit}` | {x.lacks} |" for x in PAST]
    return HEAD.format(version=HaproxyDriver.version) + "\n".join((*lines, *past)) + "\n" + STUBBED


def _cell(result: dict[str, str] | None) -> str:
    if result is None:
        return "not tried"
    if "failed" in result:
        return f"**failed**: {result['failed'].splitlines()[0][:120]}"
    # What differs from run to run, and from machine to machine, is no part of the page.
    how = re.sub(r"(\d+) of \d+ requests failed", r"\1 requests failed", result["how"])
    return re.sub(r", HAProxy [\d.]+", "", how)


def failed(results: Results) -> list[str]:
    return [f"{x}: {y}: {z['failed']}" for x, trials in results.items() for y, z in trials.items() if "failed" in z]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    results = try_all()
    text, trouble = page(results), failed(results)
    for line in trouble:
        print(line, file=sys.stderr)  # noqa: T201
    if not check:
        PAGE.write_text(text)
        return 1 if trouble else 0
    if text != PAGE.read_text():
        made = REPOSITORY / ".cache/compatibility.md"
        made.write_text(text)
        shown = subprocess.run(["diff", "-u", PAGE, made], capture_output=True, text=True, check=False).stdout
        print(f"{shown}\nmake compatibility writes it anew", file=sys.stderr)  # noqa: T201
        return 1
    return 1 if trouble else 0


if __name__ == "__main__":
    raise SystemExit(main())
