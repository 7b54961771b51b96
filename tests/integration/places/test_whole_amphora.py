"""The agent's drivers on amphorae that the process driver makes: real agents, real balancers, the exam of both sides."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from frontinus.cli.driver_bench import Subject, elsewhere, hung
from frontinus.drivers.amphora.agent.driver import AgentDriver
from frontinus.drivers.amphora.agent.settings import AgentDriverSettings
from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.interface import AmphoraDriver
from frontinus.drivers.amphora.nginx.driver import NginxDriver
from frontinus.drivers.amphora.nginx.settings import NginxDriverSettings
from frontinus.drivers.compute.interface import PlaceState
from frontinus.drivers.compute.process.driver import ProcessCompute, ProcessSettings
from frontinus.loading import DRIVER_KINDS
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, ProjectId, new_id
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.testing.amphora_conformance import CHECKS, AmphoraBench
from frontinus.testing.exam import Check
from frontinus_amphora.encoding import encode_envelope, message

from tests.integration.places.machine import is_running, naming, until
from tests.unit.drivers.trees import LOAD_BALANCER, a_listener, a_load_balancer, a_member, a_pool, a_tree

VIP = "127.84.9.1"


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind((VIP, 0))
        return int(trial.getsockname()[1])


class Machine:
    """Drivers on one state directory, joined as main.py joins them."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.agent_port = free_port()
        self.compute = ProcessCompute(ProcessSettings(state_dir=state_dir))

    def driver(self) -> HaproxyDriver:
        return HaproxyDriver(HaproxySettings(state_dir=self.state_dir, agent_port=self.agent_port))

    @asynccontextmanager
    async def place(self, driver: AmphoraDriver, amphora_id: AmphoraId) -> AsyncIterator[str]:
        address = self.compute.management_address(amphora_id)
        assert address is not None
        await self.compute.build(amphora_id, LoadBalancerId(new_id()), driver.boot_files(amphora_id, address))
        try:
            await self.answering(amphora_id, address)
            yield address
        finally:
            await self.compute.destroy(amphora_id)

    async def answering(self, amphora_id: AmphoraId, address: str) -> None:
        log = self.state_dir / "amphorae" / amphora_id / "agent.log"

        def listens() -> bool:
            with socket.socket() as trial:
                return trial.connect_ex((address, self.agent_port)) == 0

        try:
            await until(listens)
        except AssertionError:
            pytest.fail(f"the agent does not answer; it says:\n{log.read_text()}")

    @contextmanager
    def hold_port(self, address: str, port: int) -> Iterator[None]:
        with socket.socket() as holder:
            # The port may still be that of a connection which is over.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((address, port))
            holder.listen()
            yield


@pytest.fixture
async def machine(state_dir: Path) -> AsyncIterator[Machine]:
    made = Machine(state_dir)
    yield made
    for amphora_id in await made.compute.list_owned():
        await made.compute.destroy(amphora_id)
    await made.compute.close()


def heartbeat(driver: AmphoraDriver, amphora_id: AmphoraId) -> bytes:
    """What the agent of this amphora would send."""
    assert isinstance(driver, AgentDriver)
    key = driver._authority.heartbeat_key(amphora_id)
    return encode_envelope(message(amphora_id, 0, {}, {}, 2), key, amphora_id, 1, 0)


def bench_of(machine: Machine, driver: type[AgentDriver], settings: AgentDriverSettings) -> AmphoraBench:
    examined = Subject(DRIVER_KINDS["amphora"], driver, settings)
    return AmphoraBench(
        factory=examined.make,
        place=machine.place,
        vip_address=VIP,
        ports=(free_port(), free_port()),
        hold_port=machine.hold_port,
        hang=lambda amphora_id: hung(machine.state_dir, amphora_id),
        reachable=True,
        datagram=heartbeat,
        digest_elsewhere=elsewhere(examined),
    )


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_the_haproxy_driver_sits_the_exam(check: Check[AmphoraBench], machine: Machine) -> None:
    settings = HaproxySettings(state_dir=machine.state_dir, agent_port=machine.agent_port)
    await check.run(bench_of(machine, HaproxyDriver, settings))


