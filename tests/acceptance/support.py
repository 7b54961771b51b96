"""What the acceptance tests work with: a real installation in processes, a plain API client, backends and load.

Nothing here looks inside Frontinus: it starts commands, sends HTTP, reads /proc."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, TypeVar

_T = TypeVar("_T")

COMMAND = [sys.executable, "-m", "frontinus.cli.main"]
PENDING = {"PENDING_CREATE", "PENDING_UPDATE", "PENDING_DELETE"}


def until(fact: Callable[[], _T], timeout: float, otherwise: str, pause: float = 0.01) -> _T:
    """The first true value of `fact`; fails the test saying `otherwise` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{otherwise} (waited {timeout:.0f} s; last: {value!r})")
        time.sleep(pause)


def report(figure: str) -> None:
    """Say a figure that a test saw; `pytest -rP` shows it."""
    print(figure)  # noqa: T201 - pytest keeps it beside the test


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---------------------------------------------------------------- the installation


@dataclass(frozen=True)
class Process:
    pid: int
    command: str
    environment: frozenset[str]


def processes(**environment: str) -> list[Process]:
    """Living processes whose environment has these values, read from /proc. Zombies are dead."""
    wanted = {f"{key}={value}" for key, value in environment.items()}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ = frozenset((entry / "environ").read_bytes().decode(errors="replace").split("\0"))
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if wanted <= environ:
            found.append(Process(int(entry.name), command, environ))
    return found


