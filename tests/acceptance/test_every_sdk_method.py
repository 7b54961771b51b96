"""Every method of openstacksdk's load balancer proxy, as the installed SDK has it, against a running Frontinus.

Methods are listed by introspection: one that the story does not call fails the test, unless it stands in LEFT_OUT with its
reason. Everyday without a login; behind a real Keystone in the long run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest
from openstack.load_balancer.v2._proxy import Proxy

from tests.acceptance.keystone_cloud import PASSWORD, frontinus_behind, keystone_server
from tests.acceptance.support import Installation, free_port, until

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")

LEFT_OUT: dict[str, str] = {}
"""Methods without a call, and why."""


class Watched:
    """The proxy, which remembers what of it was called."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.called.add(name)
        return getattr(self._proxy, name)


@pytest.fixture
def plain(installation: Installation) -> Iterator[openstack.connection.Connection]:
    connection = openstack.connection.Connection(auth_type="none", endpoint=installation.endpoint)
    yield connection
    connection.close()


@pytest.fixture
def behind_keystone(tmp_path: Path) -> Iterator[openstack.connection.Connection]:
    (tmp_path / "keystone").mkdir()
    with keystone_server(tmp_path / "keystone") as keystone:
        keystone.add_user("frontinus", "service", "service")
        with frontinus_behind(keystone, tmp_path):
            connection = openstack.connection.Connection(
                auth={
                    "auth_url": keystone.url,
                    "username": "admin",
                    "password": PASSWORD,
                    "project_name": "admin",
                    "user_domain_name": "Default",
                    "project_domain_name": "Default",
                },
                region_name="RegionOne",
            )
            yield connection
            connection.close()


def test_every_method(plain: openstack.connection.Connection) -> None:
    tell_all(plain)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_every_method_behind_keystone(behind_keystone: openstack.connection.Connection) -> None:
    tell_all(behind_keystone)


def tell_all(cloud: openstack.connection.Connection) -> None:
    api = Watched(cloud.load_balancer)
    own = {name for name, value in vars(Proxy).items() if callable(value) and not name.startswith("_")}
    assert len(own) >= 80
    tell_of_offers(api)
    tell_of_quotas(api, cloud)
    tell_of_a_tree(api, cloud)
    assert own - api.called - set(LEFT_OUT) == set()
    assert set(LEFT_OUT) <= own - api.called, "what is called needs no reason"


def go_round(api: Any, kind: str, plural: str, *parents: Any, change: dict[str, Any], **attributes: Any) -> Any:
    """Create, get, find, list and update one of a kind; the parents stand behind it, where it has any."""
    front = parents if kind == "l7_rule" else ()
    if kind == "member":
        made = api.create_member(*parents, **attributes)
    else:
        made = getattr(api, f"create_{kind}")(*front, **attributes)
    assert getattr(api, f"get_{kind}")(made.id, *parents).id == made.id
    find: Callable[..., Any] = getattr(api, f"find_{kind}")
    assert find(made.id, *parents).id == made.id
    if attributes.get("name"):
        assert find(attributes["name"], *parents).id == made.id
    assert find("nobody", *parents, ignore_missing=True) is None
    listed = list(getattr(api, plural)(*parents))
    assert made.id in {x.id for x in listed}
    changed = getattr(api, f"update_{kind}")(made.id, *parents, **change)
    assert {name: getattr(changed, name) for name in change} == change
    return made


def tell_of_offers(api: Any) -> None:
    assert {x.name for x in api.providers()} >= {"amphora", "octavia"}
    assert "loadbalancer_topology" in {x.name for x in api.provider_flavor_capabilities("amphora")}
    profile = go_round(
        api,
        "flavor_profile",
        "flavor_profiles",
        name="single",
        provider_name="amphora",
        flavor_data="{}",
        change={"name": "one"},
    )
    flavor = go_round(
        api,
        "flavor",
        "flavors",
        name="small",
        flavor_profile_id=profile.id,
        is_enabled=True,
        change={"description": "d", "is_enabled": False},
    )
    api.delete_flavor(flavor.id, ignore_missing=False)
    api.delete_flavor_profile(profile.id, ignore_missing=False)
    profile = go_round(
        api,
        "availability_zone_profile",
        "availability_zone_profiles",
        name="here",
        provider_name="amphora",
        availability_zone_data="{}",
        change={"name": "there"},
    )
    zone = api.create_availability_zone(name="east", availability_zone_profile_id=profile.id)
    assert zone.name == "east"
    assert api.get_availability_zone("east").name == "east"
    assert api.find_availability_zone("east").name == "east"
    assert [x.name for x in api.availability_zones()] == ["east"]
    assert api.update_availability_zone("east", description="d").description == "d"
    api.delete_availability_zone("east", ignore_missing=False)
    api.delete_availability_zone_profile(profile.id, ignore_missing=False)


