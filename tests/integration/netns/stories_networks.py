"""A load balancer on networks of its own: a client on one bridge, members on others, and all that is between them real.
Run by test_sandbox.py."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from frontinus.cli.main import main as cli
from frontinus.drivers import iproute

from tests.integration.netns.hosts import Host, Installation, installation, ip_json, processes_of


def test_a_client_on_a_bridge_reaches_members_on_others(tmp_path: Path) -> None:
    with installation(tmp_path) as frontinus:
        for name in ("front", "back", "deep"):
            frontinus.command("network", "create", name)
        subnets = {
            cidr: frontinus.command("network", "subnet", "create", network, cidr)
            for network, cidr in (
                ("front", "10.20.0.0/24"),
                ("front", "fd20::/64"),
                ("back", "10.30.0.0/24"),
                ("deep", "fd40::/64"),
            )
        }
        listed = {x["name"]: x for x in json.loads(frontinus.command("network", "list", "--json"))}
        client = Host("client", listed["front"]["bridge"], "10.20.0.2/24", "fd20::2/64")
        one = Host("one", listed["back"]["bridge"], "10.30.0.2/24")
        two = Host("two", listed["deep"]["bridge"], "fd40::2/64")
        for host in (one, two):
            host.serve(8080)
        frontinus.start()
        body = {
            "loadbalancer": {
                "name": "shop",
                "vip_subnet_id": subnets["10.20.0.0/24"],
                "vip_address": "10.20.0.10",
                "additional_vips": [{"subnet_id": subnets["fd20::/64"], "ip_address": "fd20::10"}],
                "listeners": [
                    {
                        "name": "web",
                        "protocol": "HTTP",
                        "protocol_port": 80,
                        "default_pool": {
                            "name": "web",
                            "protocol": "HTTP",
                            "lb_algorithm": "ROUND_ROBIN",
                            "members": [
                                {
                                    "address": "10.30.0.2",
                                    "protocol_port": 8080,
                                    "subnet_id": subnets["10.30.0.0/24"],
                                }
                            ],
                        },
                    }
                ],
            }
        }
        made = frontinus.call("POST", "/v2.0/lbaas/loadbalancers", body)["loadbalancer"]
        frontinus.settled(made["id"])
        assert client.get("http://10.20.0.10/") == "one"
        assert client.get("http://[fd20::10]/") == "one"

        amphora = frontinus.amphora(made["id"])
        assert amphora["ha_ip"] == "10.20.0.10"
        assert amphora["vrrp_ip"].startswith("10.20.0.")
        assert amphora["vrrp_interface"] == "eth1"

        # Only the listener's port answers: neither the agent, nor anything else that listens in there.
        assert client.reaches("10.20.0.10", 80)
        assert not client.reaches("10.20.0.10", 9443)
        assert not client.reaches("fd20::10", 9443)
        assert not client.reaches(amphora["vrrp_ip"], 22)

        # A member on a network where the amphora was not.
        pool = frontinus.call("GET", "/v2.0/lbaas/pools")["pools"][0]
        member = {"member": {"address": "fd40::2", "protocol_port": 8080, "subnet_id": subnets["fd40::/64"]}}
        frontinus.call("POST", f"/v2.0/lbaas/pools/{pool['id']}/members", member)
        frontinus.settled(made["id"])
        assert {client.get("http://10.20.0.10/") for _ in range(6)} == {"one", "two"}

        # The amphora dies with all that is in it: another one has the same address, and is found at once.
        for pid in processes_of(amphora["id"]):
            os.kill(pid, signal.SIGKILL)
        frontinus.until(
            lambda: (
                frontinus.call("GET", f"/v2.0/octavia/amphorae?loadbalancer_id={made['id']}")["amphorae"][0]["id"]
                != amphora["id"]
            ),
            "another amphora",
        )
        frontinus.settled(made["id"])
        assert {client.get("http://10.20.0.10/") for _ in range(6)} == {"one", "two"}

        frontinus.call("DELETE", f"/v2.0/lbaas/loadbalancers/{made['id']}?cascade=true")
        frontinus.until(lambda: not frontinus.call("GET", "/v2.0/octavia/amphorae")["amphorae"], "the amphora has gone")
        left = {x["ifname"] for x in ip_json("link", "show")}
        assert left == {"lo", *(f"to-{x.name}" for x in (client, one, two)), *(x["bridge"] for x in listed.values())}
        assert sorted(x.name for x in Path("/run/netns").iterdir()) == ["client", "one", "two"]


@pytest.fixture(scope="module")
def frontinus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One that does not run, with a network `front`."""
    made = Installation(tmp_path_factory.mktemp("state"))
    made.command("network", "create", "front")
    made.command("network", "subnet", "create", "front", "10.20.0.0/24")
    yield made
    before = {x["ifname"] for x in iproute.links()}
    made.command("network", "delete", "front")
    assert len(before - {x["ifname"] for x in iproute.links()}) == 1