class Installation:
    """`frontinus up` on a state directory of its own. Kill it, start it again; `remove` leaves nothing."""

    def __init__(self, state_dir: Path, config: str = "", wrapper: tuple[str, ...] = ()) -> None:
        """`config` is the text of the configuration file, `wrapper` a command that runs `frontinus up`."""
        self._wrapper = wrapper
        self.state_dir = state_dir
        self._config = state_dir.parent / "frontinus.toml"
        self._config.write_text(config)
        self.process: subprocess.Popen[bytes] | None = None
        self.api_port = free_port()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def start(self, *, expect: bool = True) -> None:
        """Start `frontinus up` and wait until the API answers."""
        with (self.state_dir.parent / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self._wrapper,
                    *COMMAND,
                    "up",
                    "--config",
                    str(self._config),
                    "--state-dir",
                    str(self.state_dir),
                    "--port",
                    str(self.api_port),
                    "--health-port",
                    "0",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if expect:
            until(self._answers, 30, f"frontinus up does not start:\n{self.log()}")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"frontinus up ended with {self.process.returncode}:\n{self.log()}"
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.api().get("/")[0] == 200
        return False

    def log(self) -> str:
        file = self.state_dir.parent / "up.log"
        return file.read_text(errors="replace")[-6000:] if file.exists() else ""

    def kill(self) -> None:
        """SIGKILL of the control plane."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Ctrl-C."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGINT)
        return self.process.wait(20)

    def down(self, *arguments: str) -> None:
        command = [*COMMAND, "down", "--config", str(self._config), "--state-dir", str(self.state_dir), *arguments]
        subprocess.run(command, check=True, timeout=60, stdout=sys.stderr)
        if self.process is not None:
            self.process.wait(20)

    def remove(self) -> None:
        """Stop everything, and see that nothing is left."""
        self.down("--purge")
        left = self.amphora_processes()
        assert not left, f"processes left behind: {left}"
        assert not self.state_dir.exists()

    def api(self) -> Api:
        return Api("127.0.0.1", self.api_port)

    def amphora_processes(self) -> list[Process]:
        return processes(FRONTINUS_STATE_DIR=str(self.state_dir))

    def kill_amphorae(self) -> None:
        """All of them with all that runs in them, at one moment: killed one after the other, an agent would start its haproxy
        again in between, or be started again itself beside one that still serves."""
        stopped: dict[int, Process] = {}
        while running := {x.pid: x for x in self.amphora_processes() if x.pid not in stopped}:
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            stopped |= running
        assert stopped
        for process in sorted(stopped.values(), key=lambda x: "frontinus_amphora" in x.command):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def amphora_ids(self) -> set[str]:
        """Amphorae of which something runs."""
        prefix = "FRONTINUS_AMPHORA_ID="
        return {x.removeprefix(prefix) for p in self.amphora_processes() for x in p.environment if x.startswith(prefix)}

    def places(self) -> set[str]:
        """Amphorae that have a directory."""
        root = self.state_dir / "amphorae"
        return {x.name for x in root.iterdir()} if root.exists() else set()


class Api:
    """The API as JSON in and out; nothing of an SDK between the test and the wire."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(*self._address, timeout=30)
        try:
            text = None if body is None else json.dumps(body)
            sent = {**({"Content-Type": "application/json"} if text else {}), **(headers or {})}
            connection.request(method, path, text, sent)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        return response.status, json.loads(data) if data else None

    def get(self, path: str) -> tuple[int, Any]:
        return self.call("GET", path)

    def create(self, collection: str, key: str, **attributes: object) -> Any:
        status, body = self.call("POST", f"/v2/lbaas/{collection}", {key: attributes})
        assert status == 201, (status, body)
        return body[key]

    def update(self, path: str, key: str, **attributes: object) -> Any:
        status, body = self.call("PUT", f"/v2/lbaas/{path}", {key: attributes})
        assert status == 200, (status, body)
        return body[key]

    def delete(self, path: str) -> None:
        status, body = self.call("DELETE", f"/v2/lbaas/{path}")
        assert status == 204, (status, body)

    def show(self, path: str, key: str) -> Any:
        status, body = self.get(f"/v2/lbaas/{path}")
        assert status == 200, (status, body)
        return body[key]

    def subnet_id(self) -> str:
        return str(self.get("/v2.0/subnets")[1]["subnets"][0]["id"])

    def load_balancer(self, load_balancer_id: str) -> Any:
        return self.show(f"loadbalancers/{load_balancer_id}", "loadbalancer")

    def amphorae(self, load_balancer_id: str) -> list[str]:
        """Ids of the amphorae of a load balancer, in order."""
        status, body = self.get(f"/v2/octavia/amphorae?loadbalancer_id={load_balancer_id}")
        assert status == 200, (status, body)
        return sorted(x["id"] for x in body["amphorae"])

    def settled(self, load_balancer_id: str, timeout: float = 20) -> Any:
        """The load balancer when it is not PENDING any more."""

        def shown() -> Any:
            load_balancer = self.load_balancer(load_balancer_id)
            return None if load_balancer["provisioning_status"] in PENDING else load_balancer

        return until(shown, timeout, f"load balancer {load_balancer_id} stays PENDING", pause=0.02)

    def gone(self, path: str, timeout: float = 20) -> None:
        until(lambda: self.get(f"/v2/lbaas/{path}")[0] == 404, timeout, f"{path} is not deleted")

    def web_load_balancer(
        self, backends: list[Backend], port: int, *, name: str = "web", monitor: bool = False, **pool: object
    ) -> Any:
        """A whole tree in one call: one HTTP listener, one pool, a member for each backend."""
        default_pool: dict[str, object] = {
            "name": "web",
            "protocol": "HTTP",
            "lb_algorithm": "ROUND_ROBIN",
            "members": [{"name": x.name, "address": "127.0.0.1", "protocol_port": x.port} for x in backends],
            **pool,
        }
        if monitor:
            default_pool["healthmonitor"] = {
                "type": "HTTP",
                "delay": 1,
                "timeout": 1,
                "max_retries": 1,
                "max_retries_down": 1,
            }
        return self.create(
            "loadbalancers",
            "loadbalancer",
            name=name,
            vip_subnet_id=self.subnet_id(),
            listeners=[{"name": "web", "protocol": "HTTP", "protocol_port": port, "default_pool": default_pool}],
        )


# ---------------------------------------------------------------- backends and load


@dataclass
class Backend:
    """A web server that says its name and counts what it is asked."""

    name: str
    port: int
    stop: Callable[[], None]
    answered: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def backend(name: str, port: int = 0) -> Iterator[Backend]:
    answered: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            answered[self.path] += 1
            if self.headers.get("Upgrade") == "echo":
                self._echo()
                return
            body = name.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _echo(self) -> None:
            """As a WebSocket server does: what was HTTP is a pipe from now on."""
            self.close_connection = True
            self.send_response(101)
            self.send_header("Upgrade", "echo")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            with contextlib.suppress(OSError):
                while said := self.connection.recv(4096):
                    self.connection.sendall(said)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def __init__(self) -> None:
            super().__init__(("127.0.0.1", port), Handler)
            self.connections: set[socket.socket] = set()

        def process_request(self, request: Any, client_address: Any) -> None:
            self.connections.add(request)
            super().process_request(request, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A connection that ends while the backend is being stopped is no news."""

    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        for connection in server.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()

    try:
        yield Backend(name, server.server_port, stop, answered)
    finally:
        if thread.is_alive():
            stop()


def connection_to(host: str, port: int, timeout: float, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
    """Not made yet; over TLS where a context is given."""
    if context is not None:
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    return http.client.HTTPConnection(host, port, timeout=timeout)


def ask(
    host: str, port: int, path: str = "/", timeout: float = 5, context: ssl.SSLContext | None = None
) -> tuple[int, str]:
    """One request on a connection of its own: (status, body), or (0, what went wrong)."""
    connection = connection_to(host, port, timeout, context)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error)
    finally:
        connection.close()


def spread(host: str, port: int, count: int) -> Counter[str]:
    """Who answers `count` requests, each on a connection of its own."""
    return Counter(
        body if status == 200 else f"{status} {body}" for status, body in (ask(host, port) for _ in range(count))
    )


def serving(host: str, port: int, timeout: float = 20) -> float:
    """Wait until the address answers 200; how many seconds it took."""
    started = time.monotonic()
    until(lambda: ask(host, port, timeout=1)[0] == 200, timeout, f"http://{host}:{port}/ does not answer", pause=0.002)
    return time.monotonic() - started


class Load:
    """A constant load: clients on kept connections and clients with a new connection for each request.

    A kept connection which the other side closed between two requests is opened again and the request repeated, as
    RFC 9112 section 9.3.1 has it for idle connections; anything else that is not a 200 is an error."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        kept: int = 2,
        fresh: int = 2,
        pause: float = 0.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """`kept` and `fresh` are clients of each sort; each pauses for so many seconds between two requests. They speak
        TLS where a context is given."""
        self._pause = pause
        self._context = context
        self.answers: Counter[str] = Counter()
        self.errors: list[str] = []
        self.reopened = 0
        self._stop = threading.Event()
        self._address = (host, port)
        self._threads = [threading.Thread(target=self._keep, daemon=True) for _ in range(kept)]
        self._threads += [threading.Thread(target=self._renew, daemon=True) for _ in range(fresh)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    @property
    def total(self) -> int:
        return self.answers.total()

    def more(self, count: int, timeout: float = 20) -> None:
        """Wait until so many further requests were answered."""
        aim = self.total + count
        until(lambda: self.total >= aim or self.errors, timeout, "the load does not go on")

    def _renew(self) -> None:
        while not self._stop.is_set():
            status, body = ask(*self._address, context=self._context)
            self._note(status, body)
            self._stop.wait(self._pause)

    def _keep(self) -> None:
        connection = connection_to(*self._address, 10, self._context)
        used = False
        while not self._stop.is_set():
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                self._note(response.status, response.read().decode())
                used = True
                self._stop.wait(self._pause)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
                connection.close()
                self.reopened += 1
                if not used:
                    self.errors.append(f"on a fresh connection: {error!r}")
                used = False
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                used = False
                self.errors.append(repr(error))
        connection.close()

    def _note(self, status: int, body: str) -> None:
        if status == 200:
            self.answers[body] += 1
        else:
            self.errors.append(f"{status} {body}")
