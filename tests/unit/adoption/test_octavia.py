"""What of an Octavia's rows becomes what, and why something is left alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from frontinus.adoption.octavia import judge
from frontinus.adoption.snapshot import Snapshot
from frontinus.drivers.amphora.haproxy.render import CAPABILITIES
from frontinus.model.capabilities import Capabilities, with_compute
from frontinus.model.enums import AmphoraRole, Kind
from frontinus.model.placement import COMPUTE_FLAVOR, COMPUTE_ZONE, Placement
from frontinus.model.tree import HealthMonitor

NOW = datetime(2026, 11, 27, tzinfo=UTC)
ACTIVE = {
    "provisioning_status": "ACTIVE",
    "operating_status": "ONLINE",
    "enabled": 1,
    "project_id": "p",
    "name": "a name",
}
TIMES = {"created_at": datetime(2020, 1, 2, 3, 4, 5), "updated_at": None}  # noqa: DTZ001 - as Octavia's columns are
NO_TLS: dict[str, Any] = {"tls_ciphers": None, "tls_versions": None, "alpn_protocols": None, "tls_certificate_id": None}
IDENTITY = "an identity"


def number(value: int) -> str:
    return str(UUID(int=value))


Tables = dict[str, list[dict[str, Any]]]


def an_octavia() -> Tables:
    """One load balancer, one of everything below it."""
    below = {**ACTIVE, **TIMES}
    return {
        "load_balancer": [
            {
                **below,
                "id": number(1),
                "description": None,
                "topology": "SINGLE",
                "provider": "amphora",
                "flavor_id": None,
                "availability_zone": None,
                "server_group_id": None,
            }
        ],
        "vip": [
            {
                "load_balancer_id": number(1),
                "ip_address": "192.0.2.9",
                "port_id": "port",
                "subnet_id": "subnet",
                "network_id": "network",
                "qos_policy_id": None,
                "octavia_owned": 0,
                "vnic_type": "normal",
            }
        ],
        "amphora": [an_amphora(2, "STANDALONE")],
        "listener": [
            {
                **below,
                **NO_TLS,
                "id": number(10),
                "load_balancer_id": number(1),
                "default_pool_id": number(20),
                "description": "",
                "protocol": "HTTP",
                "protocol_port": 80,
                "connection_limit": None,
                "insert_headers": None,
                "timeout_client_data": None,
                "timeout_member_connect": 1,
                "timeout_member_data": 2,
                "timeout_tcp_inspect": 0,
                "client_ca_tls_certificate_id": None,
                "client_authentication": "NONE",
                "client_crl_container_id": None,
                "hsts_max_age": None,
                "hsts_include_subdomains": None,
                "hsts_preload": None,
            }
        ],
        "listener_cidr": [{"listener_id": number(10), "cidr": "192.0.2.0/24"}],
        "pool": [
            {
                **below,
                **NO_TLS,
                "id": number(20),
                "load_balancer_id": number(1),
                "description": None,
                "protocol": "HTTP",
                "lb_algorithm": "ROUND_ROBIN",
                "ca_tls_certificate_id": None,
                "crl_container_id": None,
                "tls_enabled": 0,
            }
        ],
        "session_persistence": [
            {
                "pool_id": number(20),
                "type": "HTTP_COOKIE",
                "cookie_name": None,
                "persistence_timeout": None,
                "persistence_granularity": None,
            }
        ],
        "member": [
            {
                **below,
                "id": number(30),
                "pool_id": number(20),
                "subnet_id": None,
                "ip_address": "192.0.2.30",
                "protocol_port": 8080,
                "weight": 3,
                "backup": 1,
                "monitor_address": None,
                "monitor_port": None,
                "vnic_type": None,
            }
        ],
        "health_monitor": [
            {
                **below,
                "id": number(40),
                "pool_id": number(20),
                "type": "HTTP",
                "delay": 5,
                "timeout": 4,
                "rise_threshold": 2,
                "fall_threshold": 7,
                "http_method": "GET",
                "url_path": "/",
                "expected_codes": "200",
                "http_version": None,
                "domain_name": None,
            }
        ],
        "tags": [{"resource_id": number(30), "tag": "b"}, {"resource_id": number(30), "tag": "a"}],
        "quotas": [{"project_id": "p", "load_balancer": 5, "listener": None, "pool": None, "member": None,
                    "health_monitor": None, "l7policy": 6, "l7rule": None}],
    }  # fmt: skip


def an_amphora(value: int, role: str, status: str = "ALLOCATED") -> dict[str, Any]:
    return {
        **TIMES,
        "id": number(value),
        "load_balancer_id": number(1),
        "compute_id": "server",
        "lb_network_ip": f"198.51.100.{value}",
        "vrrp_ip": f"192.0.2.{value}",
        "vrrp_port_id": "vrrp",
        "vrrp_interface": "eth1",
        "cert_expiration": datetime(2026, 12, 20),  # noqa: DTZ001
        "role": role,
        "status": status,
    }


def an_additional_vip(subnet_id: str, network_id: str | None = "network") -> dict[str, Any]:
    return {
        "load_balancer_id": number(1),
        "ip_address": "198.51.100.9",
        "port_id": "port",
        "subnet_id": subnet_id,
        "network_id": network_id,
    }


def findings(tables: Tables, capabilities: Capabilities = CAPABILITIES) -> Any:
    return judge(Snapshot(tables=tables), capabilities, IDENTITY, NOW)


def test_everything_is_kept() -> None:
    found = findings(an_octavia())
    (tree,) = found.trees
    assert (found.left_alone, found.notes) == ((), ())
    load_balancer = tree.load_balancer
    assert (load_balancer.id, load_balancer.name, load_balancer.description) == (number(1), "a name", "")
    assert (load_balancer.vip.address, load_balancer.vip_port_owned) == ("192.0.2.9", False)
    assert load_balancer.generation == load_balancer.applied_generation == 1
    assert load_balancer.created_at == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    (listener,) = tree.listeners
    assert (listener.connection_limit, listener.allowed_cidrs) == (-1, ("192.0.2.0/24",))
    assert (listener.timeout_client_data, listener.timeout_member_connect) == (50_000, 1)  # NULL: the default
    (member,) = tree.members
    assert (member.load_balancer_id, member.weight, member.backup, member.tags) == (number(1), 3, True, ("a", "b"))
    (monitor,) = tree.health_monitors
    assert isinstance(monitor, HealthMonitor)
    assert (monitor.max_retries, monitor.max_retries_down) == (2, 7)
    (amphora,) = tree.amphorae
    assert (amphora.speaks_plain, amphora.identity_digest, amphora.role) == (True, IDENTITY, AmphoraRole.STANDALONE)
    assert amphora.certificate_renew_at == datetime(2026, 12, 6, tzinfo=UTC)
    assert found.quotas["p"][Kind.L7_POLICY] == 6


@pytest.mark.parametrize("owned", [True, False])
def test_additional_vips_are_on_the_port_of_the_first_whosever_it_is(owned: bool) -> None:
    tables = an_octavia()
    tables["vip"][0]["octavia_owned"] = int(owned)
    tables["additional_vip"] = [an_additional_vip("subnet-2")]
    (tree,) = findings(tables).trees
    (further,) = tree.load_balancer.additional_vips
    assert (further.address, further.subnet_id) == ("198.51.100.9", "subnet-2")
    assert (further.port_id, further.port_owned) == (tree.load_balancer.vip.port_id, owned)


def test_an_additional_vip_of_which_octavia_keeps_no_network_is_kept() -> None:
    tables = an_octavia()
    tables["additional_vip"] = [an_additional_vip("subnet-2", None)]
    (tree,) = findings(tables).trees
    assert [x.subnet_id for x in tree.load_balancer.additional_vips] == ["subnet-2"]


def _set(table: str, **values: Any) -> Callable[[Tables], None]:
    return lambda tables: tables[table][0].update(values)


def _add(table: str, row: dict[str, Any]) -> Callable[[Tables], None]:
    return lambda tables: tables.setdefault(table, []).append(row)


@pytest.mark.parametrize(
    "reason, change",
    [
        pytest.param("provider ovn", _set("load_balancer", provider="ovn"), id="another provider"),
        pytest.param("PENDING_UPDATE", _set("load_balancer", provisioning_status="PENDING_UPDATE"), id="at work"),
        pytest.param(
            f"member {number(30)} is ERROR", _set("member", provisioning_status="ERROR"), id="a child in ERROR"
        ),
        pytest.param("fail it over", _set("amphora", status="ERROR"), id="its amphora is in ERROR"),
        pytest.param("fail it over", _set("load_balancer", topology="ACTIVE_STANDBY"), id="half a pair"),
        pytest.param("fail it over", _add("amphora", an_amphora(3, "STANDALONE", "BOOTING")), id="amid a failover"),
        pytest.param("management network", _set("amphora", lb_network_ip=None), id="an amphora without address"),
        pytest.param("VIP lacks", _set("vip", network_id=None), id="a VIP without network"),
        pytest.param(
            "load_balancer.additional_vips[0].subnet_id: every VIP of a load balancer is on a subnet of its own",
            _add("additional_vip", an_additional_vip("subnet")),
            id="an additional VIP beside the first",
        ),
        pytest.param(
            "load_balancer.additional_vips[0].subnet_id: subnet subnet-2 is not on network network, on which the VIP is",
            _add("additional_vip", an_additional_vip("subnet-2", "elsewhere")),
            id="an additional VIP on another network",
        ),
        pytest.param("insert_headers cannot be read", _set("listener", insert_headers=b"\x80"), id="broken headers"),
        pytest.param(
            "SCTP", _set("listener", protocol="SCTP", default_pool_id=None), id="what the driver does not carry"
        ),
        pytest.param("protocol_port", _set("listener", protocol_port=0), id="what was never right"),
    ],
)
def test_what_cannot_be_taken_over_is_left_alone(reason: str, change: Callable[[Tables], None]) -> None:
    tables = an_octavia()
    change(tables)
    found = findings(tables)
    assert found.trees == ()
    assert [(x.kind, x.id) for x in found.left_alone if reason in x.reason] == [("load balancer", number(1))]


def test_a_pair_keeps_its_roles() -> None:
    tables = an_octavia()
    tables["load_balancer"][0]["topology"] = "ACTIVE_STANDBY"
    tables["amphora"] = [an_amphora(2, "BACKUP"), an_amphora(3, "MASTER")]
    (tree,) = findings(tables).trees
    assert {x.id: (x.role, x.vrrp_interface) for x in tree.amphorae} == {
        number(2): (AmphoraRole.BACKUP, "eth1"),
        number(3): (AmphoraRole.MASTER, "eth1"),
    }


def with_offers(flavor_data: str, zone_data: str) -> Tables:
    """The load balancer has a flavor and a zone of these data."""
    tables = an_octavia()
    tables["load_balancer"][0] |= {"flavor_id": number(50), "availability_zone": "east"}
    named = {"description": "", "enabled": 1}
    profile = {"id": number(60), "name": "p", "provider_name": "amphora"}
    tables["flavor_profile"] = [{**profile, "flavor_data": flavor_data}]
    tables["flavor"] = [{**named, "id": number(50), "name": "f", "flavor_profile_id": number(60)}]
    tables["availability_zone_profile"] = [{**profile, "availability_zone_data": zone_data}]
    tables["availability_zone"] = [{**named, "name": "east", "availability_zone_profile_id": number(60)}]
    return tables


def test_amphorae_to_come_are_made_as_flavor_and_zone_say() -> None:
    tables = with_offers('{"compute_flavor": "m1", "loadbalancer_topology": "SINGLE"}', '{"compute_zone": "az1"}')
    able = with_compute(CAPABILITIES, frozenset({COMPUTE_FLAVOR, COMPUTE_ZONE}))
    (tree,) = findings(tables, able).trees
    assert tree.load_balancer.placement == Placement(compute_flavor="m1", compute_zone="az1")
    (left,) = findings(tables).left_alone
    assert "compute_flavor" in left.reason, "these drivers would make them otherwise"


def test_flavor_and_zone_that_say_nothing_of_it_are_no_trouble() -> None:
    (tree,) = findings(with_offers('{"loadbalancer_topology": "SINGLE"}', "{}")).trees
    assert tree.load_balancer.placement is None


def test_what_was_deleted_is_no_trouble() -> None:
    tables = an_octavia()
    tables["load_balancer"][0]["provisioning_status"] = "DELETED"
    tables["amphora"][0]["status"] = "DELETED"
    found = findings(tables)
    assert (found.trees, found.left_alone) == ((), ())


def test_the_rows_that_octavia_keeps_for_deleted_ones_are_no_trouble() -> None:
    tables = an_octavia()
    nil = number(0)
    tables["availability_zone_profile"] = [{"id": nil, "name": "DELETED-PLACEHOLDER", "provider_name": "DELETED"}]
    tables["availability_zone"] = [{"name": nil, "description": "", "availability_zone_profile_id": nil}]
    assert findings(tables).left_alone == ()