def tell_of_quotas(api: Any, cloud: openstack.connection.Connection) -> None:
    project = cloud.current_project_id or "default"
    assert api.get_quota_default().load_balancers == -1
    assert api.update_quota(project, pools=7, load_balancers=9).pools == 7
    shown = api.get_quota(project)
    assert (shown.pools, shown.load_balancers, shown.health_monitors) == (7, 9, -1)
    assert [x.pools for x in api.quotas()] == [7]
    api.delete_quota(project, ignore_missing=False)
    assert api.get_quota(project).pools == -1


def tell_of_a_tree(api: Any, cloud: openstack.connection.Connection) -> None:
    subnet = cloud.network.find_subnet("loopback", ignore_missing=False)
    balancer = go_round(
        api,
        "load_balancer",
        "load_balancers",
        name="web",
        vip_subnet_id=subnet.id,
        change={"description": "what we sell", "is_admin_state_up": True},
    )
    active = api.wait_for_load_balancer(balancer.id, interval=0.2, wait=30)
    assert active.provisioning_status == "ACTIVE"
    assert [x.name for x in cloud.search_resources("load_balancer.load_balancer", "web")] == ["web"]
    listener = go_round(
        api,
        "listener",
        "listeners",
        name="l",
        protocol="HTTP",
        protocol_port=free_port(),
        load_balancer_id=balancer.id,
        change={"connection_limit": 50},
    )
    pool = go_round(
        api,
        "pool",
        "pools",
        name="p",
        protocol="HTTP",
        lb_algorithm="ROUND_ROBIN",
        listener_id=listener.id,
        change={"lb_algorithm": "LEAST_CONNECTIONS"},
    )
    member = go_round(
        api, "member", "members", pool, name="m", address="127.0.0.1", protocol_port=9, change={"weight": 7}
    )
    monitor = go_round(
        api,
        "health_monitor",
        "health_monitors",
        name="h",
        pool_id=pool.id,
        type="TCP",
        delay=1,
        timeout=1,
        max_retries=1,
        change={"delay": 2},
    )
    policy = go_round(
        api, "l7_policy", "l7_policies", name="y", listener_id=listener.id, action="REJECT", change={"description": "d"}
    )
    rule = go_round(
        api,
        "l7_rule",
        "l7_rules",
        policy,
        type="PATH",
        compare_type="STARTS_WITH",
        rule_value="/no",
        change={"rule_value": "/x"},
    )
    assert (
        api.wait_for_status(api.get_load_balancer(balancer.id), "ACTIVE", ["ERROR"], 0.2, 30, "provisioning_status").id
        == balancer.id
    )
    assert api.get_load_balancer_statistics(balancer.id).request_errors == 0
    assert api.get_listener_statistics(listener.id).request_errors == 0
    tell_of_amphorae(api, balancer)
    api.delete_l7_rule(rule.id, policy, ignore_missing=False)
    api.delete_l7_policy(policy.id, ignore_missing=False)
    api.delete_health_monitor(monitor.id, ignore_missing=False)
    api.delete_member(member.id, pool, ignore_missing=False)
    api.delete_pool(pool.id, ignore_missing=False)
    api.delete_listener(listener.id, ignore_missing=False)
    gone = api.get_load_balancer(balancer.id)
    api.delete_load_balancer(balancer.id, ignore_missing=False, cascade=True)
    api.wait_for_delete(gone, interval=0.2, wait=30)
    assert list(api.load_balancers()) == []


def tell_of_amphorae(api: Any, balancer: Any) -> None:
    def amphora() -> Any:
        (one,) = api.amphorae(loadbalancer_id=balancer.id, status="ALLOCATED")
        return one

    first = amphora()
    assert api.get_amphora(first.id).loadbalancer_id == balancer.id
    assert api.find_amphora(first.id).id == first.id
    api.configure_amphora(first.id)

    def is_replaced(known: str) -> Callable[[], bool]:
        return lambda: (
            [x.id for x in api.amphorae(loadbalancer_id=balancer.id) if x.status == "ALLOCATED"]
            not in (
                [known],
                [],
            )
        )

    api.failover_amphora(first.id)
    until(is_replaced(first.id), 30, "the amphora is not replaced", pause=0.1)
    api.wait_for_load_balancer(balancer.id, interval=0.2, wait=30)
    second = amphora()
    api.failover_load_balancer(balancer.id)
    until(is_replaced(second.id), 30, "the amphora is not replaced", pause=0.1)
    api.wait_for_load_balancer(balancer.id, interval=0.2, wait=30)
