"""Throughput through a provisioned amphora against HAProxy configured by hand, on the same machine, paired.

Both stand before the same backends (an HAProxy that answers by itself) and are asked by wrk in turns, so that
whatever else the machine does meets both. Two figures: requests per second, and requests per second of CPU time of
the balancing process, which does not depend on who else had the cores. Goal (DESIGN section 10): ratio >= 0.98.
Three modes: HTTP on kept connections, HTTP with a new connection for each request, and TCP. Usage: python
bench/dataplane_ratio.py [PAIRS] [SECONDS] [MODE...]"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from common import cpu_seconds, installation, print_result

from tests.acceptance.support import free_port, serving

BACKENDS = """\
global
    nbthread 1
defaults
    mode http
    timeout client 60s
frontend backend
{binds}
    http-request return status 200 content-type text/plain string "hello from the backend"
"""

BY_HAND = """\
global
    nbthread 1
    maxconn 5000
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
frontend web
    bind 127.0.0.1:{http}
    default_backend web
backend web
    balance roundrobin
{servers}
frontend raw
    mode tcp
    bind 127.0.0.1:{tcp}
    default_backend raw
backend raw
    mode tcp
    balance roundrobin
{servers}
"""


class Mode(NamedTuple):
    """How a listener is asked: its protocol, and wrk's further words."""

    protocol: str
    words: tuple[str, ...] = ()


MODES = {
    "http": Mode("HTTP"),
    "http-new-connections": Mode("HTTP", ("-H", "Connection: close")),
    "tcp": Mode("TCP"),
}


class Target(NamedTuple):
    host: str
    ports: dict[str, int]  # by protocol
    pid: int


class Run(NamedTuple):
    per_second: float
    per_cpu_second: float


def measure(target: Target, mode: Mode, seconds: int) -> Run:
    before = cpu_seconds(target.pid)
    output = subprocess.run(
        ["wrk", "-t1", "-c32", f"-d{seconds}s", *mode.words, f"http://{target.host}:{target.ports[mode.protocol]}/"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    used = cpu_seconds(target.pid) - before
    requests = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    if "Non-2xx" in output:
        raise SystemExit(f"not every answer was 200:\n{output}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])  # type: ignore[index]
    # The warm-up may look at haproxy's master, which does nothing; a tick of the clock is the least that can be told.
    return Run(rate, requests / max(used, 0.01))


def start(stack: ExitStack, directory: Path, name: str, text: str) -> int:
    """Run haproxy on a configuration, without a master: its process id is the balancing process."""
    file = directory / f"{name}.cfg"
    file.write_text(text)
    process = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process.pid


def compare(provisioned: Target, by_hand: Target, mode: Mode, pairs: int, seconds: int) -> dict[str, object]:
    rates, costs, runs = [], [], []
    for number in range(pairs):
        order = [("provisioned", provisioned), ("by hand", by_hand)]
        measured = {name: measure(target, mode, seconds) for name, target in order[:: 1 if number % 2 == 0 else -1]}
        ours, theirs = measured["provisioned"], measured["by hand"]
        rates.append(ours.per_second / theirs.per_second)
        costs.append(ours.per_cpu_second / theirs.per_cpu_second)
        runs.append({"provisioned_rps": round(ours.per_second), "by_hand_rps": round(theirs.per_second)})
    return {
        "ratio_of_throughput_median": round(statistics.median(rates), 3),
        "ratio_per_cpu_second_median": round(statistics.median(costs), 3),
        "runs": runs,
    }


def main(pairs: int, seconds: int, modes: list[str]) -> None:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = [free_port() for _ in range(2)]
        binds = "\n".join(f"    bind 127.0.0.1:{port}" for port in ports)
        start(stack, directory, "backends", BACKENDS.format(binds=binds))
        by_hand_ports = {"HTTP": free_port(), "TCP": free_port()}
        servers = "\n".join(f"    server s{n} 127.0.0.1:{port}" for n, port in enumerate(ports))
        text = BY_HAND.format(http=by_hand_ports["HTTP"], tcp=by_hand_ports["TCP"], servers=servers)
        by_hand = Target("127.0.0.1", by_hand_ports, start(stack, directory, "by-hand", text))
        made = stack.enter_context(installation())
        api = made.api()
        own_ports = {"HTTP": free_port(), "TCP": free_port()}
        load_balancer = api.create(
            "loadbalancers",
            "loadbalancer",
            vip_subnet_id=api.subnet_id(),
            listeners=[
                {
                    "protocol": protocol,
                    "protocol_port": port,
                    "default_pool": {
                        "name": protocol,
                        "protocol": protocol,
                        "lb_algorithm": "ROUND_ROBIN",
                        "members": [{"address": "127.0.0.1", "protocol_port": x} for x in ports],
                    },
                }
                for protocol, port in own_ports.items()
            ],
        )
        vip = load_balancer["vip_address"]
        for host, each in ((vip, own_ports), ("127.0.0.1", by_hand_ports)):
            for port in each.values():
                serving(host, port)
        haproxies = [x.pid for x in made.amphora_processes() if re.match(r"\S*haproxy ", x.command)]
        provisioned = Target(vip, own_ports, haproxies[0])
        for target in (provisioned, by_hand):
            measure(target, MODES["http"], 1)
        # The worker is the one that used the CPU.
        provisioned = provisioned._replace(pid=max(haproxies, key=cpu_seconds))
        results = {name: compare(provisioned, by_hand, MODES[name], pairs, seconds) for name in modes or MODES}
    print_result("dataplane_ratio", goal_ratio=0.98, pairs=pairs, seconds=seconds, modes=results)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    main(*(numbers if len(numbers) == 2 else (8, 3)), [word for word in sys.argv[1:] if word in MODES])
