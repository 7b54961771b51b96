"""The agent's pulse: one message per interval to one controller after the other.

A beat is sent at the start, at every interval, right after a change was applied, and as soon as a status changed.
It never blocks REST: it has its own thread, and a controller that does not hear costs nothing. Next: encoding.py.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable

from frontinus_amphora.encoding import (
    ENVELOPE_VERSION,
    PLAIN_VERSION,
    Counters,
    PoolRow,
    encode_envelopes,
    encode_plain,
    message,
)
from frontinus_amphora.haproxy_cli import HaproxySilent
from frontinus_amphora.load_balancer import LoadBalancer
from frontinus_amphora.log import log
from frontinus_amphora.settings import Settings
from frontinus_amphora.statistics import Bookkeeper
from frontinus_amphora.vrrp import Vrrp

SHORTEST_GAP = 0.02  # between two looks that haproxy's own words asked for
SAVE_EVERY = 5.0


class Heart:
    """Owned by its thread, except for `poke` and `look`, which any thread calls."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        load_balancers: Callable[[], Iterable[LoadBalancer]],
        bookkeeper: Bookkeeper,
        vrrp: Callable[[], Vrrp],
    ) -> None:
        self._settings = settings
        self._load_balancers = load_balancers
        self._bookkeeper = bookkeeper
        self._vrrp = vrrp
        self._wake = threading.Condition()  # guards the four below
        self._beat_wanted = True
        self._look_wanted = False
        self._stopping = False
        self._anew = False
        self._boot = bookkeeper.boot(time.time_ns())
        self._sequence = 0
        self._turn = 0
        self._last_statuses: dict[str, object] = {}
        self._saved_at = 0.0
        self._sockets: dict[int, socket.socket] = {}
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(2.0)
        self._bookkeeper.save()

    def poke(self) -> None:
        """Beat now."""
        with self._wake:
            self._beat_wanted = True
            self._wake.notify()

    def begin_anew(self) -> None:
        """Beat now, as an agent that started just now: the time was behind that of an earlier start, say, and whoever heard
        that one took all that was said since for replays."""
        with self._wake:
            self._anew = self._beat_wanted = True
            self._wake.notify()

    def look(self) -> None:
        """Something may have changed: beat if a status did."""
        with self._wake:
            self._look_wanted = True
            self._wake.notify()

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            with self._wake:
                while not (self._stopping or self._beat_wanted or self._look_wanted):
                    remaining = due - time.monotonic()
                    if remaining <= 0:
                        self._beat_wanted = True
                        break
                    self._wake.wait(min(remaining, 60.0))
                if self._stopping:
                    return
                forced, self._beat_wanted, self._look_wanted = self._beat_wanted, False, False
                anew, self._anew = self._anew, False
            if anew:
                self._boot, self._sequence = self._bookkeeper.boot(time.time_ns()), 0
            try:
                if self._beat(forced):
                    due = time.monotonic() + self._settings().heartbeat_interval
            except Exception as error:  # noqa: BLE001 - one bad turn must not stop the pulse
                log("heartbeat failed", error=repr(error))
                due = time.monotonic() + self._settings().heartbeat_interval
            time.sleep(SHORTEST_GAP)

    def _beat(self, forced: bool) -> bool:
        """Read every load balancer, and send one message if `forced` or a status changed; True when sent."""
        settings = self._settings()
        envelope = settings.heartbeat_format == "envelope"
        if not envelope and self._vrrp().is_down():
            return (
                True  # as Octavia's agents: no word until the next interval (contract/heartbeat.yaml, suppressed_when)
            )
        statuses: dict[str, object] = {}
        listeners: dict[str, tuple[str, int, Counters, int]] = {}
        pools: dict[str, PoolRow] = {}
        readings = []
        incomplete = []
        empty = True
        for load_balancer in self._load_balancers():
            empty = False
            if not load_balancer.is_whole():
                incomplete.append(load_balancer.id)
            if load_balancer.is_in_doubt():
                continue  # the supervisor looks; beats must not wait for an answer each time
            try:
                seen = load_balancer.read_statistics()
            except HaproxySilent:
                load_balancer.doubt()
                continue  # the beat is sent without the listeners of this one
            if seen is not None:
                statuses.update(seen.statuses())
                readings.append((load_balancer, seen))
        active = self._vrrp().is_active()
        statuses["incomplete"], statuses["active"], statuses["empty"] = incomplete, active, empty
        if not forced and statuses == self._last_statuses:
            return False
        for load_balancer, seen in readings:
            count = self._bookkeeper.totals if envelope else self._bookkeeper.increments
            counted = count(load_balancer.id, seen.listeners)
            listeners.update({name: (row.status, row.conns, *counted[name]) for name, row in seen.listeners.items()})
            pools.update(seen.pools)
        self._last_statuses = statuses
        version = ENVELOPE_VERSION if envelope else PLAIN_VERSION
        content = message(
            settings.amphora_id, self._sequence, listeners, pools, version, incomplete, active, empty=empty
        )
        if envelope:
            packets = encode_envelopes(content, settings.heartbeat_key, settings.amphora_id, self._boot, self._sequence)
        else:
            packets = [encode_plain(content, settings.heartbeat_key)]
        self._sequence += 1
        self._send(packets, settings.controllers)
        if not envelope or time.monotonic() - self._saved_at > SAVE_EVERY:
            self._bookkeeper.save()
            self._saved_at = time.monotonic()
        return True

    def _send(self, packets: list[bytes], controllers: tuple[tuple[str, int], ...]) -> None:
        if not controllers:
            return
        host, port = controllers[self._turn % len(controllers)]
        self._turn += 1
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            if family not in self._sockets:
                self._sockets[family] = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            for packet in packets:
                self._sockets[family].sendto(packet, (host, port))
        except OSError as error:
            log("heartbeat not sent", controller=f"{host}:{port}", error=error.strerror)
