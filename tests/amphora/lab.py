"""A small network of namespaces: a bridge, and hosts on it with an address each. Needs root, as VRRP does."""

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
PREFIX = "10.83.0."
PREFIX_6 = "fd83::"


def ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True)


class Host:
    """A namespace with eth1 on the bridge, and a thread that works inside."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.address = f"{PREFIX}{number}"
        self.address_6 = f"{PREFIX_6}{number}"
        self.inside = ThreadPoolExecutor(1, initializer=self._enter)

    def _enter(self) -> None:
        descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        failed = ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET)  # of this thread alone
        os.close(descriptor)
        if failed:
            raise OSError(ctypes.get_errno(), "setns")

    def run(self, call: Callable[..., T], *arguments: object, **named: object) -> T:
        """Do this inside; sockets that it opens stay there."""
        return self.inside.submit(call, *arguments, **named).result()

    def holds(self, address: str) -> bool:
        """Whether an interface has this address."""
        words = ("ip", "-n", self.name, "-o", "addr", "show", "to", address)
        return bool(subprocess.run(words, capture_output=True, check=True).stdout)

    def close(self) -> None:
        self.inside.shutdown()


class Lab:
    """Hosts on one bridge, which is in a namespace of its own; nothing is left of it after `close`."""

    def __init__(self, *names: str) -> None:
        self._made = f"ft{os.getpid()}{time.monotonic_ns() % 1_000_000:06d}"
        self.switch = f"{self._made}-s"
        self.hosts: dict[str, Host] = {}
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "br0", "up", "type", "bridge")
        for number, name in enumerate(names, 1):
            self.hosts[name] = host = Host(f"{self._made}-{name}", number)
            ip("netns", "add", host.name)
            ip("-n", host.name, "link", "set", "lo", "up")
            self.wire(name)

    def wire(self, name: str) -> None:
        """Give a host its link, with its addresses."""
        host = self.hosts[name]
        ip("-n", self.switch, *f"link add port-{name} type veth peer name eth1 netns {host.name}".split())
        ip("-n", self.switch, "link", "set", f"port-{name}", "up", "master", "br0")
        ip("-n", host.name, "link", "set", "eth1", "up")
        ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth1")
        ip("-n", host.name, "addr", "add", f"{host.address_6}/64", "dev", "eth1", "nodad")

    def unplug(self, name: str) -> None:
        """Pull the cable on the bridge's side."""
        ip("-n", self.switch, "link", "set", f"port-{name}", "down")

    def plug(self, name: str) -> None:
        ip("-n", self.switch, "link", "set", f"port-{name}", "up")

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()
            ip("netns", "del", host.name)
        ip("netns", "del", self.switch)


class Answered(NamedTuple):
    at: float
    by: str


class Asker:
    """A client that opens a connection every 5 ms, reads who answers, and notes it. Runs inside its host."""

    def __init__(self, host: Host, address: str, port: int) -> None:
        self.answers: list[Answered] = []
        self._target = (address, port)
        self._ending = threading.Event()
        self._done = host.inside.submit(self._ask)

    def _ask(self) -> None:
        while not self._ending.wait(0.005):
            try:
                with socket.create_connection(self._target, 0.05) as connection:
                    connection.settimeout(0.05)
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    answer = connection.recv(4096)
            except OSError:
                continue
            if answer:
                self.answers.append(Answered(time.monotonic(), answer.rpartition(b"\r\n\r\n")[2].decode()))

    def last(self) -> str:
        """Who answers now."""
        return self.answers[-1].by if self.answers else ""

    def gap(self, since: float) -> float:
        """The longest time without an answer, from the last one before `since` on."""
        moments = [each.at for each in self.answers]
        first = max((x for x in range(len(moments)) if moments[x] <= since), default=0)
        return max((b - a for a, b in zip(moments[first:], moments[first + 1 :], strict=False)), default=float("inf"))

    def close(self) -> None:
        self._ending.set()
        self._done.result()
