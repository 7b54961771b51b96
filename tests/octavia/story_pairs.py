"""A pair that a real Octavia built, taken over under traffic; and the command killed at every step. In a machine of its own
(test_adoption.py)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec
import pytest
from msgspec.structs import replace

from frontinus.main import Installation
from frontinus.model.enums import AmphoraRole
from frontinus.model.ids import LoadBalancerId, NetworkId, PortId
from frontinus.model.ports import Port, PortAddress, PortPurpose
from frontinus.model.tree import LoadBalancerTree
from frontinus.settings import load
from frontinus.store import trees

from tests.integration.drivers.world import Member, ask, until
from tests.integration.netns.hosts import ip
from tests.octavia import genuine
from tests.octavia.story_adoption import PLAIN, PORT, VIP, Clients, Octavia, frontinus

CLOUD = Path(__file__).parent / "cloud"
FRONTINUS_TOML = """state_dir = "{state}"

[drivers]
amphora = "haproxy"
compute = "stand-in-servers"
network = "stand-in-ports"
allow_experimental = ["stand-in-servers", "stand-in-ports"]

[api]
bind_port = 0

[health]
bind_host = "{management}.1"

[driver_options.haproxy]
{plain}
"""
MORTAL = """
import os, signal, sys
from pathlib import Path
from frontinus.drivers import private_files
from frontinus.drivers.amphora.agent import octavia_authority
from frontinus.store.engine import Store

moment, after = int(sys.argv[1]), sys.argv[2] == "after"
calls = 0

def die(late):
    if calls == moment and late == after:
        os.kill(os.getpid(), signal.SIGKILL)

def mortal(function):
    def call(*words, **more):
        global calls
        calls += 1
        die(False)
        result = function(*words, **more)
        die(True)
        return result
    return call

def mortal_async(function):
    async def call(*words, **more):
        global calls
        calls += 1
        die(False)
        result = await function(*words, **more)
        die(True)
        return result
    return call

octavia_authority.write_private = mortal(octavia_authority.write_private)
Store.upgrade = mortal(Store.upgrade)
Store.transact = mortal_async(Store.transact)
from frontinus.cli.main import main
main(sys.argv[3:])
"""
"""The command, killed by SIGKILL before or after its n-th write: a file of an authority, the schema, a transaction."""


FIRST_WRITES = 3
"""The two files of Octavia's authorities, and the schema."""


class Cloud:
    """What the stand-in drivers find."""

    def __init__(self, directory: Path, octavia: Octavia) -> None:
        self.directory = directory
        directory.mkdir()
        by_id = {x.id: x.port for x in octavia.amphorae}
        told: dict[str, tuple[Port, ...]] = {}
        for number, (amphora_id, vip_port_id) in enumerate(octavia.made["ports"].items()):
            address = PortAddress(address=f"{genuine.VIPS}.{150 + number}", prefix_length=24, subnet_id=genuine.SUBNET)
            template = replace(octavia.amphora.port, amphora_id=amphora_id, addresses=(address,))
            vip_port = replace(by_id.get(amphora_id, template), id=PortId(vip_port_id))
            management = replace(
                vip_port,
                id=PortId(f"00000000-0000-0000-0000-0000000002{number:02x}"),
                purpose=PortPurpose.MANAGEMENT,
                network_id=NetworkId("management"),
            )
            told[amphora_id] = (management, vip_port)
        (directory / "ports.json").write_bytes(msgspec.json.encode(told))

    @property
    def journal(self) -> list[str]:
        file = self.directory / "journal"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def networks() -> Iterator[None]:
    genuine.lay_networks()
    yield
    for network in ("management", "vips"):
        ip("link", "delete", network)


@pytest.fixture
async def members(networks: None) -> AsyncIterator[list[Member]]:
    made = [await Member(x, f"{genuine.VIPS}.1").start() for x in ("one", "two")]
    yield made
    for member in made:
        await member.stop()


