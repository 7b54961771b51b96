"""A real Octavia's database and a genuine amphora that its own driver has configured: taken over while a client asks without
end. In a machine of its own (test_adoption.py)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from frontinus.main import Installation
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.tree import LoadBalancerTree
from frontinus.settings import load
from frontinus.store import trees

from tests.integration.drivers.world import Member, ask, until
from tests.octavia import genuine
from tests.servers import Mariadb

VIP, PORT, KEY = f"{genuine.VIPS}.200", 8080, "octavia's heartbeat key"
PASSPHRASE = "a passphrase"
HERE = Path(__file__).parent

OCTAVIA_CONF = """[DEFAULT]
debug = False

[database]
connection = {connection}

[health_manager]
heartbeat_key = {key}
controller_ip_port_list = {management}.1:5555

[certificates]
cert_generator = local_cert_generator
cert_manager = local_cert_manager
ca_certificate = {pki}/server_ca.cert.pem
ca_private_key = {pki}/server_ca.key.pem
ca_private_key_passphrase = {passphrase}
server_certs_key_passphrase = insecure-key-do-not-use-this-key

[haproxy_amphora]
client_cert = {pki}/client.cert-and-key.pem
server_ca = {pki}/server_ca.cert.pem
connection_max_retries = 20
connection_retry_interval = 1

[controller_worker]
client_ca = {pki}/client_ca.cert.pem
"""

FRONTINUS_TOML = """state_dir = "{state}"

[drivers]
amphora = "haproxy"
compute = "noop"
network = "noop"

[api]
bind_port = 0

[health]
bind_host = "{management}.1"

