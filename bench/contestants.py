"""HAProxies that are compared: how they are started, asked, and what that cost them. dataplane_ratio.py says which."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import urllib.parse
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.support import ask, connection_to, free_port, until

GOAL = 0.98
WARM_UP, COUNTED = 50, 500
"""Requests under valgrind, in each mode."""


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
    # In a session of its own, as ours is: the kernel shares the processor out between sessions (sched_autogroup).
    command = ["haproxy", "-db", "-f", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process.pid


def count_instructions(
    directory: Path,
    home: Path,
    by_hand: str,
    host: str,
    ports: tuple[dict[str, int], dict[str, int]],
    modes: Mapping[str, Mode],
) -> dict[str, dict[str, float]]:
    """Instructions for one request in user space, of a copy of what runs in `home` (on ports of its own) and by hand."""
    (file,) = home.glob("*/haproxy.cfg")
    provisioned, own_ports = file.read_text(), {}
    for protocol, port in ports[0].items():
        own_ports[protocol] = free_port()
        provisioned = re.sub(rf":{port}(?=\s)", f":{own_ports[protocol]}", provisioned)
    copy = directory / "home"
    shutil.copytree(home, copy, symlinks=True, ignore=_sockets_and_pipes)
    ours = _instructions_per_request(copy, provisioned, host, own_ports, modes)
    theirs = _instructions_per_request(directory, by_hand, host, ports[1], modes)
    return {
        name: {
            "goal": round(1 / GOAL, 3),
            "ratio": round(ours[name] / theirs[name], 4),
            "provisioned": round(ours[name]),
            "by_hand": round(theirs[name]),
        }
        for name in modes
    }


def _sockets_and_pipes(directory: str, names: list[str]) -> list[str]:
    found = [Path(directory) / name for name in names]
    return [x.name for x in found if x.is_socket() or x.is_fifo()]


def _instructions_per_request(
    cwd: Path, text: str, host: str, ports: dict[str, int], modes: Mapping[str, Mode]
) -> dict[str, float]:
    (cwd / "counted.cfg").write_text(text)
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={cwd}/counted", "haproxy", "-db"]
    process = subprocess.Popen(
        [*command, "-f", "counted.cfg"], cwd=cwd, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    found = {}
    try:
        for name, mode in modes.items():
            address = urllib.parse.urlsplit(_url(host, ports[mode.protocol], mode))
            until(lambda: _asked(address, 1, mode), 300, f"{address} does not answer under valgrind", pause=0.5)  # noqa: B023
            _asked(address, WARM_UP, mode)
            _counted(process.pid, cwd)
            if (asked := _asked(address, COUNTED, mode)) != COUNTED:
                raise SystemExit(f"{asked} of {COUNTED} requests were answered")
            found[name] = _counted(process.pid, cwd) / COUNTED
    finally:
        process.terminate()
        process.wait()
    return found


def _counted(pid: int, cwd: Path) -> int:
    """Instructions since it was asked last."""
    subprocess.run(["callgrind_control", "--dump", str(pid)], check=True, capture_output=True, timeout=120)
    newest = max(cwd.glob("counted.*[0-9]"), key=lambda x: int(x.suffix[1:]))
    (total,) = _words(newest.read_text(), r"\ntotals: (\d+)")
    return int(total)


def _asked(address: urllib.parse.SplitResult, count: int, mode: Mode) -> int:
    """Ask so often, by one client; how many were answered 200."""
    if mode.tool == "h2load":
        command = ["h2load", "-t1", "-c1", "-m1", "-n", str(count), address.geturl()]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"status codes: (\d+) 2xx", output)
        return int(found[1]) if found else 0
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port, tls = str(address.hostname), address.port or 0, address.scheme == "https"
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