@pytest.fixture
async def octavia(tmp_path: Path, members: list[Member]) -> AsyncIterator[Octavia]:
    tmp_path.chmod(0o755)  # the database server is nobody
    made = await asyncio.to_thread(Octavia, tmp_path, members[:1], "pair")
    yield made
    for amphora in made.amphorae:
        print(amphora.log[-3_000:])  # noqa: T201 - shown when the test fails
    made.close()
    for amphora in made.amphorae:
        ip("netns", "delete", amphora.name)


@pytest.fixture
def cloud(tmp_path: Path, octavia: Octavia, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    made = Cloud(tmp_path / "cloud", octavia)
    monkeypatch.setenv("STAND_IN_CLOUD", str(made.directory))
    monkeypatch.setenv("PYTHONPATH", str(CLOUD))
    monkeypatch.syspath_prepend(str(CLOUD))
    return made


def settings(octavia: Octavia, state: Path, name: str = "frontinus.toml") -> Path:
    config = octavia.directory / name
    config.write_text(FRONTINUS_TOML.format(state=state, management=genuine.MANAGEMENT, plain=PLAIN))
    return config


def command(octavia: Octavia, config: Path) -> tuple[str, ...]:
    octavia.database.query("UPDATE amphora_health SET last_update = '2020-01-01'", "octavia")
    return ("adopt", "octavia", "--config", str(config), "--octavia-config", str(octavia.config))


async def served() -> bool:
    try:
        return await ask(PORT, address=VIP, within=1) == "one"
    except (OSError, TimeoutError):
        return False


@pytest.mark.timeout(380)
async def test_a_pair_is_taken_over_under_traffic(
    octavia: Octavia, cloud: Cloud, members: list[Member], tmp_path: Path
) -> None:
    await asyncio.to_thread(octavia.push)
    await until(served, within=40)
    config, clients = settings(octavia, tmp_path / "state"), Clients()
    keepalived = [x.directory / "lib/vrrp/octavia-keepalived.conf" for x in octavia.amphorae]
    before = [x.read_text() for x in keepalived]
    async with clients.asking():
        status, told = await frontinus(*command(octavia, config))
        assert status == 0, told
        assert "4 load balancers can be taken over (1 of them pairs), with 5 amphorae; 0 things are left alone" in told
        master, backup = octavia.amphorae
        for amphora, role in ((master, "MASTER"), (backup, "BACKUP")):
            (line,) = [x for x in told.splitlines() if f"amphora {amphora.id}" in x]
            assert f"{role} at {amphora.address}, server" in line
        status, told = await frontinus(*command(octavia, config), "--yes", "--json")
        assert (status, json.loads(told)["taken_over"]) == (0, 4), told
        assert cloud.journal == [], "something outside was touched"
        await _live(config, octavia, members[1], cloud)
    assert set(clients.answers) == {"one", "two"}, clients.answers
    assert [x.read_text() for x in keepalived] == before, "they agree as Octavia told them to"

    # Whoever has the VIP dies: the other has it, by Octavia's keepalived and our configuration.
    await asyncio.to_thread(master.stop)

    async def answers() -> bool:
        try:
            return await ask(PORT, address=VIP, within=1) in ("one", "two")
        except (OSError, TimeoutError):
            return False

    await until(answers, within=30)


async def _live(config: Path, octavia: Octavia, second: Member, cloud: Cloud) -> None:
    made = octavia.made
    installation = Installation(load(config))
    stop = asyncio.Event()
    running = asyncio.create_task(installation.run(stop))

    async def tree() -> LoadBalancerTree:
        found = await installation.store.read(lambda tx: trees.read_tree(tx, LoadBalancerId(made["load_balancer"])))
        assert found is not None
        return found

    try:
        began = datetime.now(UTC)

        async def heard() -> bool:
            return all(x.seen_at is not None and x.seen_at > began for x in (await tree()).amphorae)

        await until(heard, within=30)
        adopted = await tree()
        assert {x.role for x in adopted.amphorae} == {AmphoraRole.MASTER, AmphoraRole.BACKUP}
        ports = {x.id: {y.id for y in x.ports if y.purpose is PortPurpose.VIP} for x in adopted.amphorae}
        assert ports == {x.id: {made["ports"][x.id]} for x in octavia.amphorae}
        async with aiohttp.ClientSession() as session:
            base = f"{installation.endpoint}/v2/lbaas"
            member = {"member": {"address": f"{genuine.VIPS}.1", "protocol_port": second.port, "name": "two"}}
            async with session.post(f"{base}/pools/{made['pool']}/members", json=member) as answer:
                assert answer.status == 201, await answer.text()

            async def settled(generation: int) -> bool:
                return (await tree()).load_balancer.applied_generation == generation

            await until(lambda: settled(2), within=60)
            assert cloud.journal == [], "a member on the VIPs' network needs no port"
            pushed = await tree()
            assert {x.receipt.action for x in pushed.amphorae if x.receipt} == {"reload"}
            seen: set[str] = set()

            async def both() -> bool:
                seen.add(await ask(PORT, address=VIP))
                return seen == {"one", "two"}

            await until(both, within=20)

            # What must be let in is told to the port that Octavia made, and no other is made beside it.
            listener = {
                "listener": {
                    "loadbalancer_id": made["load_balancer"],
                    "protocol": "HTTP",
                    "protocol_port": PORT + 1,
                    "default_pool_id": made["pool"],
                    "connection_limit": 2000,
                }
            }
            async with session.post(f"{base}/listeners", json=listener) as answer:
                assert answer.status == 201, await answer.text()
            await until(lambda: settled(3), within=60)
            assert await ask(PORT + 1, address=VIP) in ("one", "two")
        assert {tuple(x.split()[:2]) for x in cloud.journal} == {
            ("lets-in", made["ports"][x.id]) for x in octavia.amphorae
        }
        assert {x.id for x in (await tree()).amphorae} == {x.id for x in octavia.amphorae}
    finally:
        stop.set()
        await running


async def _killed_at(moment: int, when: str, words: tuple[str, ...]) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        MORTAL,
        str(moment),
        when,
        *words,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(os.environ),
    )
    return await process.wait()


