"""Where cases are played: one installation, an event loop in a thread, servers for members, a load balancer per group.

`Theatre` holds what all share and makes the load balancer of a group in one call; `Stage` is what one proof sees."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.acceptance.support import Api, Installation
from tests.acceptance.traffic.case import Case, Fields, Group, Secret, TlsServer
from tests.acceptance.traffic.elsewhere import Refusal
from tests.acceptance.traffic.secrets import Secrets
from tests.integration.drivers import datagrams, world
from tests.integration.drivers.balancer import Client
from tests.integration.drivers.datagrams import DatagramMember
from tests.integration.drivers.tls_world import Caller, tls_member
from tests.integration.drivers.world import CLIENTS, MEMBERS, Member, serving, until

FIRST_PORT = 21_000
"""Below what the kernel gives away by itself; each load balancer has an address of its own."""

NAMES = ("one", "two", "three")


class Stage:
    """What a proof sees of its case: where clients ask, what the servers got, and the API's objects."""

    def __init__(self, theatre: Theatre, case: Case) -> None:
        self.theatre = theatre
        self.case = case
        self.expect = case.expect
        self.secrets = theatre.secrets
        self.servers: list[Any] = []
        self.members: list[Fields] = []
        self.address = self.load_balancer_id = ""
        self.port = 0
        self.listener: Fields = {}
        self.pool: Fields = {}

    # -------------------------------------------------------------- what is created

    async def open(self, stack: contextlib.AsyncExitStack) -> None:
        """Start the servers; the attributes of each member are known after that."""
        for number, (fields, server) in enumerate(zip(self.case.members, self.case.servers, strict=True)):
            name = NAMES[number]
            member = {"name": name, "address": MEMBERS, **fields}
            match server:
                case "http" | "http6":
                    started = await Member(name, "::1" if server == "http6" else MEMBERS).start()
                    stack.push_async_callback(started.stop)
                    self.servers.append(started)
                    member |= {"address": started.address, "protocol_port": started.port}
                case "udp":
                    datagram_member = await DatagramMember(name).start()
                    stack.callback(datagram_member.stop)
                    self.servers.append(datagram_member)
                    member["protocol_port"] = datagram_member.port
                case TlsServer():
                    directory = self.theatre.directory_of(f"member-{id(self)}-{number}")
                    (directory / "clients.pem").write_bytes(self.secrets.clients_pem)
                    bind = server.bind.format(directory=directory)
                    certificate = self.secrets.certificates[server.certificate]
                    # It waits without giving way, some milliseconds, before anything is measured.
                    member["protocol_port"] = stack.enter_context(tls_member(directory, certificate, bind))
                    self.servers.append(None)
                case _:
                    member["protocol_port"] = await stack.enter_async_context(serving(server))
                    self.servers.append(None)
            self.members.append({**member, **fields})

    def wish(self, port: int) -> Fields:
        """The case's listener as a part of the one call."""
        self.port = port
        assert self.case.listener is not None
        wished = {"name": f"case {port}", "protocol_port": port, **self.case.listener}
        if self.case.pool is not None:
            pool = {"name": f"case {port}", "lb_algorithm": "ROUND_ROBIN", **self.case.pool, "members": self.members}
            if self.case.monitor is not None:
                pool["healthmonitor"] = self.monitor_fields(self.case.monitor)
            wished["default_pool"] = pool
        if self.case.policies:
            wished["l7policies"] = list(self.case.policies)
        resolved: Fields = self.resolve(wished)
        return resolved

    def monitor_fields(self, fields: Fields) -> Fields:
        """With the shortest of everything that is not said. A delay of 0 is a tenth of a second."""
        return {"delay": 0, "timeout": 1, "max_retries": 1, "max_retries_down": 1, **fields}

    def resolve(self, value: Any) -> Any:
        """The same with references in place of secrets, and ports of servers in place of their numbers."""
        match value:
            case Secret(name):
                return self.secrets.references[name]
            case PortOf(number):
                return self.servers[number].port
            case dict():
                return {key: self.resolve(each) for key, each in value.items()}
            case list() | tuple():
                return [self.resolve(each) for each in value]
            case _:
                return value

    def made(self, load_balancer: Fields) -> None:
        """The load balancer is there: find what belongs to this case."""
        self.address, self.load_balancer_id = load_balancer["vip_address"], load_balancer["id"]
        if self.case.listener is not None:
            name = f"case {self.port}"
            self.listener = next(x for x in load_balancer["listeners"] if x["name"] == name)
            self.pool = next((x for x in load_balancer["pools"] if x["name"] == name), {})

    # -------------------------------------------------------------- clients

    async def ask(self, **fields: Any) -> str:
        """One request; the member's name, the status where that is not 200, or "refused"."""
        try:
            return await world.ask(self.port, **{"address": self.address, **fields})
        except (ConnectionError, EOFError, TimeoutError):
            return "refused"

    async def ask_from(self, host: int, **fields: Any) -> str:
        return await self.ask(source=CLIENTS.format(host), **fields)

    async def spread(self, count: int) -> Counter[str]:
        return Counter([await self.ask() for _ in range(count)])

    async def becomes(self, *names: str) -> None:
        """Wait until these serve, and no other: a turn more than they are."""

        async def is_so() -> bool:
            return set(await self.spread(2 * len(names))) == set(names)

        await until(is_so, 20)

    async def request(self, *lines: str, path: str = "/", method: str = "GET", source: int | None = None) -> Answer:
        """One request with these header lines; all of the answer."""
        local = None if source is None else (CLIENTS.format(source), 0)
        reader, writer = await asyncio.open_connection(self.address, self.port, local_addr=local)
        named = [] if any(x.lower().startswith("host:") for x in lines) else ["Host: www.example.org"]
        head = [f"{method} {path} HTTP/1.1", *named, *lines, "Connection: close", "", ""]
        writer.write("\r\n".join(head).encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        await world.closed(writer)
        return Answer(answer)

    async def datagram(self, **fields: Any) -> str:
        return await datagrams.ask(self.port, **{"address": self.address, **fields})

    async def datagrams(self, count: int) -> Counter[str]:
        return await datagrams.spread(self.port, count, self.address)

    def caller(self, **fields: Any) -> Caller:
        """A client that speaks TLS."""
        return Caller(self.port, address=self.address, **fields)

    def client(self) -> Client:
        return Client(self.port, self.address)

    # -------------------------------------------------------------- the API

    async def call(self, method: str, path: str, key: str, fields: Fields) -> tuple[int, Any]:
        body = {key: self.resolve(fields)}
        return await asyncio.to_thread(self.theatre.api.call, method, f"/v2/lbaas/{path}", body)

    async def create(self, collection: str, key: str, **fields: Any) -> Fields:
        """Made and pushed."""
        created = await self.create_offer(collection, key, **fields)
        await self.settled(created["id"] if key == "loadbalancer" else self.load_balancer_id)
        return created

    async def create_offer(self, collection: str, key: str, **fields: Any) -> Fields:
        """Of an administrator: nothing is pushed for it."""
        status, body = await self.call("POST", collection, key, fields)
        assert status == 201, (status, body)
        offered: Fields = body[key]
        return offered

    async def change(self, path: str, key: str, **fields: Any) -> None:
        status, body = await self.call("PUT", path, key, fields)
        assert status == 200, (status, body)
        await self.settled()

    async def change_listener(self, **fields: Any) -> None:
        await self.change(f"listeners/{self.listener['id']}", "listener", **fields)

    async def change_pool(self, **fields: Any) -> None:
        await self.change(f"pools/{self.pool['id']}", "pool", **fields)

    async def change_member(self, number: int, **fields: Any) -> None:
        await self.change(f"pools/{self.pool['id']}/members/{self.member_id(number)}", "member", **fields)

    async def change_monitor(self, **fields: Any) -> None:
        await self.change(f"healthmonitors/{self.pool['healthmonitor']['id']}", "healthmonitor", **fields)

    def member_id(self, number: int) -> str:
        return str(next(x["id"] for x in self.pool["members"] if x["name"] == NAMES[number]))

    async def settled(self, load_balancer_id: str = "") -> Fields:
        """Raises AssertionError when it is not ACTIVE then."""
        wanted = load_balancer_id or self.load_balancer_id
        shown: Fields = await asyncio.to_thread(self.theatre.api.settled, wanted, 60)
        assert shown["provisioning_status"] == "ACTIVE", shown
        return shown

    async def member_statuses(self) -> dict[str, str]:
        """Operating status by the member's name."""
        path = f"/v2/lbaas/pools/{self.pool['id']}/members"
        status, body = await asyncio.to_thread(self.theatre.api.get, path)
        assert status == 200, body
        return {x["name"]: x["operating_status"] for x in body["members"]}

    async def statuses_become(self, **statuses: str) -> None:
        async def is_so() -> bool:
            return await self.member_statuses() == statuses

        await until(is_so, 30)


class PortOf:
    """Stands in a tree for the port of a server of the case, by its number."""

    __match_args__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Answer:
    """Status, headers and body of an answer."""

    def __init__(self, received: bytes) -> None:
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1]) if first else 0
        self.lines = lines
        self.body = body.decode()

    def header(self, name: str) -> list[str]:
        pairs = (line.partition(":") for line in self.lines)
        return [value.strip() for key, _, value in pairs if key.lower() == name.lower()]


