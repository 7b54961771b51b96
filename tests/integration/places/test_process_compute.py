"""Amphorae as processes: they outlive the controller, are found by proof, and go without a trace, hitting nobody else."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from uuid import UUID

import pytest

from frontinus.drivers.compute.host.place import LOG_LIMIT
from frontinus.drivers.compute.host.processes import start_time
from frontinus.drivers.compute.interface import PlaceState
from frontinus.drivers.compute.process.driver import ProcessCompute, ProcessSettings
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Bug, Invalid, Retry
from frontinus.model.ids import AmphoraId, new_id
from frontinus.testing.compute_conformance import CHECKS, ComputeBench
from frontinus.testing.exam import Check

from tests.integration.places.machine import (
    DEAF,
    LOAD_BALANCER,
    NO_FILES,
    PHOENIX,
    WITH_BALANCER,
    is_running,
    naming,
    settings,
    until,
)


def fresh() -> AmphoraId:
    return AmphoraId(new_id())


def place_of(state_dir: Path, amphora_id: AmphoraId) -> Path:
    return state_dir / "amphorae" / amphora_id


def agent_of(state_dir: Path, amphora_id: AmphoraId) -> int:
    return int((place_of(state_dir, amphora_id) / "agent.pid").read_text().split()[0])


async def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not is_running(pid))


@pytest.fixture
async def compute(state_dir: Path) -> AsyncIterator[ProcessCompute]:
    driver = ProcessCompute(settings(state_dir))
    yield driver
    for amphora_id in await driver.list_owned():
        await driver.destroy(amphora_id)
    await driver.close()


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_it_sits_the_exam(check: Check[ComputeBench], state_dir: Path) -> None:
    async def stop(amphora_id: AmphoraId) -> None:
        await kill(agent_of(state_dir, amphora_id))

    await check.run(ComputeBench(factory=lambda: ProcessCompute(settings(state_dir)), stop=stop))


# The place


async def test_a_place_is_private_and_its_files_know_where_they_are(state_dir: Path, compute: ProcessCompute) -> None:
    amphora_id = fresh()
    boot = BootFiles(files={"agent.conf": b"here: {place}", "certs/key.pem": b"{place}"})
    await compute.build(amphora_id, LOAD_BALANCER, boot)
    place = place_of(state_dir, amphora_id)
    assert (place / "agent.conf").read_text() == f"here: {place}"
    assert (place / "certs" / "key.pem").read_bytes() == b"{place}"
    modes = {str(x.relative_to(place)): stat.S_IMODE(x.stat().st_mode) for x in (place, *place.rglob("*"))}
    assert modes == {
        ".": 0o700,
        "certs": 0o700,
        "agent.conf": 0o600,
        "agent.log": 0o600,
        "agent.pid": 0o600,
        "certs/key.pem": 0o600,
    }


async def test_building_again_brings_new_boot_files_and_keeps_the_agent(
    state_dir: Path, compute: ProcessCompute
) -> None:
    amphora_id = fresh()
    await compute.build(amphora_id, LOAD_BALANCER, BootFiles(files={"agent.conf": b"old"}))
    agent = agent_of(state_dir, amphora_id)
    await compute.build(amphora_id, LOAD_BALANCER, BootFiles(files={"agent.conf": b"new"}))
    assert (place_of(state_dir, amphora_id) / "agent.conf").read_text() == "new"
    assert agent_of(state_dir, amphora_id) == agent
    assert is_running(agent)


async def test_an_agent_gets_its_proof_and_none_of_our_secrets(
    state_dir: Path, compute: ProcessCompute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_PASSWORD", "aqua")
    amphora_id = fresh()
    await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    agent = agent_of(state_dir, amphora_id)
    environment = Path(f"/proc/{agent}/environ").read_bytes().split(b"\0")
    assert f"FRONTINUS_AMPHORA_ID={amphora_id}".encode() in environment
    assert f"FRONTINUS_STATE_DIR={state_dir}".encode() in environment
    assert not [entry for entry in environment if b"aqua" in entry]
    assert os.getsid(agent) == agent, "it shares our session, so it would get our Ctrl-C"


async def test_a_log_that_grows_is_cut_to_its_end(state_dir: Path, compute: ProcessCompute) -> None:
    amphora_id = fresh()
    await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    log = place_of(state_dir, amphora_id) / "agent.log"
    with log.open("a") as file:
        file.writelines(f"line {number}\n" for number in range(LOG_LIMIT // 8))
    await compute.get(amphora_id)
    kept = log.read_text().splitlines()
    assert log.stat().st_size < LOG_LIMIT
    assert kept[-1] == f"line {LOG_LIMIT // 8 - 1}"
    assert kept[0].startswith("line ")


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "."])
async def test_boot_files_cannot_leave_the_place(path: str, state_dir: Path, compute: ProcessCompute) -> None:
    with pytest.raises(Bug):
        await compute.build(fresh(), LOAD_BALANCER, BootFiles(files={path: b""}))


@pytest.mark.parametrize("text", ["../x", "", "x", "ABCDEF00-0000-4000-8000-000000000000"])
async def test_only_an_id_becomes_a_path(text: str, compute: ProcessCompute) -> None:
    with pytest.raises(Bug):
        await compute.destroy(AmphoraId(text))


# Whose a process is


async def test_amphorae_outlive_a_killed_controller(state_dir: Path, compute: ProcessCompute) -> None:
    amphora_id = fresh()
    program = f"""
