"""What each agent is tried with, in this order, by today's driver: real traffic through what it runs.

A trial gives a few words on how it went, or raises. Run as a program in a machine of its own (tests/octavia/genuine.py,
`run`) it tries one agent and prints what came of it as JSON. Next: report.py."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.interface import Applied, Refused
from frontinus.model.certificates import NO_SECRETS, Certificate, Secrets
from frontinus.model.enums import ListenerProtocol
from frontinus.model.errors import Incompatible, Retry
from frontinus.model.heartbeat import Heartbeat
from frontinus.testing.certificates import TestAuthority

from tests.compatibility.subjects import OCTAVIA, PAST, TODAY, Genuine, Ours, Subject, source_of
from tests.integration.drivers.world import Member, ask, until
from tests.unit.drivers.trees import a_listener, a_member, a_pool, a_tree, number

HTTP, SECOND, TLS = 8080, 8081, 8443
REFERENCE = "local:certificate"

REPLACED = "not carried: the amphora is replaced"
"""How a trial goes that asks for what the agent cannot do: the driver says so, and the controller replaces the amphora."""


class Trials:
    """Of one subject; what one trial leaves, the next finds."""

    def __init__(self, subject: Subject) -> None:
        self.of = subject
        self.members: list[Member] = []
        self.listeners = [a_listener(port=HTTP)]
        self.secrets = NO_SECRETS
        self.failed = 0
        self.asked = 0

    async def info(self) -> str:
        found = []

        async def answers() -> bool:
            try:
                found.append(await self.of.driver.info(self.of.amphora, self.tree()))
            except Retry:
                return False
            return True

        await until(answers, within=30)
        (told,) = found
        extension = "plain protocol" if told.extension is None else f"extension {told.extension}"
        return f"{extension}, HAProxy {told.balancer_version.split('-')[0]}"

    async def plug(self) -> str:
        if not self.of.amphora.ports:
            return "addresses are there"
        names = await self.of.driver.plug(self.of.amphora, self.tree())
        return ", ".join(sorted(names.values()))

    async def create(self) -> str:
        await self.member("one")
        applied = await self.apply()
        await self.until_answered({"one"})
        return applied.action

    async def member_change(self) -> str:
        await self.member("two")
        applied = await self.under_load(self.apply)
        await self.until_answered({"one", "two"})
        return f"{applied.action}, {self.failed} of {self.asked} requests failed"

    async def unchanged(self) -> str:
        applied = await self.apply()
        assert applied.action == "unchanged", applied
        return "nothing is done"

    async def reload(self) -> str:
        self.listeners.append(a_listener(11, port=SECOND))
        applied = await self.under_load(self.apply)
        assert await ask(SECOND, address=self.of.vip) in ("one", "two")
        return f"{applied.action}, {self.failed} of {self.asked} requests failed"

    async def certificate(self) -> str:
        authority = TestAuthority()
        protocol = ListenerProtocol.TERMINATED_HTTPS
        self.listeners.append(a_listener(12, protocol, TLS, default_tls_container_ref=REFERENCE))
        actions = []
        for _ in range(2):
            wanted = authority.issue("www.example.org")
            self.secrets = Secrets(certificates={REFERENCE: wanted})
            try:
                actions.append((await self.apply()).action)
            except Incompatible:
                self.listeners.pop()
                return REPLACED
            await until(lambda wanted=wanted: self.serves(wanted))
        return f"{actions[0]}; replaced: {actions[1]}"

    async def heartbeat(self) -> str:
        heard = await self.heard(lambda beat: len(beat.listeners) == len(self.listeners))
        statuses = {x.status for x in heard.listeners.values()}
        assert statuses == {"OPEN"}, statuses
        assert set(next(iter(heard.pools.values())).members) == {number(30), number(31)}
        if heard.boot is not None:
            return "envelope"
        strict = HaproxyDriver(type(self.of.driver._settings)(state_dir=self.of.driver._settings.state_dir))
        try:
            strict.decode(self.last, datetime.now(UTC))
        except Refused:
            return "plain; refused where it is not allowed"
        raise AssertionError("a plain datagram was taken by a driver that takes none")

    async def statistics(self) -> str:
        for _ in range(3):
            await ask(HTTP, address=self.of.vip)
        counted = 0

        def some(beat: Heartbeat) -> bool:
            nonlocal counted
            told = beat.listeners[self.listeners[0].id].counters.total_connections
            counted = counted + told if beat.incremental else told
            return counted > 0

        return "as differences" if (await self.heard(some)).incremental else "as counters"

    async def renewal(self) -> str:
        before = await self.agents_certificate()
        await self.of.driver.renew_identity(self.of.amphora)

        async def another() -> bool:
            return await self.agents_certificate() != before

        await until(another)
        await self.of.driver.info(self.of.amphora, self.tree())
        return "served at once"

    async def delete(self) -> str:
        await self.of.driver.retire(self.of.amphora, self.tree())

        async def nobody_listens() -> bool:
            try:
                await ask(HTTP, address=self.of.vip, within=1)
            except OSError:
                return True
            return False

        await until(nobody_listens)
        return "nothing listens"

    def tree(self) -> Any:
        members = [a_member(30 + at, address=self.of.members, port=each.port) for at, each in enumerate(self.members)]
        return a_tree(self.of.load_balancer, listeners=self.listeners, pools=[a_pool()], members=members)

    async def member(self, name: str) -> None:
        self.members.append(await Member(name, self.of.members).start())

    async def apply(self) -> Applied:
        tree = self.tree()
        return await self.of.driver.apply(
            self.of.amphora, tree, self.of.driver.render(tree, self.of.amphora, self.secrets)
        )

    async def under_load(self, work: Callable[[], Awaitable[Applied]]) -> Applied:
        """Do it while requests come one after the other, each on a connection of its own; none may fail."""
        self.asked = self.failed = 0
        going = True

        async def client() -> None:
            while going:
                self.asked += 1
                try:
                    answer = await ask(HTTP, address=self.of.vip)
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    answer = ""
                self.failed += answer not in {"one", "two"}

        clients = [asyncio.create_task(client()) for _ in range(2)]
        try:
            return await work()
        finally:
            await asyncio.sleep(0.5)
            going = False
            await asyncio.gather(*clients)

    async def until_answered(self, names: set[str]) -> None:
        seen: set[str] = set()

        async def all_of_them() -> bool:
            try:
                seen.add(await ask(HTTP, address=self.of.vip))
            except OSError:
                return False
            return names <= seen

        await until(all_of_them)

    async def serves(self, wanted: Certificate) -> bool:
        shown = await peer_certificate(self.of.vip, TLS, None)
        return shown == x509.load_pem_x509_certificate(wanted.certificate)

    async def agents_certificate(self) -> x509.Certificate:
        driver, address = self.of.driver, self.of.amphora.management_address
        assert address is not None
        return await peer_certificate(
            address, driver._settings.agent_port, driver._authority.client_pem("frontinus-controller")
        )

    async def heard(self, wanted: Callable[[Heartbeat], bool]) -> Heartbeat:
        """The first heartbeat that is so."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            while True:
                self.last = await loop.sock_recv(self.of.heartbeats, 65_536)
                beat = self.of.driver.decode(self.last, datetime.now(UTC))
                if wanted(beat):
                    return beat


