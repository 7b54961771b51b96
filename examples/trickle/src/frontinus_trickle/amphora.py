"""The amphora's side: swaps configurations, balances TCP, reports. `python -m frontinus_trickle.amphora --config FILE`.

As dumb as possible: knows nothing of tenants and templates, and keeps nothing that a push cannot give back. The last
configuration lies in a file, so that whoever starts it again has its traffic back before a controller notices. The standard
library only: this side runs where Frontinus is not installed."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import itertools
import json
import secrets
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from frontinus_trickle import __version__, wire

PROTOCOL = 1
PIECE = 65_536
QUESTION_S = 10.0

Bind = tuple[str, int]


@dataclass
class Tally:
    """What a listener has done; the counters only grow while this process lives."""

    since: int = field(default_factory=time.time_ns)
    bytes_in: int = 0
    bytes_out: int = 0
    active: int = 0
    total: int = 0
    errors: int = 0


@dataclass
class MemberState:
    """How a member is, as its checks found it, and what it carries."""

    up: bool = True
    streak: int = 0
    active: int = 0
    credit: float = 0.0


class BindsRefused(Exception):
    def __init__(self, binds: list[dict[str, Any]]) -> None:
        super().__init__(str(binds))
        self.binds = binds


class Balancer:
    """What listens and balances. One owner: the event loop."""

    def __init__(self) -> None:
        self.digest: str | None = None
        self.listeners: dict[Bind, dict[str, Any]] = {}
        self.pools: dict[str, dict[str, Any]] = {}
        self.tallies: dict[str, Tally] = {}
        self.members: dict[str, MemberState] = {}
        self._servers: dict[Bind, asyncio.Server] = {}
        self._checks: dict[str, tuple[dict[str, Any], asyncio.Task[None]]] = {}
        self._connections: set[asyncio.Task[Any]] = set()

    async def swap(self, document: dict[str, Any], digest: str) -> None:
        """Balance by another document. Raises BindsRefused with nothing changed. Connections that are open go on."""
        wanted: dict[Bind, dict[str, Any]] = {(x["address"], x["port"]): x for x in document["listeners"]}
        opened = self._open(wanted)
        for bind, sock in opened.items():
            self._servers[bind] = await asyncio.start_server(self._serving(bind), sock=sock)
        self.listeners, self.pools, self.digest = wanted, document["pools"], digest
        for bind in [x for x in self._servers if x not in wanted]:
            self._servers.pop(bind).close()
        listener_ids = {x["id"] for x in wanted.values()}
        self.tallies = {x: self.tallies.get(x) or Tally() for x in listener_ids}
        member_ids = {member["id"] for pool in self.pools.values() for member in pool["members"]}
        self.members = {x: self.members.get(x) or MemberState() for x in member_ids}
        self._look_after()

    def stop(self) -> None:
        """Balance nothing, and end what is open."""
        for server in self._servers.values():
            server.close()
        for task in self._connections:
            task.cancel()
        self._servers.clear()
        self.listeners, self.pools, self.tallies, self.members, self.digest = {}, {}, {}, {}, None
        self._look_after()

    def _open(self, wanted: dict[Bind, dict[str, Any]]) -> dict[Bind, socket.socket]:
        opened: dict[Bind, socket.socket] = {}
        refused = []
        for bind, listener in wanted.items():
            if bind in self._servers:
                continue
            try:
                opened[bind] = _listening(bind)
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0, "EINVAL")
                refused.append({"listener_id": listener["id"], "address": bind[0], "port": bind[1], "errno": name})
        if refused:
            for sock in opened.values():
                sock.close()
            raise BindsRefused(refused)
        return opened

    # Connections

    def _serving(self, bind: Bind) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            try:
                await self._serve(bind, reader, writer)
            except asyncio.CancelledError:
                writer.transport.abort()
            finally:
                self._connections.discard(task)
                writer.close()

        return serve

    async def _serve(self, bind: Bind, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener = self.listeners.get(bind)
        tally = None if listener is None else self.tallies.get(listener["id"])
        if listener is None or tally is None:
            return
        client = writer.get_extra_info("peername")[0]
        if listener["limit"] is not None and tally.active >= listener["limit"]:
            tally.errors += 1
            return
        if not _may_come(client, listener["allowed_cidrs"]):
            tally.errors += 1
            return
        tally.active += 1
        tally.total += 1
        try:
            await self._carry(listener, tally, client, reader, writer)
        finally:
            tally.active -= 1

    async def _carry(
        self,
        listener: dict[str, Any],
        tally: Tally,
        client: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        tried: set[str] = set()
        while (member := self._choose(listener["pool"], client, tried)) is not None:
            tried.add(member["id"])
            state = self.members[member["id"]]
            try:
                async with asyncio.timeout(listener["connect_timeout_ms"] / 1000):
                    far_reader, far_writer = await asyncio.open_connection(member["address"], member["port"])
            except (OSError, TimeoutError):
                continue
            state.active += 1
            try:

                def came(count: int) -> None:
                    tally.bytes_in += count

                def went(count: int) -> None:
                    tally.bytes_out += count

                await asyncio.gather(
                    _copy(reader, far_writer, listener["client_timeout_ms"] / 1000, came),
                    _copy(far_reader, writer, listener["member_timeout_ms"] / 1000, went),
                )
            finally:
                state.active -= 1
                far_writer.close()
            return
        tally.errors += 1

    def _choose(self, pool_id: str | None, client: str, tried: set[str]) -> dict[str, Any] | None:
        pool = self.pools.get(pool_id or "")
        if pool is None:
            return None
        able = [x for x in pool["members"] if x["weight"] > 0 and x["id"] not in tried and self.members[x["id"]].up]
        if not able:
            return None
        if pool["algorithm"] == "LEAST_CONNECTIONS":
            return min(able, key=lambda x: (self.members[x["id"]].active + 1) / x["weight"])
        if pool["algorithm"] == "SOURCE_IP":
            # The highest score wins: a member that comes or goes moves only its own clients.
            return max(able, key=lambda x: _score(client, x))
        # Smooth weighted turns: each gains its weight, who has most is chosen and pays for all.
        for each in able:
            self.members[each["id"]].credit += each["weight"]
        chosen = max(able, key=lambda x: self.members[x["id"]].credit)
        self.members[chosen["id"]].credit -= sum(x["weight"] for x in able)
        return chosen

    # Checks

    def _look_after(self) -> None:
        """One task for each pool with a monitor; one that is as before goes on."""
        for pool_id, (pool, task) in list(self._checks.items()):
            if self.pools.get(pool_id) != pool:
                task.cancel()
                del self._checks[pool_id]
        for pool_id, pool in self.pools.items():
            if pool["monitor"] is None:
                for member in pool["members"]:
                    self.members[member["id"]].up = True
            elif pool_id not in self._checks:
                self._checks[pool_id] = (pool, asyncio.create_task(self._check(pool)))

    async def _check(self, pool: dict[str, Any]) -> None:
        while True:
            await asyncio.gather(*(self._check_member(x, pool["monitor"]) for x in pool["members"]))
            await asyncio.sleep(pool["monitor"]["delay_s"])

    async def _check_member(self, member: dict[str, Any], monitor: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(monitor["timeout_s"]):
                _, writer = await asyncio.open_connection(member["address"], member["port"])
            writer.close()
            well = True
        except (OSError, TimeoutError):
            well = False
        state = self.members.get(member["id"])
        if state is None:
            return
        state.streak = 0 if well == state.up else state.streak + 1
        if state.streak >= (monitor["rise"] if well else monitor["fall"]):
            state.up, state.streak = well, 0

    # Reports

    def report(self) -> bytes:
        """The body of a heartbeat."""
        listeners = {}
        for listener in self.listeners.values():
            tally = self.tallies[listener["id"]]
            full = listener["limit"] is not None and tally.active >= listener["limit"]
            listeners[listener["id"]] = {"status": "FULL" if full else "OPEN", **vars(tally)}
        pools = {}
        for pool_id, pool in self.pools.items():
            words = {x["id"]: self._word(pool, x) for x in pool["members"]}
            down = bool(words) and all(word == "DOWN" for word in words.values())
            pools[pool_id] = {"status": "DOWN" if down else "UP", "members": words}
        return json.dumps({"listeners": listeners, "pools": pools}, separators=(",", ":")).encode()

    def _word(self, pool: dict[str, Any], member: dict[str, Any]) -> str:
        if member["weight"] == 0:
            return "DRAIN"
        if pool["monitor"] is None:
            return "no check"
        return "UP" if self.members[member["id"]].up else "DOWN"


def _listening(bind: Bind) -> socket.socket:
    address, port = bind
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(1_024)
    except OSError:
        sock.close()
        raise
    return sock


def _may_come(client: str, cidrs: list[str]) -> bool:
    return not cidrs or any(ipaddress.ip_address(client) in ipaddress.ip_network(x, strict=False) for x in cidrs)


def _score(client: str, member: dict[str, Any]) -> float:
    chance = int.from_bytes(sha256(f"{client} {member['id']}".encode()).digest()[:8]) / 2**64
    return float(chance ** (1 / member["weight"]))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle_s: float, count: Any) -> None:
    """Until one side is done, broken, or silent for too long; then the other is told that nothing more comes."""
    with suppress(OSError, TimeoutError):
        while piece := await asyncio.wait_for(reader.read(PIECE), idle_s):
            writer.write(piece)
            await writer.drain()
            count(len(piece))
        writer.write_eof()
        return
    writer.transport.abort()


class Agent:
    """Answers the driver, and beats."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._key = bytes.fromhex(settings["key"])
        self._kept = Path(settings["directory"]) / "balanced.json"
        self._balancer = Balancer()
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Until SIGTERM."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await self._take_up()
        server = await asyncio.start_server(
            self._answer, self._settings["host"], self._settings["port"], limit=wire.LARGEST_LINE
        )
        beating = asyncio.create_task(self._beat())
        print("listening", self._settings["host"], self._settings["port"], flush=True)
        await stop.wait()
        beating.cancel()
        server.close()

    async def _take_up(self) -> None:
        with suppress(OSError, ValueError, KeyError, BindsRefused):  # a push brings whatever is missing
            text = self._kept.read_text()
            await self._balancer.swap(json.loads(text), sha256(text.encode()).hexdigest())

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonce = secrets.token_hex(16)
        try:
            writer.write(f"{nonce}\n".encode())
            async with asyncio.timeout(QUESTION_S):
                question = wire.opened(self._key, nonce, "question", await reader.readuntil())
            async with self._turn:
                answer = await self._do(question)
            told = {"protocol": PROTOCOL, "version": __version__, **answer}
            writer.write(wire.sealed(self._key, nonce, "answer", told))
            await writer.drain()
        except (OSError, TimeoutError, EOFError, ValueError, wire.Forged) as error:
            print("refused", type(error).__name__, error, flush=True)
        finally:
            writer.close()

    async def _do(self, question: dict[str, Any]) -> dict[str, Any]:
        match question["verb"]:
            case "apply":
                return await self._apply(question["text"], question["digest"])
            case "retire":
                self._kept.unlink(missing_ok=True)
                self._balancer.stop()
                return {}
            case _:
                running = bool(self._balancer.listeners)
                return {"running": running, "digest": self._balancer.digest}

    async def _apply(self, text: str, digest: str) -> dict[str, Any]:
        before = bool(self._balancer.listeners)
        if self._balancer.digest == digest:
            return {"action": "unchanged"}
        if sha256(text.encode()).hexdigest() != digest:
            return {"rejected": "the digest is not the text's"}
        document = json.loads(text)
        try:
            await self._balancer.swap(document, digest)
        except BindsRefused as refused:
            return {"refused_binds": refused.binds}
        scratch = self._kept.with_suffix(".new")
        scratch.write_text(text)
        scratch.replace(self._kept)
        after = bool(self._balancer.listeners)
        words = {(False, True): "start", (True, True): "runtime", (True, False): "stop"}
        return {"action": words.get((before, after), "unchanged")}

    async def _beat(self) -> None:
        destinations = itertools.cycle(self._settings["heartbeat_destinations"] or [""])
        boot = time.time_ns()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for sequence in itertools.count():
                host, _, port = next(destinations).rpartition(":")
                if host:
                    amphora_id = self._settings["amphora_id"]
                    datagram = wire.beat(self._key, amphora_id, boot, sequence, self._balancer.report())
                    with suppress(OSError):  # whoever should hear it is away; the next one may arrive
                        sock.sendto(datagram, (host, int(port)))
                await asyncio.sleep(self._settings["heartbeat_interval"])


def main(words: list[str]) -> int:
    """Run the agent of a configuration file until a signal."""
    if len(words) != 2 or words[0] != "--config":
        print("usage: python -m frontinus_trickle.amphora --config FILE", file=sys.stderr)
        return 2

    async def run() -> None:
        await Agent(json.loads(Path(words[1]).read_text())).run()

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