[driver_options.haproxy]
{plain}
"""
PLAIN = f'accept_plain = true\nplain_heartbeat_key = "{KEY}"'


class Octavia:
    """Its database, its authorities, its configuration; and its amphorae that serve: one, or a pair."""

    def __init__(self, directory: Path, members: list[Member], rows: str = "rows") -> None:
        self.directory = directory
        self.database = Mariadb()
        self.database.prepare()
        self.database.start()
        self.url = self.database.make_database("octavia").replace("mariadb://", "mysql+pymysql://")
        client_ca = make_pki(directory / "pki")
        self.config = directory / "octavia.conf"
        self.config.write_text(
            OCTAVIA_CONF.format(
                connection=self.url,
                key=KEY,
                management=genuine.MANAGEMENT,
                pki=directory / "pki",
                passphrase=PASSPHRASE,
            )
        )
        self.program("octavia-db-manage", "--config-file", str(self.config), "upgrade", "head")
        told = self.fill(rows, json.dumps([[x.name, x.port] for x in members]))
        self.made: dict[str, Any] = json.loads(told.splitlines()[-1])
        self.amphorae = [
            genuine.GenuineAmphora(
                AmphoraId(each["id"]),
                number,
                directory / f"amphora{number}",
                server=each["server"].encode(),
                client_ca=client_ca,
                key=KEY,
                receivers=f"{genuine.MANAGEMENT}.1:5555",
                topology="SINGLE" if rows == "rows" else "ACTIVE_STANDBY",
            )
            for number, each in enumerate(self.made["amphorae"], 1)
        ]
        self.amphora = self.amphorae[0]
        for amphora in self.amphorae:
            amphora.start()

    def push(self) -> None:
        """As its worker does when it creates a load balancer."""
        self.fill("push", json.dumps([x.id for x in self.amphorae]))

    def program(self, name: str, *words: str) -> str:
        done = subprocess.run(
            [genuine.installation() / "bin" / name, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4_000:]
        return done.stdout

    def fill(self, *words: str) -> str:
        return self.program("python", str(HERE / "stand_in/fill"), str(self.config), *words)

    def close(self) -> None:
        for amphora in self.amphorae:
            amphora.stop()
        self.database.remove()


def make_pki(directory: Path) -> bytes:
    """Octavia's two authorities, as its guide has them, and the client's certificate. Gives the client authority."""
    directory.mkdir()
    server_ca, server_key = _authority("server authority")
    client_ca, client_key = _authority("client authority")
    key = rsa.generate_private_key(65537, 2048)
    client = _sign("octavia", key, client_ca, client_key)
    pem = serialization.Encoding.PEM
    plain, encrypted = serialization.NoEncryption(), serialization.BestAvailableEncryption(PASSPHRASE.encode())
    kind = serialization.PrivateFormat.PKCS8
    (directory / "server_ca.cert.pem").write_bytes(server_ca.public_bytes(pem))
    (directory / "server_ca.key.pem").write_bytes(server_key.private_bytes(pem, kind, encrypted))
    (directory / "client_ca.cert.pem").write_bytes(client_ca.public_bytes(pem))
    (directory / "client.cert-and-key.pem").write_bytes(client.public_bytes(pem) + key.private_bytes(pem, kind, plain))
    return client_ca.public_bytes(pem)


def _authority(name: str) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    key = rsa.generate_private_key(65537, 2048)
    return _sign(name, key, None, key), key


def _sign(
    name: str, key: rsa.RSAPrivateKey, issuer: x509.Certificate | None, issuer_key: rsa.RSAPrivateKey
) -> x509.Certificate:
    now, subject = datetime.now(UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


@dataclass
class Clients:
    """Who ask without end, each request on a connection of its own."""

    answers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        going = True

        async def client() -> None:
            while going:
                try:
                    answer = await ask(PORT, address=VIP)
                except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                    answer = repr(error)
                self.answers[answer] = self.answers.get(answer, 0) + 1
                await asyncio.sleep(0.005)

        task = asyncio.create_task(client())
        try:
            yield
        finally:
            going = False
            await task


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)  # the database server is nobody
    return tmp_path


async def frontinus(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "frontinus.cli.main",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_an_octavia_is_taken_over_under_traffic(directory: Path) -> None:
    genuine.lay_networks()
    members = [await Member("one", f"{genuine.VIPS}.1").start(), await Member("two", f"{genuine.VIPS}.1").start()]
    octavia = await asyncio.to_thread(Octavia, directory, members[:1])
    clients = Clients()
    config, made = directory / "frontinus.toml", octavia.made
    state = directory / "state"
    config.write_text(FRONTINUS_TOML.format(state=state, management=genuine.MANAGEMENT, plain=""))
    command = (
        "adopt",
        "octavia",
        "--config",
        str(config),
        "--octavia-config",
        str(octavia.config),
        "--db",
        octavia.url,
    )
    try:
        await asyncio.to_thread(octavia.push)

        async def served() -> bool:
            try:
                return await ask(PORT, address=VIP) == "one"
            except OSError:
                return False

        await until(served, within=30)
        text = octavia.amphora.directory / "lib" / made["load_balancer"] / "haproxy.cfg"
        before = text.read_text()
        async with clients.asking():
            # Octavia still runs, and the heartbeats would be refused: told, and nothing done.
            await asyncio.to_thread(octavia.fill, "beat")
            status, told = await frontinus(*command, "--yes")
            assert status == 1, told
            assert "health manager noted a heartbeat" in told
            assert "heartbeats would be refused" in told
            for name, reason in {
                "busy": "PENDING_UPDATE",
                "foreign": "provider ovn",
                "bare": "its amphorae are not what SINGLE takes",
                "spare": "READY and of no load balancer",
            }.items():
                (line,) = [x for x in told.splitlines() if made["left"][name] in x]
                assert line.startswith("leave"), line
                assert reason in line, line
            assert not (state / "frontinus.sqlite").exists()

            config.write_text(FRONTINUS_TOML.format(state=state, management=genuine.MANAGEMENT, plain=PLAIN))
            octavia.database.query("UPDATE amphora_health SET last_update = '2020-01-01'", "octavia")
            status, told = await frontinus(*command)
            assert "Nothing was done" in told, told
            assert not (state / "frontinus.sqlite").exists()
            status, told = await frontinus(*command, "--yes")
            assert "Taken over: 1 load balancers. Here already: 0." in told, told
            status, told = await frontinus(*command, "--yes")
            assert "Taken over: 0 load balancers. Here already: 1." in told, told

            await live(config, octavia, members[1], before, text)
        assert set(clients.answers) == {"one", "two"}, clients.answers
    finally:
        print(octavia.amphora.log[-3_000:])  # noqa: T201 - shown when the test fails
        octavia.close()
        for member in members:
            await member.stop()


async def live(config: Path, octavia: Octavia, second: Member, before: str, text: Path) -> None:
    """Frontinus runs: it hears the amphora, leaves it alone, renews nothing, and carries the first change."""
    made = octavia.made
    installation = Installation(load(config))
    stop = asyncio.Event()
    running = asyncio.create_task(installation.run(stop))
    store = installation.store

    async def tree() -> LoadBalancerTree:
        found = await store.read(lambda tx: trees.read_tree(tx, LoadBalancerId(made["load_balancer"])))
        assert found is not None
        return found

    adopted = await tree()
    try:
        began = datetime.now(UTC)

        async def heard() -> bool:
            (amphora,) = (await tree()).amphorae
            return amphora.seen_at is not None and amphora.seen_at > began + timedelta(seconds=6)

        await until(heard, within=30)
        quiet = await tree()
        assert [x.id for x in quiet.amphorae] == [made["amphora"]]
        assert quiet.amphorae[0].suspected_at is None
        assert quiet.amphorae[0].identity_digest == adopted.amphorae[0].identity_digest
        assert text.read_text() == before  # whatever Octavia's driver wrote still runs
        assert (quiet.load_balancer.name, quiet.load_balancer.tags) == ("good", ("from-octavia",))

        pools = f"{installation.endpoint}/v2/lbaas/pools/{made['pool']}/members"
        async with aiohttp.ClientSession() as session:
            wanted = {"member": {"address": f"{genuine.VIPS}.1", "protocol_port": second.port, "name": "two"}}
            async with session.post(pools, json=wanted) as answer:
                assert answer.status == 201, await answer.text()

        async def settled() -> bool:
            return (await tree()).load_balancer.applied_generation == 2

        await until(settled, within=30)
        seen: set[str] = set()

        async def both() -> bool:
            seen.add(await ask(PORT, address=VIP))
            return seen == {"one", "two"}

        await until(both, within=20)
        after = await tree()
        assert [x.id for x in after.amphorae] == [made["amphora"]]
        assert after.amphorae[0].receipt is not None
        assert after.amphorae[0].receipt.action == "reload"
        assert await ask(PORT, address=VIP, path="/forbidden") == "403"
    finally:
        stop.set()
        await running
