"""Unmodified OpenStack clients: the `openstack` command and openstacksdk, without authentication on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest

from tests.acceptance.support import Backend, Installation, free_port, spread, until

SHELL = """
import contextlib, io, json, sys
from openstackclient import shell
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = shell.main(json.loads(line))
        except SystemExit as end:
            status = end.code
    print(sys.argv[1] + json.dumps([status, out.getvalue(), err.getvalue()]), file=sys.__stdout__, flush=True)
"""
MARK = "--- ended: "


class Cli:
    """`openstack loadbalancer …`, as typed. Answers are read with -f json.

    Each command goes through the entry point of the `openstack` script, in one process for all: its start costs more
    than what it does. `type` runs the script itself."""

    def __init__(self, endpoint: str) -> None:
        self._login = ["--os-auth-type", "none", "--os-endpoint", endpoint, "loadbalancer"]
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SHELL, MARK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )

    def close(self) -> None:
        self._process.communicate(timeout=20)

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        script = str(Path(sys.executable).with_name("openstack"))
        return subprocess.run(
            [script, *self._login, *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self._environment,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([*self._login, *words]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line.startswith(MARK), f"{words}: {line!r}"
        status, output, error = json.loads(line.removeprefix(MARK))
        return status, output, error

    def quiet(self, *words: str) -> None:
        status, output, error = self.run(*words)
        assert status == 0, (words, output, error)

    def ask(self, *words: str) -> Any:
        status, output, error = self.run(*words, "-f", "json")
        assert status == 0, (words, output, error)
        return json.loads(output)


@pytest.fixture
def cli(installation: Installation) -> Iterator[Cli]:
    made = Cli(installation.endpoint)
    yield made
    made.close()


def test_openstack_command(installation: Installation, cli: Cli, backends: list[Backend]) -> None:
    """Create, list, show, set, status, stats and delete of every resource of the first slice."""
    port = free_port()
    made = cli.ask("create", "--name", "web", "--vip-subnet-id", "loopback", "--wait")
    assert (made["provisioning_status"], made["name"]) == ("ACTIVE", "web")
    vip = made["vip_address"]
    cli.quiet("listener", "create", "--name", "l", "--protocol", "HTTP", "--protocol-port", str(port), "web")
    cli.quiet("pool", "create", "--name", "p", "--protocol", "HTTP", "--lb-algorithm", "ROUND_ROBIN", "--listener", "l")
    for server in backends:
        cli.quiet(
            "member",
            "create",
            "--name",
            server.name,
            "--address",
            "127.0.0.1",
            "--protocol-port",
            str(server.port),
            "p",
        )
    cli.quiet(
        "healthmonitor",
        "create",
        "--name",
        "h",
        "--type",
        "HTTP",
        "--url-path",
        "/",
        "--delay",
        "1",
        "--timeout",
        "1",
        "--max-retries",
        "1",
        "--wait",
        "p",
    )
    assert spread(vip, port, 9) == {x.name: 3 for x in backends}
    assert [x["name"] for x in cli.ask("list")] == ["web"]
    assert [x["name"] for x in cli.ask("listener", "list")] == ["l"]
    assert [x["name"] for x in cli.ask("pool", "list", "--loadbalancer", "web")] == ["p"]
    assert {x["name"] for x in cli.ask("member", "list", "p")} == {x.name for x in backends}
    assert [x["name"] for x in cli.ask("healthmonitor", "list")] == ["h"]
    assert cli.ask("listener", "show", "l")["protocol_port"] == port
    assert cli.ask("pool", "show", "p")["lb_algorithm"] == "ROUND_ROBIN"
    assert cli.ask("member", "show", "p", "backend-1")["protocol_port"] == backends[0].port
    assert cli.ask("healthmonitor", "show", "h")["type"] == "HTTP"
    cli.quiet("set", "--name", "shop", "--description", "what we sell", "web")
    cli.quiet("listener", "set", "--connection-limit", "100", "l")
    cli.quiet("listener", "unset", "--connection-limit", "l")
    cli.quiet("pool", "set", "--lb-algorithm", "LEAST_CONNECTIONS", "p")
    cli.quiet("member", "set", "--weight", "3", "p", "backend-1")
    cli.quiet("healthmonitor", "set", "--delay", "2", "--wait", "h")
    assert cli.ask("show", "shop")["description"] == "what we sell"
    assert cli.ask("member", "show", "p", "backend-1")["weight"] == 3
    _, output, _ = cli.run("status", "show", "shop")  # JSON by itself
    tree = json.loads(output)["loadbalancer"]
    assert [x["name"] for x in tree["listeners"][0]["pools"][0]["members"]] == [x.name for x in backends]
    until(
        lambda: cli.ask("stats", "show", "shop")["total_connections"] >= 9,
        30,
        "the statistics do not arrive",
        pause=0.5,
    )
    assert cli.ask("listener", "stats", "show", "l")["total_connections"] >= 9
    assert {x["name"] for x in cli.ask("provider", "list")} >= {"amphora", "octavia"}
    assert cli.run("delete", "shop")[0] != 0, "a load balancer with children needs --cascade"
    cli.quiet("member", "delete", "p", "backend-3")
    cli.quiet("healthmonitor", "delete", "h")
    cli.quiet("delete", "--cascade", "--wait", "shop")
    assert cli.ask("list") == []
    assert installation.amphora_processes() == []


def test_openstack_amphora_commands(installation: Installation, cli: Cli) -> None:
    """An amphora is listed, shown, pushed to and replaced; so is a load balancer's, with the same VIP."""
    made = cli.ask("create", "--name", "web", "--vip-subnet-id", "loopback", "--wait")

    def amphora() -> Any:
        (one,) = cli.ask("amphora", "list", "--loadbalancer", "web")
        return one

    first = amphora()
    assert (first["status"], first["ha_ip"]) == ("ALLOCATED", made["vip_address"])
    assert cli.ask("amphora", "show", first["id"])["loadbalancer_id"] == made["id"]
    cli.quiet("amphora", "configure", first["id"])
    assert cli.run("amphora", "delete", first["id"])[0] != 0, "it is not in ERROR"
    assert cli.run("amphora", "stats", "show", first["id"])[0] != 0, "it has no listener to tell of"
    cli.quiet("amphora", "failover", "--wait", first["id"])
    second = amphora()
    assert second["id"] != first["id"]
    cli.quiet("failover", "--wait", "web")
    third = amphora()
    assert third["id"] not in (first["id"], second["id"])
    assert (third["status"], third["ha_ip"]) == ("ALLOCATED", made["vip_address"])
    cli.quiet("delete", "--wait", "web")
    assert installation.amphora_processes() == []


