"""`frontinus demo`: a whole installation in a temporary directory, real backends, an unmodified OpenStack client.

It does what a tenant would do and shows what he would see. Nothing here is a short cut: the load balancer is created
over the API by openstacksdk, and the requests go over the VIP."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from frontinus.cli.output import complain
from frontinus.cli.up import ENDPOINT_FILE

START_TIMEOUT_S = 30.0
CLIENTS = 8


class DemoFailed(Exception):
    """What went wrong, and where to look."""


def run(*, once: bool, backends: int, count: int) -> int:
    """Exit status 0 when everything that was shown went well."""
    try:
        import openstack
    except ImportError:
        complain("the demo uses openstacksdk: pip install 'frontinus[demo]'")
        return 1
    # Ctrl-C and a plain kill both clean up; said for both, since a shell starts background jobs deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    state_dir = Path(tempfile.mkdtemp(prefix="frontinus-"))
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, state_dir, ignore_errors=True)
        try:
            console.print("[bold]Frontinus[/bold]: starting API, controller and health receiver …")
            endpoint = cleanup.enter_context(_running(state_dir))
            connection = openstack.connection.Connection(auth_type="none", endpoint=endpoint)
            cleanup.callback(connection.close)
            servers = [cleanup.enter_context(_backend(f"backend-{n}")) for n in range(1, backends + 1)]
            _show(console, connection.load_balancer, endpoint, servers, count)
            if not once:
                console.print("\nThe load balancer stays up. [bold]Ctrl-C[/bold] ends it and leaves nothing behind.")
                signal.pause()
        except DemoFailed as failure:
            complain(str(failure))
            _print_log(state_dir)
            return 1
        except KeyboardInterrupt:
            console.print("\nStopping …")
            return 0
    return 0


def _show(console: Console, api: Any, endpoint: str, servers: list[Backend], count: int) -> None:
    port = _free_port()
    started = time.perf_counter()
    load_balancer = api.create_load_balancer(name="demo", vip_subnet_id=_subnet_id(endpoint))
    # Each call is made while the one before is still being carried out: Frontinus has no 409 for a second edit.
    listener = api.create_listener(name="web", protocol="HTTP", protocol_port=port, load_balancer_id=load_balancer.id)
    pool = api.create_pool(name="web", protocol="HTTP", lb_algorithm="ROUND_ROBIN", listener_id=listener.id)
    api.create_health_monitor(pool_id=pool.id, type="HTTP", delay=1, timeout=1, max_retries=1, max_retries_down=1)
    for server in servers:
        api.create_member(pool, name=server.name, address="127.0.0.1", protocol_port=server.port)
    called = time.perf_counter()
    vip = load_balancer.vip_address
    _until(lambda: _answers(vip, port), 20, f"no answer from http://{vip}:{port}/")
    console.print(
        f"Load balancer [bold]demo[/bold] on [bold]http://{vip}:{port}/[/bold]: created over the API by openstacksdk in "
        f"{4 + len(servers)} calls ({(called - started) * 1000:.0f} ms), serving after "
        f"{(time.perf_counter() - started) * 1000:.0f} ms.\n"
    )
    _until(
        lambda: _statuses(api, pool) == dict.fromkeys((s.name for s in servers), "ONLINE"),
        20,
        "the members do not become ONLINE",
    )
    _print_spread(console, f"{count} requests over the VIP", _send(vip, port, count), servers, _statuses(api, pool))
    victim = servers[-1]
    victim.stop()
    stopped = time.perf_counter()
    _until(lambda: _statuses(api, pool)[victim.name] == "ERROR", 20, f"{victim.name} is not found dead")
    console.print(
        f"\n[bold]{victim.name}[/bold] was stopped; its member is in ERROR after {time.perf_counter() - stopped:.1f} s.\n"
    )
    spread = _send(vip, port, count)
    _print_spread(console, f"{count} requests without {victim.name}", spread, servers, _statuses(api, pool))
    if spread.failed:
        raise DemoFailed(f"{spread.failed} requests failed although the dead backend was taken out")
    if spread.by_name.get(victim.name):
        raise DemoFailed(f"{victim.name} was stopped and answers")


# ---------------------------------------------------------------- the installation


@contextlib.contextmanager
def _running(state_dir: Path) -> Iterator[str]:
    """`frontinus up` in a process of its own; on leaving, everything that it made is stopped."""
    command = [sys.executable, "-m", "frontinus.cli.main"]
    with (state_dir / "up.log").open("w") as log_file:
        process = subprocess.Popen(
            [*command, "up", "--state-dir", str(state_dir), "--port", "0", "--health-port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            # Ctrl-C is for the demo; it stops the rest in order.
            start_new_session=True,
        )
    try:
        endpoint_file = state_dir / ENDPOINT_FILE

        def is_up() -> bool:
            if process.poll() is not None:
                raise DemoFailed(f"frontinus up ended with status {process.returncode}")
            return endpoint_file.exists() and _answers_api(endpoint_file.read_text())

        _until(is_up, START_TIMEOUT_S, "frontinus up does not start")
        yield endpoint_file.read_text()
    finally:
        subprocess.run([*command, "down", "--state-dir", str(state_dir)], check=False, stdout=subprocess.DEVNULL)
        process.wait(STOP_TIMEOUT_S)


STOP_TIMEOUT_S = 20.0


def _print_log(state_dir: Path) -> None:
    log_file = state_dir / "up.log"
    if log_file.exists():
        for line in log_file.read_text(errors="replace").splitlines()[-20:]:
            print(f"  {line}", file=sys.stderr)  # noqa: T201 - what a person needs to find the cause


def _answers_api(endpoint: str) -> bool:
    host, _, port = endpoint.removeprefix("http://").rpartition(":")
    return bool(host) and _answers(host, int(port))


def _subnet_id(endpoint: str) -> str:
    """The one subnet of the loopback network, asked as the `openstack` command asks it."""
    import json

    host, _, port = endpoint.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", "/v2.0/subnets")
        return str(json.loads(connection.getresponse().read())["subnets"][0]["id"])
    finally:
        connection.close()


# ---------------------------------------------------------------- backends and requests


@dataclass
class Backend:
    """A small web server that says its name."""

    name: str
    port: int
    stop: Callable[[], None]


@contextlib.contextmanager
def _backend(name: str) -> Iterator[Backend]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = name.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        def __init__(self) -> None:
            super().__init__(("127.0.0.1", 0), Handler)
            self.connections: set[socket.socket] = set()

        def process_request(self, request: Any, client_address: Any) -> None:
            self.connections.add(request)
            super().process_request(request, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A connection that ends while the backend is being stopped is no news."""

    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        for connection in server.connections:
            # A process that dies takes its kept connections with it; so does this one.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()

    try:
        yield Backend(name, server.server_port, stop)
    finally:
        if thread.is_alive():
            stop()