async def peer_certificate(address: str, port: int, own: Path | None) -> x509.Certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if own is not None:
        context.load_cert_chain(own)
    _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname="www.example.org")
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(shown)


TRIALS = {
    "info": "asked who it is",
    "plug": "plugged into its networks",
    "create": "first configuration, to traffic",
    "member_change": "a member added, under load",
    "unchanged": "the same pushed again",
    "reload": "a listener added, under load",
    "certificate": "TLS, and its certificate replaced",
    "heartbeat": "heartbeat taken",
    "statistics": "traffic counted",
    "renewal": "its own certificate renewed",
    "delete": "load balancer deleted",
}


async def examine(subject: Subject) -> dict[str, dict[str, str]]:
    """What came of each trial: `how` if it went well, else `failed`. One that fails is followed by the others."""
    trials = Trials(subject)
    told: dict[str, dict[str, str]] = {}
    try:
        for name in TRIALS:
            try:
                told[name] = {"how": await getattr(trials, name)()}
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
                told[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
                print(f"{subject.name}: {name}: {told[name]['failed']}\n{subject.log()}", file=sys.stderr)  # noqa: T201
                if name == "info":
                    break  # nobody answers
    finally:
        for member in trials.members:
            await member.stop()
        await subject.close()
    return told


async def main(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="compatibility-") as made:
        directory = Path(made)
        if name == OCTAVIA:
            subject: Subject = Genuine(directory)
        elif name == TODAY:
            subject = Ours(name, directory)
        else:
            past = next(x for x in PAST if x.name == name)
            (directory / "source").mkdir()
            subject = Ours(name, directory, source_of(past, directory / "source"))
        print(json.dumps(await examine(subject)))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
