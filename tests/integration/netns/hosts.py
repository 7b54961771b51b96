"""Other machines on a bridge, as network namespaces: clients that ask, members that answer; and an installation of
Frontinus beside them. For the stories, which have a machine of their own (test_sandbox.py)."""

from __future__ import annotations

import ctypes
import http.server
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from click.testing import CliRunner

from frontinus.cli.main import main as cli

_T = TypeVar("_T")
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def ip_json(*words: str) -> list[dict[str, Any]]:
    done = subprocess.run(["ip", "-json", *words], check=True, capture_output=True, text=True)
    return [x for x in json.loads(done.stdout or "[]") if x]


class Host:
    """A namespace with one interface on a bridge."""

    def __init__(self, name: str, bridge: str, *addresses: str) -> None:
        self.name = name
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"to-{name}", "master", bridge, "up")
        ip("-n", name, "link", "set", "eth0", "up")
        for address in addresses:
            ip("-n", name, "address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))

    def within(self, work: Callable[[], _T]) -> _T:
        """What the work gives in this namespace. Raises what it raises."""
        answers: list[_T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                with Path(f"/run/netns/{self.name}").open() as namespace:
                    if _libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                answers.append(work())
            except BaseException as error:  # noqa: BLE001 - handed on
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return answers[0]

    def get(self, url: str, timeout: float = 3) -> str:
        """The body that the URL answers with."""

        def ask() -> str:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout) as answer:
                return str(answer.read().decode())

        return self.within(ask)

    def reaches(self, address: str, port: int) -> bool:
        """Whether a TCP connection comes about, or is refused by whoever has the address; False when nothing answers."""

        def connect() -> bool:
            try:
                with socket.create_connection((address, port), timeout=0.7):
                    return True
            except ConnectionRefusedError:
                return True
            except OSError:
                return False

        return self.within(connect)

    def ask_datagram(self, address: str, port: int, text: str) -> str | None:
        """What comes back; None when nothing does."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def ask() -> str | None:
            with socket.socket(family, socket.SOCK_DGRAM) as asking:
                asking.settimeout(1)
                asking.sendto(text.encode(), (address, port))
                try:
                    return asking.recv(2048).decode()
                except OSError:
                    return None

        return self.within(ask)

    def serve(self, port: int) -> None:
        """Answer HTTP and datagrams with the host's name, until the process ends; HTTP for `/after/SECONDS` so late."""
        name = self.name.encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, _, seconds = self.path.partition("/after/")
                time.sleep(float(seconds or 0))
                self.send_response(200)
                self.send_header("Content-Length", str(len(name)))
                self.end_headers()
                self.wfile.write(name)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
                pass

        class Server(http.server.ThreadingHTTPServer):
            address_family = socket.AF_INET6  # and IPv4 with it
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Whoever asked has died meanwhile: that is what the stories are about."""

        server = self.within(lambda: Server(("::", port), Handler))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        datagrams = self.within(lambda: _udp(port))

        def answer() -> None:
            while True:
                _, sender = datagrams.recvfrom(2048)
                datagrams.sendto(name, sender)

        threading.Thread(target=answer, daemon=True).start()

    def echo(self, port: int) -> None:
        """Send back what comes over TCP, until the process ends."""

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                while said := self.request.recv(4096):
                    self.request.sendall(said)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """As above."""

        server = self.within(lambda: Server(("", port), Handler))
        threading.Thread(target=server.serve_forever, daemon=True).start()


def _udp(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(("::", port))
    return made


class Installation:
    """A running `frontinus up`, and its API."""

    def __init__(self, state_dir: Path, compute: str = "netns", more: str = "") -> None:
        """`more` is text for the end of the configuration file."""
        self.state_dir = state_dir
        state_dir.mkdir(exist_ok=True)
        self.config = state_dir / "frontinus.toml"
        self.config.write_text(
            f'state_dir = "{state_dir}"\n[drivers]\ncompute = "{compute}"\nnetwork = "bridge"\n'
            f"[api]\nbind_port = 9876\n{more}"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.log = state_dir / "up.log"

    def command(self, *words: str) -> str:
        """What a command prints; in this process, since starting one takes a second."""
        done = CliRunner().invoke(cli, [*words, "--config", str(self.config)])
        assert done.exit_code == 0, done.output
        return done.output.strip()

    def start(self) -> None:
        command = [sys.executable, "-m", "frontinus.cli.main", "up", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.until(lambda: self.call("GET", "/v2.0/lbaas/loadbalancers") is not None, "the API answers")

    @property
    def is_started(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def crash(self) -> None:
        """SIGKILL of the control plane."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def call(self, method: str, path: str, body: object = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:9876{path}", content, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from error
        except OSError:
            return None
        return json.loads(text) if text else {}

    def load_balancer(self, load_balancer_id: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/v2.0/lbaas/loadbalancers/{load_balancer_id}")["loadbalancer"])

    def settled(self, load_balancer_id: str, within: float = 20) -> dict[str, Any]:
        self.until(
            lambda: self.load_balancer(load_balancer_id)["provisioning_status"] == "ACTIVE",
            f"{load_balancer_id} is ACTIVE",
            within,
        )
        return self.load_balancer(load_balancer_id)

    def amphora(self, load_balancer_id: str) -> dict[str, Any]:
        (one,) = self.call("GET", f"/v2.0/octavia/amphorae?loadbalancer_id={load_balancer_id}")["amphorae"]
        return dict(one)

    def until(self, fact: Callable[[], object], what: str, within: float = 20) -> None:
        deadline = time.monotonic() + within
        while True:
            try:
                if fact():
                    return
            except (OSError, ValueError):
                pass
            assert time.monotonic() < deadline, f"not within {within} s: {what}\n{self.log.read_text()[-6000:]}"
            time.sleep(0.02)


@contextmanager
def installation(state_dir: Path, compute: str = "netns", more: str = "") -> Iterator[Installation]:
    made = Installation(state_dir, compute, more)
    try:
        yield made
    finally:
        if made.is_started:
            made.stop()
            made.command("down")


def processes_of(amphora_id: str) -> dict[int, str]:
    """Pid to program of everything that an amphora runs."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "environ").read_bytes()
                if f"FRONTINUS_AMPHORA_ID={amphora_id}".encode() in words:
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
            except OSError:
                continue
    return found