def test_openstack_command_as_typed(cli: Cli) -> None:
    made = cli.type("create", "--name", "typed", "--vip-subnet-id", "loopback", "-f", "value", "-c", "name")
    assert (made.returncode, made.stdout.strip()) == (0, "typed"), made.stderr
    unknown = cli.type("show", "nobody")
    assert unknown.returncode != 0
    assert "nobody" in unknown.stderr
    wrong = cli.type("create", "--name", "x", "--vip-subnet-id", "loopback", "--vip-address", "10.9.8.7")
    assert wrong.returncode != 0
    assert "10.9.8.7" in wrong.stderr


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_openstacksdk(installation: Installation, backends: list[Backend]) -> None:
    connection = openstack.connection.Connection(auth_type="none", endpoint=installation.endpoint)
    try:
        api: Any = connection.load_balancer  # its annotations are looser than what it does
        port = free_port()
        subnet = connection.network.find_subnet("loopback", ignore_missing=False)
        assert subnet is not None
        load_balancer = api.create_load_balancer(name="web", vip_subnet_id=subnet.id)
        listener = api.create_listener(name="l", protocol="HTTP", protocol_port=port, load_balancer_id=load_balancer.id)
        pool = api.create_pool(name="p", protocol="HTTP", lb_algorithm="ROUND_ROBIN", listener_id=listener.id)
        members = [api.create_member(pool, name=x.name, address="127.0.0.1", protocol_port=x.port) for x in backends]
        monitor = api.create_health_monitor(pool_id=pool.id, type="TCP", delay=1, timeout=1, max_retries=1)
        active = api.wait_for_load_balancer(load_balancer.id, interval=0.2, wait=20)
        assert active.provisioning_status == "ACTIVE"
        assert spread(active.vip_address, port, 9) == {x.name: 3 for x in backends}
        assert [x.id for x in api.load_balancers(name="web")] == [load_balancer.id]
        assert api.find_load_balancer("web").id == load_balancer.id
        assert [x.id for x in api.listeners()] == [listener.id]
        assert {x.id for x in api.members(pool)} == {x.id for x in members}
        assert api.get_health_monitor(monitor.id).type == "TCP"
        assert api.update_load_balancer(load_balancer, name="shop").name == "shop"
        assert api.update_listener(listener, connection_limit=50).connection_limit == 50
        assert api.update_member(members[0], pool, weight=7).weight == 7
        api.wait_for_load_balancer(load_balancer.id, interval=0.2, wait=20)
        statistics = api.get_load_balancer_statistics(load_balancer.id)
        assert statistics.request_errors == 0
        api.delete_member(members[2], pool)
        api.delete_health_monitor(monitor)
        api.delete_load_balancer(load_balancer.id, cascade=True)
        until(lambda: not list(api.load_balancers()), 20, "the load balancer is not deleted", pause=0.1)
    finally:
        connection.close()
    assert installation.amphora_processes() == []