import asyncio, os, signal
from pathlib import Path
from frontinus.drivers.compute.process.driver import ProcessCompute
from tests.integration.places.machine import LOAD_BALANCER, NO_FILES, settings
asyncio.run(ProcessCompute(settings(Path({str(state_dir)!r}))).build({amphora_id!r}, LOAD_BALANCER, NO_FILES))
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'src'}"}
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (await compute.get(amphora_id)).state is PlaceState.RUNNING
    agent = agent_of(state_dir, amphora_id)
    await compute.destroy(amphora_id)
    assert not is_running(agent)


async def test_an_agent_that_was_never_written_down_is_found(state_dir: Path, compute: ProcessCompute) -> None:
    """As after a crash between starting it and writing its pid."""
    amphora_id = fresh()
    await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    agent = agent_of(state_dir, amphora_id)
    (place_of(state_dir, amphora_id) / "agent.pid").unlink()
    assert (await compute.get(amphora_id)).state is PlaceState.RUNNING
    await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    assert agent_of(state_dir, amphora_id) == agent
    assert naming(amphora_id) == {agent}


async def test_a_half_made_place_is_owned_and_finished(state_dir: Path, compute: ProcessCompute) -> None:
    amphora_id = fresh()
    place_of(state_dir, amphora_id).mkdir(parents=True)
    assert await compute.list_owned() == (amphora_id,)
    assert (await compute.get(amphora_id)).state is PlaceState.STOPPED
    await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    assert (await compute.get(amphora_id)).state is PlaceState.RUNNING


@pytest.mark.parametrize("content", ["", "\x00\xff", "12", "-1 0", "999999999 1"], ids=repr)
async def test_a_pid_file_that_makes_no_sense_is_replaced(
    content: str, state_dir: Path, compute: ProcessCompute
) -> None:
    amphora_id = fresh()
    place_of(state_dir, amphora_id).mkdir(parents=True)
    (place_of(state_dir, amphora_id) / "agent.pid").write_text(content)
    assert (await compute.get(amphora_id)).state is PlaceState.STOPPED
    await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    assert is_running(agent_of(state_dir, amphora_id))


async def test_an_agent_is_known_from_the_moment_that_build_returns(state_dir: Path, compute: ProcessCompute) -> None:
    """A process that is just being started has no environment yet; it must not be overlooked, by whoever looks."""
    for _ in range(40):
        amphora_id = fresh()
        await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
        agent = agent_of(state_dir, amphora_id)
        assert (await compute.get(amphora_id)).state is PlaceState.RUNNING
        await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
        assert agent_of(state_dir, amphora_id) == agent
        await compute.destroy(amphora_id)
        assert not is_running(agent)


