"""What it costs that stick tables outlive HAProxy: CPU and time to keep entries, and to be taught them after a SIGKILL.

HAProxy and its table keeper run as the agent runs them, by hand. Needs no root. Usage: python bench/table_keeper.py [ENTRIES ...]"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import print_result

from frontinus_amphora import haproxy_cli
from frontinus_amphora.table_keeper import KEEPER, keeper_text

TABLE = "bench_peers/clients"
AT_ONCE = 150
TEXT = """global
    stats socket unix@main.sock mode 600 level admin
    nbthread 1
    maxconn 100
peers bench_peers
    server own
    server keeper unix@main.k
    table clients type ipv6 size 100000
backend b
    mode tcp
    timeout connect 1s
    timeout server 1s
    stick on src table bench_peers/clients
    server s1 127.0.0.1:1 id 7
"""


def start(name: str, peer: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["haproxy", "-db", "-f", name, "-L", peer], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for_socket(path: str) -> None:
    while True:
        try:
            haproxy_cli.connect(path, 1.0).close()
        except OSError:
            time.sleep(0.001)
        else:
            return


def used() -> int:
    """Entries that HAProxy has."""
    return int(haproxy_cli.ask("main.sock", "show table").partition("used:")[2].split()[0])


def cpu_ms(pid: int) -> float:
    words = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(words[0]) / 1e6


def memory_mb(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.partition("\nPss:")[2].split()[0]) / 1024


def measure(entries: int) -> dict[str, float]:
    keeper = start("keeper.cfg", KEEPER)
    wait_for_socket("main.k")
    main = start("main.cfg", "own")
    wait_for_socket("main.sock")
    before = cpu_ms(keeper.pid)
    commands = [f"set table {TABLE} key fd00::{x >> 16:x}:{x & 0xFFFF:x} data.server_id 7" for x in range(entries)]
    for first in range(0, entries, AT_ONCE):
        haproxy_cli.ask("main.sock", ";".join(commands[first : first + AT_ONCE]))
    time.sleep(0.5)  # nobody says when the keeper has all of it
    kept = cpu_ms(keeper.pid)
    os.kill(main.pid, signal.SIGKILL)
    main.wait()
    again = start("main.cfg", "own")
    wait_for_socket("main.sock")
    began, own = time.monotonic(), cpu_ms(again.pid)
    deadline = began + 10
    while used() < entries and time.monotonic() < deadline:
        time.sleep(0.0005)
    took = time.monotonic() - began
    found = {
        "taught": used(),
        "until_taught_ms": round(took * 1000, 1),
        "keeper_cpu_us_per_entry_kept": round((kept - before) * 1000 / entries, 2),
        "keeper_cpu_ms_to_teach": round(cpu_ms(keeper.pid) - kept, 1),
        "haproxy_cpu_ms_to_be_taught": round(cpu_ms(again.pid) - own, 1),
        "keeper_memory_mb": round(memory_mb(keeper.pid), 1),
    }
    for process in (again, keeper):
        process.kill()
        process.wait()
    return found


def main(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="frontinus-bench-") as directory:
        os.chdir(directory)
        Path("main.cfg").write_text(TEXT)
        kept = keeper_text(TEXT, "main.k", "own", "")
        assert kept is not None
        Path("keeper.cfg").write_text(kept)
        print_result("table_keeper", **{str(entries): measure(entries) for entries in sizes})
        os.chdir("/")


if __name__ == "__main__":
    main([int(x) for x in sys.argv[1:]] or [10, 1_000, 100_000])
