"""Throughput and CPU through a provisioned amphora against HAProxy configured by hand, on the same machine, paired.

Both stand before the same backends (an HAProxy that answers by itself), listen on the same address, and are asked for the
same: the hand-written file takes its TLS versions, ciphers and ALPN from what the API says of the listener; neither writes
logs; both have one thread. They are asked in turns, ours, theirs, theirs, ours, so that what grows worse or better
meanwhile meets both alike. Each such round gives one ratio of requests per second and one of requests per second of CPU of
the balancing process, which does not depend on who else had the cores; the medians are told. Goal (DESIGN section 10):
>= 0.98 in each of `MODES`.

`--instructions` counts instead the instructions that the two execute for a request, under valgrind: no clock, no noise,
and nothing of the kernel's part. Usage: python bench/dataplane_ratio.py [ROUNDS] [SECONDS] [MODE...] [--instructions]"""

from __future__ import annotations

import os
import re
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common import installation, print_result
from contestants import GOAL, MODES, Contestant, Mode, Run, count_instructions, measure, start

from frontinus.drivers.secret.local.driver import LocalSecrets, LocalSecretsSettings
from frontinus.model.ids import ProjectId

from tests.acceptance.hitless import pem
from tests.acceptance.support import Api, Installation, free_port, serving

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
    httpclient.ssl.verify none
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
frontend web
    bind {vip}:{ports[HTTP]}
    default_backend web
frontend secure
    bind {vip}:{ports[TERMINATED_HTTPS]} ssl crt {certificate} {tls}
    default_backend web
backend web
    balance roundrobin
{servers}
frontend raw
    mode tcp
    bind {vip}:{ports[TCP]}
    default_backend raw
backend raw
    mode tcp
    balance roundrobin
{servers}
"""
PROTOCOLS = ("HTTP", "TERMINATED_HTTPS", "TCP")


def compare(ours: Contestant, theirs: Contestant, mode: Mode, rounds: int, seconds: int) -> dict[str, Any]:
    rates, costs, runs = [], [], []
    for _ in range(rounds):
        made = [measure(x, mode, seconds) for x in (ours, theirs, theirs, ours)]
        own, hand = Run.sum(made[0], made[3]), Run.sum(made[1], made[2])
        rates.append(own.per_second / hand.per_second)
        costs.append(own.per_cpu_second / hand.per_cpu_second)
        runs.append((own, hand))
    return {
        "goal": GOAL,
        "throughput_ratio": round(statistics.median(rates), 3),
        "requests_per_cpu_second_ratio": round(statistics.median(costs), 3),
        "throughput_ratios": [round(x, 3) for x in sorted(rates)],
        "requests_per_cpu_second_ratios": [round(x, 3) for x in sorted(costs)],
        "provisioned": _told([own for own, _ in runs]),
        "by_hand": _told([hand for _, hand in runs]),
    }


def _told(runs: list[Run]) -> dict[str, float]:
    return {
        "requests_per_second": round(statistics.median(x.per_second for x in runs)),
        "cpu_us_per_request": round(statistics.median(1e6 / x.per_cpu_second for x in runs), 2),
    }


def provision(api: Api, made: Installation, certificate: bytes, members: list[int]) -> tuple[Any, dict[str, int]]:
    """A load balancer with a listener for each protocol, and the listeners' ports."""
    ports = {protocol: free_port() for protocol in PROTOCOLS}
    secrets = LocalSecrets(LocalSecretsSettings(state_dir=made.state_dir))
    load_balancer = api.create("loadbalancers", "loadbalancer", vip_subnet_id=api.subnet_id())
    reference = secrets.put(certificate, ProjectId(load_balancer["project_id"]))
    for protocol, port in ports.items():
        pool = api.create(
            "pools",
            "pool",
            loadbalancer_id=load_balancer["id"],
            protocol="TCP" if protocol == "TCP" else "HTTP",
            lb_algorithm="ROUND_ROBIN",
        )
        for member in members:
            api.create(f"pools/{pool['id']}/members", "member", address="127.0.0.1", protocol_port=member)
        api.create(
            "listeners",
            "listener",
            loadbalancer_id=load_balancer["id"],
            protocol=protocol,
            protocol_port=port,
            default_pool_id=pool["id"],
            **({"default_tls_container_ref": reference} if protocol == "TERMINATED_HTTPS" else {}),
        )
    return api.settled(load_balancer["id"]), ports


def tls_words(listener: Any) -> str:
    """What the API says of a TLS listener, as a person would write it behind `bind`."""
    ciphers = (listener["tls_ciphers"] or "").split(":")
    words = {
        "ssl-min-ver": min(listener["tls_versions"]),
        "ssl-max-ver": max(listener["tls_versions"]),
        "ciphers": ":".join(x for x in ciphers if not x.startswith("TLS_")),
        "ciphersuites": ":".join(x for x in ciphers if x.startswith("TLS_")),
        "alpn": ",".join(listener["alpn_protocols"]),
    }
    return " ".join(f"{key} {value}" for key, value in words.items() if value)


def main(rounds: int, seconds: int, modes: list[str], *, instructions: bool) -> None:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        members = [free_port() for _ in range(2)]
        binds = "\n".join(f"    bind 127.0.0.1:{port}" for port in members)
        start(stack, directory, "backends", BACKENDS.format(binds=binds))
        made = stack.enter_context(installation())
        certificate = pem("bench.example.com")
        (directory / "certificate.pem").write_bytes(certificate)
        load_balancer, own_ports = provision(made.api(), made, certificate, members)
        vip = load_balancer["vip_address"]
        listeners = [made.api().show(f"listeners/{x['id']}", "listener") for x in load_balancer["listeners"]]
        by_hand_ports = {protocol: free_port() for protocol in PROTOCOLS}
        text = BY_HAND.format(
            vip=vip,
            ports=by_hand_ports,
            certificate=directory / "certificate.pem",
            tls=tls_words(next(x for x in listeners if x["protocol"] == "TERMINATED_HTTPS")),
            servers="\n".join(f"    server s{n} 127.0.0.1:{port}" for n, port in enumerate(members)),
        )
        chosen = {name: MODES[name] for name in modes or MODES}
        serving(vip, own_ports["HTTP"])
        results: dict[str, Any]
        if instructions:
            (amphora_id,) = made.amphora_ids()
            home = made.state_dir / "amphorae" / amphora_id
            results = count_instructions(directory, home, text, vip, (own_ports, by_hand_ports), chosen)
        else:
            by_hand = Contestant(vip, by_hand_ports, start(stack, directory, "by-hand", text))
            serving(vip, by_hand_ports["HTTP"])
            haproxies = [x.pid for x in made.amphora_processes() if re.match(r"\S*haproxy ", x.command)]
            ours = Contestant(vip, own_ports, haproxies[0])
            for contestant in (ours, by_hand):
                measure(contestant, MODES["http"], 1)
            # The worker is the one that used the CPU; the warm-up may have looked at its master.
            ours = ours._replace(pid=max(haproxies, key=lambda pid: Contestant(vip, own_ports, pid).cpu_seconds))
            results = {name: compare(ours, by_hand, mode, rounds, seconds) for name, mode in chosen.items()}
        print_result(
            "dataplane_ratio",
            what="instructions per request" if instructions else "throughput and CPU",
            rounds=rounds,
            seconds=seconds,
            load_average=os.getloadavg()[0],
            modes=results,
        )


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    main(
        *(numbers if len(numbers) == 2 else (6, 2)),
        [word for word in sys.argv[1:] if word in MODES],
        instructions="--instructions" in sys.argv,
    )