async def test_a_stranger_with_the_pid_is_neither_believed_nor_hit(state_dir: Path, compute: ProcessCompute) -> None:
    amphora_id = fresh()
    await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    await kill(agent_of(state_dir, amphora_id))
    stranger = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        pid_file = place_of(state_dir, amphora_id) / "agent.pid"
        pid_file.write_text(f"{stranger.pid} {start_time(stranger.pid)}")
        assert (await compute.get(amphora_id)).state is PlaceState.STOPPED
        await compute.destroy(amphora_id)
        assert is_running(stranger.pid)
    finally:
        stranger.kill()
        await stranger.wait()


async def test_another_installation_with_the_same_amphora_is_left_alone(
    state_dir: Path, compute: ProcessCompute, tmp_path_factory: pytest.TempPathFactory
) -> None:
    amphora_id, elsewhere = fresh(), tmp_path_factory.mktemp("elsewhere")
    neighbour = ProcessCompute(settings(elsewhere))
    try:
        await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
        await neighbour.build(amphora_id, LOAD_BALANCER, NO_FILES)
        await compute.destroy(amphora_id)
        assert (await neighbour.get(amphora_id)).state is PlaceState.RUNNING
        assert await compute.list_owned() == ()
    finally:
        await neighbour.destroy(amphora_id)
        await neighbour.close()


async def test_a_dead_agent_does_not_stay_a_zombie(state_dir: Path, compute: ProcessCompute) -> None:
    amphora_id = fresh()
    await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    agent = agent_of(state_dir, amphora_id)
    await kill(agent)
    assert (await compute.get(amphora_id)).state is PlaceState.STOPPED
    assert not Path(f"/proc/{agent}").exists()
    await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    again = agent_of(state_dir, amphora_id)
    await compute.destroy(amphora_id)
    assert not Path(f"/proc/{again}").exists()


# The balancer


@pytest.fixture
async def balancing(state_dir: Path) -> AsyncIterator[ProcessCompute]:
    driver = ProcessCompute(settings(state_dir, WITH_BALANCER))
    yield driver
    for amphora_id in await driver.list_owned():
        await driver.destroy(amphora_id)
    await driver.close()


async def test_the_balancer_is_seen_with_and_without_its_agent(state_dir: Path, balancing: ProcessCompute) -> None:
    amphora_id = fresh()
    await balancing.build(amphora_id, LOAD_BALANCER, NO_FILES)
    await until(lambda: len(naming(amphora_id)) == 2)
    agent = agent_of(state_dir, amphora_id)
    (balancer,) = naming(amphora_id) - {agent}
    await until(lambda: Path(f"/proc/{balancer}/comm").read_text() == "sleep\n")
    seen = await balancing.get(amphora_id)
    assert (seen.state, seen.balancing) == (PlaceState.RUNNING, True)
    await kill(agent)
    seen = await balancing.get(amphora_id)
    assert (seen.state, seen.balancing) == (PlaceState.STOPPED, True)
    await kill(balancer)
    seen = await balancing.get(amphora_id)
    assert (seen.state, seen.balancing) == (PlaceState.STOPPED, False)


async def test_a_balancer_of_an_earlier_agent_is_seen_by_its_pid_file(
    state_dir: Path, balancing: ProcessCompute
) -> None:
    amphora_id = fresh()
    await balancing.build(amphora_id, LOAD_BALANCER, NO_FILES)
    await until(lambda: len(naming(amphora_id)) == 2)
    agent = agent_of(state_dir, amphora_id)
    (balancer,) = naming(amphora_id) - {agent}
    await until(lambda: Path(f"/proc/{balancer}/comm").read_text() == "sleep\n")
    await kill(agent)
    successor = ProcessCompute(settings(state_dir))  # its agents start nothing
    await successor.build(amphora_id, LOAD_BALANCER, NO_FILES)
    assert (await successor.get(amphora_id)).balancing is False
    (place_of(state_dir, amphora_id) / "lb").mkdir()
    (place_of(state_dir, amphora_id) / "lb" / "lb.pid").write_text(f"{balancer}\n")
    assert (await successor.get(amphora_id)).balancing is True
    await successor.close()


# Destroying


