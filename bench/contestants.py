"""HAProxies that are compared: how they are started, asked, and what that cost them. dataplane_ratio.py says which."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import urllib.parse
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.support import ask, connection_to, free_port, until

GOAL = 0.98
FEW, MANY = 300, 1_300
"""Requests in the two runs under valgrind; the difference has nothing of start, warm-up and end."""


class Mode(NamedTuple):
    """How a listener is asked: its protocol, and the load generator with its words."""

    protocol: str
    tool: str
    words: tuple[str, ...]


CLOSE = ("-H", "Connection: close")
MODES = {
    "http": Mode("HTTP", "wrk", ()),
    "http-new-connections": Mode("HTTP", "wrk", CLOSE),
    "tcp": Mode("TCP", "wrk", ()),
    "tls-new-connections": Mode("TERMINATED_HTTPS", "wrk", CLOSE),
    "tls": Mode("TERMINATED_HTTPS", "wrk", ()),
    "http2": Mode("TERMINATED_HTTPS", "h2load", ("-c", "16", "-m", "8")),
}


class Run(NamedTuple):
    requests: int
    seconds: float
    cpu_seconds: float

    @classmethod
    def sum(cls, *runs: Run) -> Run:
        return cls(*(sum(x) for x in zip(*runs, strict=True)))

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def per_cpu_second(self) -> float:
        return self.requests / max(self.cpu_seconds, 1e-9)


class Contestant(NamedTuple):
    host: str
    ports: dict[str, int]  # by protocol
    pid: int

    @property
    def cpu_seconds(self) -> float:
        """As the scheduler counts it, in nanoseconds: the ticks of /proc/PID/stat are coarse for runs of a second."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((x / "schedstat").read_text().split()[0]) for x in tasks) / 1e9


def measure(contestant: Contestant, mode: Mode, seconds: int) -> Run:
    """Ask for so many seconds. An answer that is no 200 ends the bench: then something else was measured."""
    url = _url(contestant.host, contestant.ports[mode.protocol], mode)
    before = contestant.cpu_seconds
    if mode.tool == "wrk":
        command = ["wrk", "-t1", "-c32", f"-d{seconds}s", *mode.words, url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        used = contestant.cpu_seconds - before
        requests, took = _words(output, r"(\d+) requests in ([\d.]+)s")
        if "Non-2xx" in output:
            raise SystemExit(f"not every answer was 200:\n{output}")
        return Run(int(requests), float(took), used)
    command = ["h2load", "-t1", *mode.words, "-D", str(seconds), url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = contestant.cpu_seconds - before
    (requests,) = _words(output, r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx")
    return Run(int(requests), seconds, used)


def _url(host: str, port: int, mode: Mode) -> str:
    return f"{'https' if mode.protocol == 'TERMINATED_HTTPS' else 'http'}://{host}:{port}/"


def _words(output: str, pattern: str) -> tuple[str, ...]:
    found = re.search(pattern, output)
    if found is None:
        raise SystemExit(f"not what was expected ({pattern}):\n{output}")
    return tuple(found.groups())


def start(stack: ExitStack, directory: Path, name: str, text: str) -> int:
    """Run haproxy on a configuration, without a master: its process id is the balancing process."""
    file = directory / f"{name}.cfg"
    file.write_text(text)
    process = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process.pid


def count_instructions(
    directory: Path, home: Path, by_hand: str, host: str, ports: tuple[dict[str, int], dict[str, int]], mode: Mode
) -> dict[str, float]:
    """Instructions for one request in user space, of a copy of what runs in `home` (on ports of its own) and by hand."""
    (file,) = home.glob("*/haproxy.cfg")
    provisioned, own_ports = file.read_text(), {}
    for protocol, port in ports[0].items():
        own_ports[protocol] = free_port()
        provisioned = provisioned.replace(f":{port}\n", f":{own_ports[protocol]}\n")
        provisioned = provisioned.replace(f":{port} ssl", f":{own_ports[protocol]} ssl")
    copy = directory / "home"
    if not copy.exists():
        shutil.copytree(home, copy, symlinks=True, ignore=_sockets_and_pipes)
    url = _url(host, own_ports[mode.protocol], mode)
    ours = _instructions_per_request(copy, provisioned, url, mode)
    theirs = _instructions_per_request(directory, by_hand, _url(host, ports[1][mode.protocol], mode), mode)
    return {
        "goal": 1 / GOAL,
        "ratio": round(ours / theirs, 4),
        "provisioned": round(ours),
        "by_hand": round(theirs),
    }


def _sockets_and_pipes(directory: str, names: list[str]) -> list[str]:
    found = [Path(directory) / name for name in names]
    return [x.name for x in found if x.is_socket() or x.is_fifo()]


def _instructions_per_request(cwd: Path, text: str, url: str, mode: Mode) -> float:
    few, many = (_instructions(cwd, text, url, mode, count) for count in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def _instructions(cwd: Path, text: str, url: str, mode: Mode, count: int) -> int:
    (cwd / "counted.cfg").write_text(text)
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "haproxy", "-db", "-f", "counted.cfg"]
    with (cwd / "valgrind.log").open("w+") as log:
        process = subprocess.Popen(command, cwd=cwd, stderr=log, stdout=subprocess.DEVNULL)
        try:
            address = urllib.parse.urlsplit(url)
            serving_tls = address.scheme == "https"
            until(lambda: _asked(address, 1, mode, tls=serving_tls), 180, f"{url} does not answer under valgrind")
            asked = _asked(address, count, mode, tls=serving_tls)
            if asked != count:
                raise SystemExit(f"{asked} of {count} requests were answered")
        finally:
            process.terminate()
            process.wait()
        log.seek(0)
        (collected,) = _words(log.read(), r"Collected : (\d+)")
    return int(collected)


def _asked(address: urllib.parse.SplitResult, count: int, mode: Mode, *, tls: bool) -> int:
    """Ask so often, by one client; how many were answered 200."""
    if mode.tool == "h2load":
        command = ["h2load", "-t1", "-c1", "-m1", "-n", str(count), address.geturl()]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"status codes: (\d+) 2xx", output)
        return int(found[1]) if found else 0
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = str(address.hostname), address.port or 0
    try:
        if mode.words == CLOSE:
            return sum(ask(host, port, timeout=30, context=context if tls else None)[0] == 200 for _ in range(count))
        connection = connection_to(host, port, 30, context if tls else None)
        answered = 0
        for _ in range(count):
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            answered += response.status == 200
        connection.close()
    except OSError:
        return 0
    return answered