@dataclass
class Spread:
    """Who answered how often, how long it took (ms), and how many requests failed."""

    by_name: dict[str, list[float]] = field(default_factory=dict)
    failed: int = 0


def _send(vip: str, port: int, count: int) -> Spread:
    spread = Spread()
    lock = threading.Lock()

    def client(share: int) -> None:
        connection = http.client.HTTPConnection(vip, port, timeout=10)
        for _ in range(share):
            started = time.perf_counter()
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                name = response.read().decode()
                good = response.status == 200
            except (OSError, http.client.HTTPException):
                connection.close()
                name, good = "", False
            took = (time.perf_counter() - started) * 1000
            with lock:
                if good:
                    spread.by_name.setdefault(name, []).append(took)
                else:
                    spread.failed += 1
        connection.close()

    shares = [count // CLIENTS + (n < count % CLIENTS) for n in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, shares))
    return spread


def _print_spread(
    console: Console, title: str, spread: Spread, servers: list[Backend], statuses: dict[str, str]
) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("backend")
    table.add_column("operating status")
    table.add_column("requests", justify="right")
    table.add_column("share", justify="right")
    table.add_column("median ms", justify="right")
    table.add_column("p99 ms", justify="right")
    total = sum(len(x) for x in spread.by_name.values())
    for server in servers:
        times = spread.by_name.get(server.name, [])
        table.add_row(
            f"{server.name} (127.0.0.1:{server.port})",
            statuses.get(server.name, "?"),
            str(len(times)),
            f"{len(times) / total:.0%}" if total else "-",
            f"{statistics.median(times):.2f}" if times else "-",
            f"{sorted(times)[int(len(times) * 0.99)]:.2f}" if times else "-",
        )
    console.print(table)
    console.print(f"Failed requests: {spread.failed}")


def _statuses(api: Any, pool: Any) -> dict[str, str]:
    return {member.name: member.operating_status for member in api.members(pool)}


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until(fact: Callable[[], bool], timeout: float, otherwise: str) -> None:
    deadline = time.monotonic() + timeout
    while not fact():
        if time.monotonic() > deadline:
            raise DemoFailed(f"{otherwise} within {timeout:.0f} s")
        time.sleep(0.02)
