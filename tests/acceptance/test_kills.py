"""Whatever is killed, whenever: it converges, traffic is back, nothing leaks. Figures are printed (`pytest -rP`)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.support import (
    Api,
    Backend,
    Installation,
    Load,
    Process,
    ask,
    free_port,
    report,
    serving,
    until,
)

pytestmark = pytest.mark.alone


def haproxies(installation: Installation) -> list[Process]:
    return [x for x in installation.amphora_processes() if re.match(r"\S*haproxy ", x.command)]


def agents(installation: Installation) -> list[Process]:
    return [x for x in installation.amphora_processes() if "frontinus_amphora" in x.command]


def kill(processes: list[Process]) -> None:
    assert processes, "there was nothing to kill"
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)


@pytest.fixture
def web(api: Api, backends: list[Backend]) -> tuple[str, str, int]:
    """A load balancer that serves: (id, VIP, port)."""
    port = free_port()
    load_balancer = api.web_load_balancer(backends, port)
    serving(load_balancer["vip_address"], port)
    api.settled(load_balancer["id"])
    return load_balancer["id"], load_balancer["vip_address"], port


def outage(vip: str, port: int, timeout: float = 20) -> float:
    """From now until the first answer after a failure, in seconds."""
    started = time.monotonic()
    until(lambda: ask(vip, port, timeout=0.5)[0] != 200, timeout, "it never stopped answering", pause=0.0)
    serving(vip, port, timeout)
    return time.monotonic() - started


def test_killed_haproxy_is_back_in_half_a_second(installation: Installation, web: tuple[str, str, int]) -> None:
    load_balancer_id, vip, port = web
    before = installation.amphora_ids()
    kill(haproxies(installation))
    took = outage(vip, port)
    report(f"haproxy killed: traffic restored after {took * 1000:.0f} ms")
    assert took < 0.5
    assert installation.amphora_ids() == before, "the amphora was replaced for a dead haproxy"
    assert installation.api().settled(load_balancer_id)["provisioning_status"] == "ACTIVE"


def test_killed_agent_is_started_again_and_traffic_never_notices(
    installation: Installation, api: Api, web: tuple[str, str, int]
) -> None:
    load_balancer_id, vip, port = web
    haproxy_before = {x.pid for x in haproxies(installation)}
    amphorae_before = installation.amphora_ids()
    with Load(vip, port) as load:
        load.more(50)
        old = {x.pid for x in agents(installation)}
        killed = time.monotonic()
        kill(agents(installation))
        until(lambda: {x.pid for x in agents(installation)} - old, 20, "the agent is not started again")
        api.settled(load_balancer_id)
        report(f"agent killed: started again after {time.monotonic() - killed:.2f} s, {load.total} requests meanwhile")
        load.more(50)
    assert load.errors == []
    assert {x.pid for x in haproxies(installation)} == haproxy_before, "the running haproxy was not adopted"
    assert installation.amphora_ids() == amphorae_before
    # It can be spoken to: a change arrives.
    pool = api.show("pools", "pools")[0]
    member = api.show(f"pools/{pool['id']}/members", "members")[0]
    api.update(f"pools/{pool['id']}/members/{member['id']}", "member", weight=5)
    assert api.settled(load_balancer_id)["provisioning_status"] == "ACTIVE"


@pytest.mark.parametrize(
    "haproxy_dies",
    [pytest.param(False, id="haproxy runs on"), pytest.param(True, id="haproxy dies too", marks=pytest.mark.long)],
)
def test_an_agent_that_comes_back_empty_is_filled_again(
    installation: Installation, api: Api, web: tuple[str, str, int], haproxy_dies: bool
) -> None:
    """Its place is wiped while it is dead: nothing on disk says that there was a load balancer."""
    load_balancer_id, vip, port = web
    (amphora_id,) = amphorae_before = installation.amphora_ids()
    place = installation.state_dir / "amphorae" / amphora_id
    old = {x.pid for x in agents(installation)}
    strays = haproxies(installation)
    kill(agents(installation))
    wipe(place, load_balancer_id)
    until(lambda: {x.pid for x in agents(installation)} - old, 20, "the agent is not started again")
    if haproxy_dies:
        kill(strays)
    until((place / load_balancer_id / "haproxy.cfg").exists, 30, "it is not filled again")
    serving(vip, port)
    assert api.settled(load_balancer_id)["provisioning_status"] == "ACTIVE"
    until(lambda: len(haproxies(installation)) == 2, 20, "not one haproxy, a master and its worker")
    assert installation.amphora_ids() == amphorae_before


def wipe(place: Path, load_balancer_id: str) -> None:
    """All that an agent has written of this load balancer."""
    for path in place.glob(f"{load_balancer_id}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def test_killed_amphora_is_replaced_with_the_same_vip(
    installation: Installation, api: Api, web: tuple[str, str, int]
) -> None:
    load_balancer_id, vip, port = web
    (before,) = installation.amphora_ids()
    kill([*agents(installation), *haproxies(installation)])
    took = outage(vip, port)
    report(f"whole amphora killed: traffic restored after {took:.2f} s")
    assert took < 5
    shown = api.settled(load_balancer_id)
    assert (shown["provisioning_status"], shown["vip_address"]) == ("ACTIVE", vip)
    until(lambda: installation.amphora_ids() == installation.places(), 10, "the dead amphora's place stays")
    (after,) = installation.amphora_ids()
    assert after != before


@pytest.mark.parametrize("delay", [0.05, 0.3, 0.8])
def test_killed_control_plane_in_the_middle_of_ten_creates(
    installation: Installation, backends: list[Backend], delay: float
) -> None:
    """Every create that was answered ends ACTIVE and serves; nothing else exists."""
    api = installation.api()
    ports = [free_port() for _ in range(10)]

    def create(number: int) -> Any:
        try:
            return api.web_load_balancer(backends, ports[number], name=f"lb-{number}"), ports[number]
        except OSError:
            return None  # the answer was cut off: the load balancer may or may not exist

    with ThreadPoolExecutor(4) as pool:
        creating = pool.map(create, range(10))
        time.sleep(delay)  # the moment of the murder is the parameter of this test
        installation.kill()
        answered = [x for x in creating if x is not None]
    started = time.monotonic()
    installation.start()
    for load_balancer, port in answered:
        shown = api.settled(load_balancer["id"], timeout=30)
        assert shown["provisioning_status"] == "ACTIVE", shown
        serving(load_balancer["vip_address"], port)
    everything = api.show("loadbalancers", "loadbalancers")
    for shown in everything:
        assert api.settled(shown["id"])["provisioning_status"] == "ACTIVE"
    report(
        f"killed after {delay} s: {len(answered)} of 10 answered, {len(everything)} exist, all serving "
        f"{time.monotonic() - started:.1f} s after the restart began"
    )
    assert {x[0]["id"] for x in answered} <= {x["id"] for x in everything}
    assert len(installation.amphora_ids()) == len(everything)
    assert installation.places() == installation.amphora_ids()
    for shown in everything:
        api.delete(f"loadbalancers/{shown['id']}?cascade=true")
    for shown in everything:
        api.gone(f"loadbalancers/{shown['id']}", timeout=30)
    assert installation.amphora_processes() == []
    assert installation.places() == set()


def test_traffic_outlives_the_control_plane(installation: Installation, api: Api, web: tuple[str, str, int]) -> None:
    load_balancer_id, vip, port = web
    with Load(vip, port) as load:
        load.more(30)
        installation.kill()
        load.more(100)
        installation.start()
        load.more(30)
        assert installation.stop() == 0
        load.more(100)
        installation.start()
        load.more(30)
    assert load.errors == []
    assert api.settled(load_balancer_id)["provisioning_status"] == "ACTIVE"


def test_amphorae_lost_while_nobody_watched_are_rebuilt(
    installation: Installation, api: Api, web: tuple[str, str, int]
) -> None:
    """`frontinus down` stops them; the next `up` brings the load balancers back on the same addresses."""
    load_balancer_id, vip, port = web
    installation.down()
    assert installation.amphora_processes() == []
    assert ask(vip, port)[0] == 0
    installation.start()
    report(f"down and up again: serving {serving(vip, port):.2f} s after the API was back")
    assert api.settled(load_balancer_id)["provisioning_status"] == "ACTIVE"


def test_killed_while_deleting(installation: Installation, api: Api, web: tuple[str, str, int]) -> None:
    load_balancer_id, _, _ = web
    api.delete(f"loadbalancers/{load_balancer_id}?cascade=true")
    installation.kill()
    installation.start()
    api.gone(f"loadbalancers/{load_balancer_id}")
    until(lambda: not installation.amphora_processes() and not installation.places(), 10, "something is left")