@pytest.mark.parametrize("script", [DEAF, PHOENIX], ids=["ignores SIGTERM", "rises again"])
async def test_nothing_survives_being_destroyed(script: str, state_dir: Path) -> None:
    compute = ProcessCompute(replace(settings(state_dir, script), grace=timedelta(milliseconds=200)))
    amphora_id = fresh()
    await compute.build(amphora_id, LOAD_BALANCER, NO_FILES)
    log = place_of(state_dir, amphora_id) / "agent.log"
    await until(log.read_text)
    await compute.destroy(amphora_id)
    assert naming(amphora_id) == set()
    assert not place_of(state_dir, amphora_id).exists()
    await compute.close()


async def test_strays_without_a_directory_are_owned_and_ended(state_dir: Path, balancing: ProcessCompute) -> None:
    amphora_id = fresh()
    await balancing.build(amphora_id, LOAD_BALANCER, NO_FILES)
    await until(lambda: len(naming(amphora_id)) == 2)
    shutil.rmtree(place_of(state_dir, amphora_id))
    assert (await balancing.get(amphora_id)).state is PlaceState.ABSENT
    assert await balancing.list_owned() == (amphora_id,)
    await balancing.destroy(amphora_id)
    assert naming(amphora_id) == set()
    assert await balancing.list_owned() == ()


async def test_building_and_destroying_at_once_ends_whole_or_not_at_all(
    state_dir: Path, compute: ProcessCompute
) -> None:
    for _ in range(5):
        amphora_id = fresh()
        await asyncio.gather(
            compute.build(amphora_id, LOAD_BALANCER, NO_FILES),
            compute.destroy(amphora_id),
            compute.build(amphora_id, LOAD_BALANCER, NO_FILES),
            compute.destroy(amphora_id),
        )
        running = len(naming(amphora_id))
        state = (await compute.get(amphora_id)).state
        assert (running, state) in {(0, PlaceState.ABSENT), (1, PlaceState.RUNNING)}


# What is missing


async def test_a_missing_balancer_is_named_with_the_command_that_installs_it(state_dir: Path) -> None:
    compute = ProcessCompute(replace(settings(state_dir), balancer="haproxy-that-is-not-here"))
    with pytest.raises(Retry, match="apt-get install haproxy") as raised:
        await compute.build(fresh(), LOAD_BALANCER, NO_FILES)
    assert raised.value.code == "haproxy-missing"
    assert await compute.list_owned() == ()
    await compute.close()


async def test_a_missing_agent_is_named(state_dir: Path) -> None:
    compute = ProcessCompute(replace(settings(state_dir), agent_command=("no-such-agent",)))
    with pytest.raises(Retry, match="no-such-agent") as raised:
        await compute.build(fresh(), LOAD_BALANCER, NO_FILES)
    assert raised.value.code == "agent-missing"
    await compute.close()


async def test_a_state_directory_that_cannot_be_used_is_named(state_dir: Path, compute: ProcessCompute) -> None:
    (state_dir / "amphorae").write_text("in the way")
    with pytest.raises(Retry, match=str(state_dir)):
        await compute.build(fresh(), LOAD_BALANCER, NO_FILES)
    (state_dir / "amphorae").unlink()


@pytest.mark.parametrize(
    "field, changed",
    [
        ("address_range", "127.128.0.0/33"),
        ("address_range", "10.0.0.0/8"),
        ("address_range", "127.0.0.0/25"),
        ("address_range", "::1/128"),
        ("agent_command", ()),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(field: str, changed: object, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as raised:
        ProcessCompute(replace(ProcessSettings(state_dir=tmp_path), **{field: changed}))  # type: ignore[arg-type]
    assert raised.value.field == field


def test_management_addresses_are_spread_over_the_range(tmp_path: Path) -> None:
    compute = ProcessCompute(replace(ProcessSettings(state_dir=tmp_path), address_range="127.200.0.0/22"))
    found = {compute.management_address(AmphoraId(str(UUID(int=number)))) for number in range(20_000)}
    addresses = [ip_address(address) for address in found if address is not None]
    assert all(address in ip_network("127.200.0.0/22") for address in addresses)
    assert {str(address).rpartition(".")[2] for address in addresses} == {str(number) for number in range(1, 255)}
    assert len(addresses) == 4 * 254
