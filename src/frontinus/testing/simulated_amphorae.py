"""Heartbeats of many amphorae from one task: signed as ours are, each with its own key, evenly spread over the interval.

    crowd = Crowd(amphorae, ("127.0.0.1", 5555), interval=1.0)
    sending = asyncio.create_task(crowd.run())
    crowd.silent.add(amphorae[0].id)

For tests and benches of whoever receives. The envelope is docs/reference/agent-extension.md's; this is no agent, and answers
nothing."""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
import struct
import time
import uuid
import zlib
from collections.abc import Sequence

from frontinus.model.ids import AmphoraId, ListenerId, MemberId, PoolId

_HEADER = struct.Struct(">4s16sQQ")
SHORTEST_PAUSE_S = 0.002


class SimulatedAmphora:
    """One amphora. `say` changes what it tells; `datagram` is the next heartbeat, one sequence on."""

    def __init__(
        self,
        amphora_id: AmphoraId,
        key: bytes,
        listeners: Sequence[ListenerId] = (),
        pools: Sequence[tuple[PoolId, Sequence[MemberId]]] = (),
        *,
        boot: int | None = None,
    ) -> None:
        """`pools` are under the first listener. `boot` is the time of its start in nanoseconds; now by default."""
        self.id = amphora_id
        self.boot = time.time_ns() if boot is None else boot
        self.sequence = 0
        self._key = key
        self._name = uuid.UUID(amphora_id).bytes
        self.serve(listeners, pools)

    def serve(self, listeners: Sequence[ListenerId], pools: Sequence[tuple[PoolId, Sequence[MemberId]]]) -> None:
        """From the next heartbeat on it serves these; its counters begin at nothing."""
        self._listeners, self._pools = tuple(listeners), tuple(pools)
        self.say()

    def say(self, *, connections: int = 0, errors: int = 0, down: Sequence[MemberId] = ()) -> None:
        """From the next heartbeat on every listener has carried so many connections, so many with errors, and these
        members are down."""
        stats = {"tx": connections * 900, "rx": connections * 300, "conns": 1, "totconns": connections, "ereq": errors}
        message = {
            "id": self.id,
            "seq": self.sequence,
            "listeners": {x: {"status": "OPEN", "stats": {**stats, "since": self.boot}} for x in self._listeners},
            "pools": {
                f"{pool}:{self._listeners[0]}": {
                    "status": "UP",
                    "members": {x: "DOWN" if x in down else "UP" for x in members},
                }
                for pool, members in self._pools
            },
            "ver": 2,
        }
        self._message = zlib.compress(json.dumps(message, separators=(",", ":")).encode())

    def datagram(self) -> bytes:
        self.sequence += 1
        signed = _HEADER.pack(b"FRH1", self._name, self.boot, self.sequence) + self._message
        return signed + hmac.digest(self._key, signed, "sha256")


class Crowd:
    """Sends for all that are not in `silent`, to the destinations in turn as agents do. `sent` counts datagrams."""

    def __init__(
        self, amphorae: Sequence[SimulatedAmphora], *destinations: tuple[str, int], interval: float = 1.0
    ) -> None:
        self.amphorae = list(amphorae)
        self.destinations = list(destinations)
        self.interval = interval
        self.silent: set[AmphoraId] = set()
        self.sent = 0

    async def run(self) -> None:
        """Send until cancelled. After a pause of this process the missed heartbeats are left out, as agents do."""
        family = socket.AF_INET6 if ":" in self.destinations[0][0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            begun, done = time.monotonic(), 0
            while True:
                due = int((time.monotonic() - begun) / self.interval * len(self.amphorae))
                if due - done > len(self.amphorae):
                    done = due - len(self.amphorae)
                for number in range(done, due):
                    self._send(sender, self.amphorae[number % len(self.amphorae)])
                done = due
                await asyncio.sleep(max(SHORTEST_PAUSE_S, self.interval / len(self.amphorae)))

    def _send(self, sender: socket.socket, amphora: SimulatedAmphora) -> None:
        if amphora.id in self.silent:
            return
        datagram = amphora.datagram()
        try:
            sender.sendto(datagram, self.destinations[amphora.sequence % len(self.destinations)])
        except (BlockingIOError, ConnectionRefusedError):
            return  # the buffer is full, or an ICMP answer to one before: lost, as datagrams may be
        self.sent += 1
