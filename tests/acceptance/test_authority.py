"""`frontinus ca rotate` beside a running installation: amphorae and traffic stay, and everybody speaks to everybody."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.support import COMMAND, Api, Backend, Installation, Load, free_port, report, serving, until

pytestmark = pytest.mark.beside


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "state", "[controller]\nrenewal_interval = 0.3\n")
    try:
        made.start()
        yield made
    finally:
        made.remove()


def all_online(api: Api, load_balancer_id: str) -> bool:
    listeners = api.get(f"/v2/lbaas/listeners?loadbalancer_id={load_balancer_id}")[1]["listeners"]
    return {x["operating_status"] for x in listeners} == {"ONLINE"}


def test_the_authority_is_replaced_under_load(installation: Installation, backends: list[Backend]) -> None:
    def ca(*arguments: str) -> str:
        command = [*COMMAND, "ca", *arguments, "--state-dir", str(installation.state_dir)]
        done = subprocess.run(command, text=True, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    api, port = installation.api(), free_port()
    made = [api.web_load_balancer(backends, port) for _ in range(2)]
    for load_balancer in made:
        api.settled(load_balancer["id"])
        serving(load_balancer["vip_address"], port)
    key = installation.state_dir / "authority" / "heartbeat.key"
    before, old_key = {x["id"]: api.amphorae(x["id"]) for x in made}, key.read_bytes()
    first = ca("show")
    assert "phase: steady; 2 of 2 amphorae" in first
    with Load(made[0]["vip_address"], port) as load:
        report(ca("rotate", "--timeout", "30"))
        after = ca("show")
        for load_balancer in made:
            api.create(
                "listeners",
                "listener",
                loadbalancer_id=load_balancer["id"],
                protocol="HTTP",
                protocol_port=free_port(),
            )
            assert api.settled(load_balancer["id"])["provisioning_status"] == "ACTIVE"
            # Heard with the new key: what the new listener is was said after the change.
            until(partial(all_online, api, load_balancer["id"]), 10, "heartbeats are not heard any more")
    assert key.read_bytes() != old_key
    assert load.answers.total() > 0
    assert not load.errors
    assert "phase: steady; 2 of 2 amphorae" in after
    assert first.split()[0] != after.split()[0]
    assert {x["id"]: api.amphorae(x["id"]) for x in made} == before
    (amphora,) = before[made[0]["id"]]
    assert api.get(f"/v2/octavia/amphorae/{amphora}")[1]["amphora"]["cert_expiration"] is not None