async def _balancing(machine: Machine, driver: AgentDriver) -> tuple[Amphora, LoadBalancerTree]:
    """An amphora that has something applied, as the controller would have done it."""
    tree = a_tree(
        a_load_balancer(VIP), listeners=[a_listener(port=free_port())], pools=[a_pool()], members=[a_member()]
    )
    amphora_id = AmphoraId(new_id())
    address = machine.compute.management_address(amphora_id)
    assert address is not None
    await machine.compute.build(amphora_id, tree.id, driver.boot_files(amphora_id, address))
    await machine.answering(amphora_id, address)
    amphora = Amphora(
        id=amphora_id,
        load_balancer_id=tree.id,
        project_id=ProjectId("p"),
        management_address=address,
        created_at=datetime.now(UTC),
    )
    await driver.apply(amphora, tree, driver.render(tree, amphora))
    return amphora, tree


async def test_a_balancer_outlives_its_agent_and_is_found_by_the_next(machine: Machine) -> None:
    driver = machine.driver()
    amphora, tree = await _balancing(machine, driver)
    seen = await machine.compute.get(amphora.id)
    assert (seen.state, seen.balancing) == (PlaceState.RUNNING, True)
    agent = int((machine.state_dir / "amphorae" / amphora.id / "agent.pid").read_text().split()[0])
    balancers = naming(amphora.id) - {agent}
    os.kill(agent, signal.SIGKILL)
    await until(lambda: not is_running(agent))
    seen = await machine.compute.get(amphora.id)
    assert (seen.state, seen.balancing) == (PlaceState.STOPPED, True)
    with pytest.raises(Retry):
        await driver.info(amphora, tree)

    boot = driver.boot_files(amphora.id, amphora.management_address or "")
    await machine.compute.build(amphora.id, tree.id, boot)
    await machine.answering(amphora.id, amphora.management_address or "")
    seen = await machine.compute.get(amphora.id)
    assert (seen.state, seen.balancing) == (PlaceState.RUNNING, True)
    assert (await driver.info(amphora, tree)).running
    assert balancers <= naming(amphora.id), "the balancer was started anew"
    applied = await driver.apply(amphora, tree, driver.render(tree, amphora))
    assert applied.action == "unchanged"
    await driver.close()


async def test_destroying_leaves_no_process_of_a_whole_amphora(machine: Machine) -> None:
    driver = machine.driver()
    amphora, _tree = await _balancing(machine, driver)
    assert len(naming(amphora.id)) >= 3  # agent, master, worker
    await machine.compute.destroy(amphora.id)
    assert naming(amphora.id) == set()
    assert await machine.compute.list_owned() == ()
    await driver.close()


async def test_two_amphorae_share_the_agents_port(machine: Machine) -> None:
    driver = machine.driver()
    ids = [AmphoraId(new_id()), AmphoraId(new_id())]
    async with machine.place(driver, ids[0]) as one, machine.place(driver, ids[1]) as other:
        assert one != other
        states = await asyncio.gather(*(machine.compute.get(amphora_id) for amphora_id in ids))
        assert [place.state for place in states] == [PlaceState.RUNNING] * 2
    await driver.close()


@pytest.mark.parametrize("killed", [False, True], ids=["as it is", "with its agent and nginx's master killed"])
async def test_destroying_leaves_no_nginx(machine: Machine, killed: bool) -> None:
    """nginx writes its title over its environment, by which others are found."""
    driver = NginxDriver(NginxDriverSettings(state_dir=machine.state_dir, agent_port=machine.agent_port))
    amphora, _tree = await _balancing(machine, driver)
    place = machine.state_dir / "amphorae" / amphora.id
    master = int((place / LOAD_BALANCER / "nginx" / "nginx.pid").read_text())
    worker = int(Path(f"/proc/{master}/task/{master}/children").read_text().split()[0])
    assert (await machine.compute.get(amphora.id)).balancing
    if killed:
        agent = int((place / "agent.pid").read_text().split()[0])
        for pid in (agent, master):
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not is_running(agent))
        assert (await machine.compute.get(amphora.id)).balancing, "the worker goes on"
    await machine.compute.destroy(amphora.id)
    assert [pid for pid in (master, worker) if is_running(pid)] == []
    await driver.close()


@pytest.mark.long
@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_the_nginx_driver_sits_the_exam(check: Check[AmphoraBench], machine: Machine) -> None:
    settings = NginxDriverSettings(state_dir=machine.state_dir, agent_port=machine.agent_port)
    await check.run(bench_of(machine, NginxDriver, settings))
