"""A rendered configuration that a HAProxy of its own runs, without an agent: for tests that try very many of them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from frontinus.drivers.amphora.agent.files import path_of
from frontinus.drivers.amphora.haproxy.persistence import LOCAL_PEER
from frontinus.drivers.amphora.haproxy.render import render
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.haproxy.versions import version_of
from frontinus.drivers.amphora.interface import RenderedFile
from frontinus.model.tree import LoadBalancerTree

from tests.integration.drivers.world import HAPROXY, MEMBERS, VIP, haproxy_version

SETTINGS = HaproxySettings(state_dir=Path("/nowhere"), max_connections=200)


@contextlib.contextmanager
def running(directory: Path, text: str, address: str, port: int) -> Iterator[None]:
    """HAProxy runs this text in `directory`, and somebody answers at the address and port."""
    file = directory / "haproxy.cfg"
    file.write_text(text, encoding="utf-8")
    with (
        (directory / "haproxy.log").open("wb") as log,
        subprocess.Popen(
            [HAPROXY, "-db", "-L", LOCAL_PEER, "-f", file.name], cwd=directory, stdout=log, stderr=log
        ) as haproxy,
    ):
        try:
            deadline = time.monotonic() + 10
            while not answers(address, port):
                assert haproxy.poll() is None, (directory / "haproxy.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.002)
            yield
        finally:
            haproxy.kill()


def answers(address: str, port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex((address, port)) == 0


@contextlib.contextmanager
def balancing(directory: Path, tree: LoadBalancerTree) -> Iterator[None]:
    """The tree's listeners serve; at least one of them is enabled."""
    listener = next(x for x in tree.listeners if x.admin_state_up)
    rendered = render(tree, SETTINGS, version=version_of(haproxy_version()))
    lay_out(directory, rendered.files, tree.id)
    with running(directory, rendered.text, tree.load_balancer.vip.address, listener.protocol_port):
        yield


def lay_out(directory: Path, files: Iterable[RenderedFile], load_balancer_id: str) -> None:
    """The files beside a text, where it looks for them."""
    for file in files:
        path = directory / path_of(file.name, load_balancer_id, private=file.private)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)


@contextlib.contextmanager
def members_that_echo(directory: Path, ports: dict[str, int]) -> Iterator[None]:
    """A HAProxy plays the members: each port answers every request with its name."""
    lines = ["defaults", " mode http", " timeout client 30s", " timeout server 30s", " timeout connect 5s"]
    for name, port in ports.items():
        lines += [f"frontend {name}", f" bind {MEMBERS}:{port}"]
        lines.append(f" http-request return status 200 content-type text/plain string {name}")
    directory.mkdir()
    with running(directory, "\n".join([*lines, ""]), MEMBERS, next(iter(ports.values()))):
        yield


class Client:
    """One keep-alive connection that is opened anew when the other side closed it."""

    def __init__(self, port: int, address: str = VIP) -> None:
        self._place = (address, port)
        self._connection: socket.socket | None = None

    def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, and body."""
        if self._connection is None:
            self._connection = socket.create_connection(self._place, timeout=5)
        self._connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            part = self._connection.recv(65536)
            assert part, f"closed after {received!r}, asked {request!r}"
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            body += self._connection.recv(65536)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(first.split(" ")[1]), headers, body

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
