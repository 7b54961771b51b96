"""examples/trickle, a driver in a distribution of its own: installed as a vendor would, examined, and run for real.

Nothing of Frontinus knows it. A liar of the same distribution shows what only traffic can find out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.support import COMMAND, Backend, Installation, ask, free_port, serving, spread, until

pytestmark = pytest.mark.beside

EXAMPLE = Path(__file__).parents[2] / "examples" / "trickle"

LIAR = """
import asyncio, json
from frontinus.drivers.amphora.interface import Applied
from frontinus_trickle.driver import TrickleDriver

class Liar(TrickleDriver):
    '''Carries every text but the first member's port, and tells the digest of what was asked.'''
    interface = 1
    told = {}

    async def apply(self, amphora, tree, rendered):
        before = type(self).told.get(amphora.id)
        type(self).told[amphora.id] = rendered.digest
        if before is None:
            return await super().apply(amphora, tree, rendered)
        return Applied(digest=rendered.digest, action="unchanged" if before == rendered.digest else "runtime")

    async def info(self, amphora, tree):
        told = await super().info(amphora, tree)
        import msgspec
        return msgspec.structs.replace(told, digest=type(self).told.get(amphora.id))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example was installed by pip, from a copy: building leaves traces beside the source."""
    root = tmp_path_factory.mktemp("trickle")
    shutil.copytree(EXAMPLE, root / "source")
    target = root / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run(
        [*command, "--no-deps", "--no-build-isolation", "--target", str(target), str(root / "source")],
        check=True,
        timeout=100,
    )
    (target / "trickle_liar.py").write_text(LIAR)
    return target


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return site


def frontinus(*words: str) -> tuple[int, str, str]:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=110, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_example_keeps_every_promise(installed: Path) -> None:
    config = str(EXAMPLE / "exam.toml")
    status, text, complaint = frontinus("driver", "check", "trickle", "--config", config, "--strict", "--json")
    report = json.loads(text) if text else {}
    assert status == 0, (text[-2000:], complaint)
    assert {x["outcome"] for x in report["requirements"]} == {"passed", "not applicable"}
    assert report["counts"]["not applicable"] == 5


def test_traffic_finds_out_who_only_says_that_it_balances(installed: Path) -> None:
    config, only = (
        str(EXAMPLE / "exam.toml"),
        ("--only", "traffic reaches the members", "--only", "apply goes anywhere"),
    )
    status, text, complaint = frontinus("driver", "check", "trickle_liar:Liar", "--config", config, *only, "--json")
    outcomes = {x["name"]: x["outcome"] for x in json.loads(text)["requirements"]}
    assert (status, outcomes) == (
        1,
        {"apply goes anywhere": "passed", "traffic reaches the members": "failed"},
    ), (text, complaint)


def test_it_is_loaded_only_with_the_operators_word(installed: Path, tmp_path: Path) -> None:
    file = tmp_path / "frontinus.toml"
    file.write_text('[drivers]\namphora = "trickle"\n')
    status, _, complaint = frontinus("config", "check", "--config", str(file), "--state-dir", str(tmp_path / "state"))
    assert status == 2
    assert 'drivers.allow_experimental = ["trickle"]' in complaint


def test_an_installation_with_the_example_driver(installed: Path, tmp_path: Path, backends: list[Backend]) -> None:
    installation = Installation(tmp_path / "state", (EXAMPLE / "exam.toml").read_text())
    installation.start()
    try:
        api = installation.api()
        port = free_port()
        made = api.create(
            "loadbalancers",
            "loadbalancer",
            name="trickle",
            vip_subnet_id=api.subnet_id(),
            listeners=[
                {
                    "protocol": "TCP",
                    "protocol_port": port,
                    "default_pool": {
                        "name": "members",
                        "protocol": "TCP",
                        "lb_algorithm": "ROUND_ROBIN",
                        "members": [{"address": "127.0.0.1", "protocol_port": x.port} for x in backends],
                        "healthmonitor": {"type": "TCP", "delay": 1, "timeout": 1, "max_retries": 1},
                    },
                }
            ],
        )
        vip, pool_id = made["vip_address"], made["pools"][0]["id"]
        serving(vip, port)
        assert api.settled(made["id"])["provisioning_status"] == "ACTIVE"
        assert set(spread(vip, port, 6)) == {x.name for x in backends}
        until(lambda: api.load_balancer(made["id"])["operating_status"] == "ONLINE", 10, "its heartbeats say ONLINE")
        statistics = f"loadbalancers/{made['id']}/stats"
        until(lambda: api.show(statistics, "stats")["total_connections"] >= 6, 10, "its heartbeats count connections")

        # What it does not offer is refused, and named.
        listener = {"protocol": "HTTP", "protocol_port": free_port(), "loadbalancer_id": made["id"]}
        status, body = api.call("POST", "/v2/lbaas/listeners", {"listener": listener})
        assert (status, "protocol" in body["faultstring"]) == (501, True), body

        # A member goes; a member dies; the amphora outlives the control plane, and its own death.
        members = api.get(f"/v2/lbaas/pools/{pool_id}/members")[1]["members"]
        gone = next(x for x in members if x["protocol_port"] == backends[0].port)
        api.delete(f"pools/{pool_id}/members/{gone['id']}")
        api.settled(made["id"])
        rest = {x.name for x in backends[1:]}
        until(lambda: set(spread(vip, port, 6)) == rest, 5, "the member that went is asked no more")
        installation.kill()
        assert ask(vip, port)[0] == 200
        (agent,) = installation.amphora_processes()
        os.kill(agent.pid, 9)
        installation.start()
        until(lambda: set(spread(vip, port, 6)) == rest, 20, "another agent balances again")

        api.delete(f"loadbalancers/{made['id']}?cascade=true")
        api.gone(f"loadbalancers/{made['id']}")
        assert installation.amphora_processes() == []
    finally:
        installation.remove()