def headers_of(request: bytes, name: str) -> list[str]:
    """The values of one header, as a member got them."""
    pairs = (line.partition(":") for line in request.decode("latin-1").split("\r\n")[1:])
    return [value.strip() for key, _, value in pairs if key.lower() == name.lower()]


class Theatre:
    """One installation for all cases, and the loop in which their servers live."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.installation = Installation(
            directory / "state",
            f'[driver_options.process]\nbalancer = "{world.HAPROXY}"\n'
            f'[driver_options.haproxy]\nhaproxy_command = "{world.HAPROXY}"\n',
        )
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._stack = contextlib.AsyncExitStack()
        self._stages: dict[str, dict[str, Stage]] = {}

    def directory_of(self, name: str) -> Path:
        path = self._directory / name
        path.mkdir()
        return path

    @contextlib.contextmanager
    def opened(self) -> Iterator[Theatre]:
        self._thread.start()
        self.installation.start()
        try:
            self.api: Api = self.installation.api()
            self.secrets = Secrets(self.installation.state_dir)
            yield self
        finally:
            # Amphorae first: while they check their members, connections come in.
            try:
                self.installation.remove()
            finally:
                self.run(self._end)
                self.loop.call_soon_threadsafe(self.loop.stop)
                self._thread.join()
                self.loop.close()

    def run(self, work: Callable[[], Awaitable[None]], within: float = 110) -> None:
        async def in_loop() -> None:
            async with asyncio.timeout(within):
                await work()

        asyncio.run_coroutine_threadsafe(in_loop(), self.loop).result()

    async def _end(self) -> None:
        """Stop the servers, and wait for what still runs: each conversation ends with its client."""
        await self._stack.aclose()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*left, return_exceptions=True)

    def stage(self, group: Group, case: Case, wanted: Sequence[Case]) -> Stage:
        """The case's stage. The first time, the group's load balancer is made for all that are wanted."""
        if group.name not in self._stages:
            stages = {each.name: Stage(self, each) for each in wanted}
            self._stages[group.name] = {}
            self.run(lambda: self._make(group, list(stages.values())))
            self._stages[group.name] = stages
        assert self._stages[group.name], f"the load balancer of the group {group.name} could not be made"
        return self._stages[group.name][case.name]

    def refused(self, refusal: Refusal) -> tuple[int, Any]:
        """The answer to the create that is refused, on a load balancer of its own that serves nobody."""
        subnet = {"vip_subnet_id": self.api.subnet_id()}
        certificate = {"default_tls_container_ref": self.secrets.references["site"]}
        balanced = {"lb_algorithm": "ROUND_ROBIN"}
        if refusal.collection == "loadbalancers":
            port = refusal.fields.get("vip_port_id")
            return self._create("loadbalancers", {**({} if port else subnet), **refusal.fields})
        load_balancer = self.api.create("loadbalancers", "loadbalancer", **subnet)
        below = {"loadbalancer_id": load_balancer["id"]}
        if refusal.collection == "listeners":
            is_tls = refusal.fields["protocol"] == "TERMINATED_HTTPS"
            return self._create("listeners", {**below, **(certificate if is_tls else {}), **refusal.fields})
        if refusal.collection == "pools":
            return self._create("pools", {**below, **balanced, **refusal.fields})
        pool = self.api.create("pools", "pool", **below, **balanced, protocol=refusal.pool)
        if refusal.collection == "members":
            return self._create(f"pools/{pool['id']}/members", refusal.fields)
        monitor = {"pool_id": pool["id"], "delay": 5, "timeout": 1, "max_retries": 1}
        return self._create("healthmonitors", {**monitor, **refusal.fields})

    def _create(self, collection: str, fields: Fields) -> tuple[int, Any]:
        return self.api.call("POST", f"/v2/lbaas/{collection}", {collection.rpartition("/")[2][:-1]: fields})

    async def _make(self, group: Group, stages: Sequence[Stage]) -> None:
        for stage in stages:
            await stage.open(self._stack)
        listening = [stage for stage in stages if stage.case.listener is not None]
        wishes = [stage.wish(FIRST_PORT + number) for number, stage in enumerate(listening)]
        if not stages:
            return
        created = await stages[0].create(
            "loadbalancers",
            "loadbalancer",
            name=group.name,
            **{"vip_subnet_id": await asyncio.to_thread(self.api.subnet_id), **group.load_balancer},
            listeners=wishes,
        )
        for number, stage in enumerate(stages):
            if stage.case.listener is None:
                stage.port = FIRST_PORT + len(listening) + number
            stage.made(created)
