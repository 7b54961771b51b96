"""Unmodified OpenStack clients: the `openstack` command and openstacksdk, without authentication on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openstack
import pytest

from tests.acceptance.openstack_cli import Cli
from tests.acceptance.support import Backend, Installation, free_port, spread, until


@pytest.fixture
def cli(installation: Installation) -> Iterator[Cli]:
    made = Cli.without_login(installation.endpoint)
    yield made
    made.close()


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
