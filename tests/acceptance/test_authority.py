"""`frontinus ca rotate` and `frontinus rollout start --authority` beside a running installation: amphorae and traffic stay,
and everybody speaks to everybody."""

from __future__ import annotations

import http.client
import ssl
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

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


def run(installation: Installation, *words: str, expect: int = 0) -> str:
    """What a command says to people and programs."""
    command = [*COMMAND, *words, "--state-dir", str(installation.state_dir)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == expect, f"{words}: {done.stdout}{done.stderr}{installation.log()}"
    return done.stdout + done.stderr


def test_the_authority_is_replaced_under_load(installation: Installation, backends: list[Backend]) -> None:
    ca = partial(run, installation, "ca")
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


class Agents:
    """The agents of amphorae, asked over TLS as anybody can."""

    def __init__(self, installation: Installation, addresses: list[str]) -> None:
        self._directory = installation.state_dir / "authority"
        self._addresses = addresses

    def authority(self) -> x509.Certificate:
        """The one that issues."""
        return x509.load_pem_x509_certificate((self._directory / "ca.pem").read_bytes())

    def vouched_for(self, authority: x509.Certificate) -> int:
        """How many serve with a certificate of this authority."""
        shown = [
            x509.load_pem_x509_certificate(ssl.get_server_certificate((x, 9443)).encode()) for x in self._addresses
        ]
        key = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        issuers = [x.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value for x in shown]
        return sum(x.key_identifier == key for x in issuers)

    def answer(self, client: Path) -> int:
        """How many answer to whoever has this certificate."""
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        tls.load_cert_chain(client)
        return sum(_answers(x, tls) for x in self._addresses)


def _answers(address: str, tls: ssl.SSLContext) -> bool:
    connection = http.client.HTTPSConnection(address, 9443, timeout=5, context=tls)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_authority_is_replaced_in_waves_under_load(
    installation: Installation, backends: list[Backend], tmp_path: Path
) -> None:
    soak = 2.0
    pace = ("--canary", "1", "--canary-soak", str(soak), "--at-once", "1", "--soak", "0.5")
    ca, rollout = partial(run, installation, "ca"), partial(run, installation, "rollout")
    api, port = installation.api(), free_port()
    made = [api.web_load_balancer(backends, port) for _ in range(3)]
    for load_balancer in made:
        api.settled(load_balancer["id"])
        serving(load_balancer["vip_address"], port)
        until(partial(all_online, api, load_balancer["id"]), 20, "it is not heard")
    before = {x["id"]: api.amphorae(x["id"]) for x in made}
    shown = [api.get(f"/v2/octavia/amphorae/{x}")[1]["amphora"] for ids in before.values() for x in ids]
    agents = Agents(installation, [x["lb_network_ip"] for x in shown])
    first, controller = agents.authority(), tmp_path / "controller.pem"
    (found,) = (installation.state_dir / "authority").glob("client-*.pem")
    controller.write_bytes(found.read_bytes())
    assert (agents.vouched_for(first), agents.answer(controller)) == (3, 3)

    with Load(made[0]["vip_address"], port, pause=0.01) as load:
        assert "finished" in rollout("start", "--authority", *pace, "--watch")
        assert "phase: introduced; 3 of 3 amphorae" in ca("show")
        assert (agents.vouched_for(first), agents.answer(controller)) == (3, 3)

        assert "issues every certificate from now on" in rollout("start", "--authority", *pace)
        second, reached = agents.authority(), dict[int, float]()
        assert "a rollout brings the authority's phase" in ca("rotate", "--timeout", "1", expect=1)
        until(
            lambda: reached.setdefault(agents.vouched_for(second), time.monotonic()) and 3 in reached, 60, "all have it"
        )
        assert [*reached] in ([0, 1, 2, 3], [1, 2, 3]), "each in its turn"
        assert reached[2] - reached[1] > soak - 1, "the canary was watched"
        assert "finished" in rollout("watch")
        assert agents.answer(controller) == 3, "the authority before is trusted until the end"

        report(rollout("start", "--authority", *pace, "--watch"))
        assert "phase: steady; 3 of 3 amphorae" in ca("show")
        assert (agents.vouched_for(second), agents.answer(controller)) == (3, 0)
        for load_balancer in made:
            until(partial(all_online, api, load_balancer["id"]), 10, "heartbeats are not heard any more")
    assert load.answers.total() > 0
    assert load.errors == []
    assert {x["id"]: api.amphorae(x["id"]) for x in made} == before
    assert [x.split()[3] for x in rollout("list").splitlines()] == ["finished"] * 3