def _content(state: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of what adoption writes; of what is told of the moment, nothing."""
    file = state / "frontinus.sqlite"
    tables = ("load_balancer", "amphora", "listener", "pool", "member", "health_monitor", "l7_policy", "l7_rule")
    with sqlite3.connect(file) as database:
        found = {x: database.execute(f"SELECT * FROM {x} ORDER BY 1").fetchall() for x in (*tables, "flavor", "quota")}
        owners = {x: database.execute(f"SELECT load_balancer_id FROM {x}").fetchall() for x in tables[1:5]}
    whole = {x[0] for x in found["load_balancer"]}
    for table, rows in owners.items():
        assert {x for (x,) in rows} == whole, f"a load balancer without its {table}, or the other way round"
    return {table: [row[:1] for row in rows] for table, rows in found.items()}


@pytest.mark.timeout(380)
async def test_killed_at_every_step_it_is_gone_on_with(octavia: Octavia, cloud: Cloud, tmp_path: Path) -> None:
    undisturbed = settings(octavia, tmp_path / "undisturbed", "undisturbed.toml")
    status, told = await frontinus(*command(octavia, undisturbed), "--yes")
    assert status == 0, told
    expected = _content(tmp_path / "undisturbed")
    assert [len(expected[x]) for x in ("load_balancer", "amphora", "flavor", "quota")] == [4, 5, 2, 1]

    async def killed(moment: int, when: str) -> bool:
        """Whether there was such a moment; then what is left by it is gone on with."""
        state = tmp_path / f"{moment}-{when}"
        config = settings(octavia, state, f"{moment}-{when}.toml")
        words = (*command(octavia, config), "--yes")
        status = await _killed_at(moment, when, words)
        if status == 0:
            return False
        assert status == -signal.SIGKILL
        if moment > FIRST_WRITES:
            _content(state)  # whole load balancers only
        status, told = await frontinus(*words)
        assert status == 0, told
        assert _content(state) == expected
        return True

    moments = 0
    for moment in range(1, 100):
        were = await asyncio.gather(*(killed(moment, x) for x in ("before", "after")))
        moments += sum(were)
        if not any(were):
            break
    assert moments == 2 * (FIRST_WRITES + 3 + 1 + 4), "after the first writes: offers, quota, load balancers"
    assert cloud.journal == []