CREATE, SUBNET = ["network", "create"], ["network", "subnet", "create"]


@pytest.mark.parametrize(
    "words,field",
    [
        pytest.param([*CREATE, ""], "name", id="no name"),
        pytest.param([*CREATE, "front"], "name", id="a name that is taken"),
        pytest.param([*CREATE, "--mtu", "12", "x"], "mtu", id="MTU"),
        pytest.param([*CREATE, "--bridge", "nowhere", "x"], "bridge", id="a bridge that is not there"),
        pytest.param([*CREATE, "--bridge", "a b;c", "x"], "bridge", id="no name of a bridge"),
        pytest.param([*SUBNET, "x", "10.1.0.0/24"], "network", id="unknown network"),
        pytest.param([*SUBNET, "front", "10.1.0.1/24"], "cidr", id="bits of a host"),
        pytest.param([*SUBNET, "front", "ten"], "cidr", id="no network"),
        pytest.param([*SUBNET, "front", "10.20.0.0/16"], "cidr", id="overlaps"),
        pytest.param([*SUBNET, "--gateway", "10.2.0.1", "front", "10.1.0.0/24"], "gateway", id="gateway elsewhere"),
        pytest.param([*SUBNET, "--gateway", "10.1.0.255", "front", "10.1.0.0/24"], "gateway", id="all of it"),
        pytest.param([*SUBNET, "--host-address", "fd00::1", "front", "10.1.0.0/24"], "host_address", id="family"),
        pytest.param([*SUBNET, "--pool", "10.1.0.9", "front", "10.1.0.0/24"], "pool", id="one end"),
        pytest.param([*SUBNET, "--pool", "10.1.0.9-10.1.0.2", "front", "10.1.0.0/24"], "pool", id="backwards"),
        pytest.param([*SUBNET, "--pool", "10.1.0.9-10.1.1.2", "front", "10.1.0.0/24"], "pool", id="outside"),
        pytest.param([*SUBNET, "--route", "10.9.0.0/16", "front", "10.1.0.0/24"], "route", id="no next hop"),
        pytest.param([*SUBNET, "--route", "10.9.0.0/16=10.2.0.1", "front", "10.1.0.0/24"], "route", id="next hop"),
        pytest.param(["network", "show", "management"], "network", id="management is nobody's"),
        pytest.param(["network", "delete", "x"], "network", id="deletes an unknown one"),
        pytest.param(["network", "subnet", "delete", "x"], "subnet", id="deletes an unknown subnet"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_changes_nothing(
    words: list[str], field: str, frontinus: Installation
) -> None:
    before = frontinus.command("network", "list", "--json"), [x["ifname"] for x in iproute.links()]
    done = CliRunner().invoke(cli, [*words, "--config", str(frontinus.config)])
    assert done.exit_code in (1, 2)
    assert f"{field}: " in done.output
    after = frontinus.command("network", "list", "--json"), [x["ifname"] for x in iproute.links()]
    assert after == before


def test_purging_leaves_no_bridge_and_no_filter(tmp_path: Path) -> None:
    before = {x["ifname"] for x in iproute.links()}
    frontinus = Installation(tmp_path / "state")
    frontinus.command("network", "create", "front")
    frontinus.command("network", "subnet", "create", "--host-address", "10.50.0.1", "front", "10.50.0.0/24")
    (held,) = [x for row in ip_json("address", "show") for x in row["addr_info"] if x.get("local") == "10.50.0.1"]
    assert held["prefixlen"] == 24
    (tmp_path / "state" / "up.lock").touch()
    frontinus.command("down", "--purge")
    assert {x["ifname"] for x in iproute.links()} == before
    assert not (tmp_path / "state").exists()
