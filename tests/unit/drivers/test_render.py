"""What golden files cannot show: refusals, and that the same input gives the same text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy import render as render_module
from frontinus.drivers.amphora.haproxy.render import render, server_numbers
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.model.enums import HealthMonitorType, Kind, L7PolicyAction, ListenerProtocol
from frontinus.model.errors import Invalid, Rejected
from frontinus.model.ids import SubnetId
from frontinus.model.tree import AdditionalVip, LoadBalancerTree

from tests.unit.drivers.trees import (
    a_listener,
    a_load_balancer,
    a_member,
    a_monitor,
    a_policy,
    a_pool,
    a_rule,
    a_tree,
)

KIND_OF_BRANCH = {
    "load_balancer": Kind.LOAD_BALANCER,
    "listeners": Kind.LISTENER,
    "members": Kind.MEMBER,
    "monitors": Kind.HEALTH_MONITOR,
    "policies": Kind.L7_POLICY,
    "rules": Kind.L7_RULE,
}
SETTINGS = HaproxySettings(state_dir=Path("/nowhere"))


def site(**fields: Any) -> LoadBalancerTree:
    parts: dict[str, Any] = {
        "listeners": [a_listener(), a_listener(11, ListenerProtocol.TCP, 81)],
        "pools": [a_pool(), a_pool(21)],
        "members": [a_member(), a_member(31), a_member(32, pool=21)],
        "monitors": [a_monitor()],
    }
    return a_tree(**{**parts, **fields})


def test_the_order_of_objects_changes_nothing() -> None:
    tree = site()
    turned = replace(
        tree,
        listeners=tree.listeners[::-1],
        pools=tree.pools[::-1],
        members=tree.members[::-1],
        health_monitors=tree.health_monitors[::-1],
    )
    assert render(tree, SETTINGS) == render(turned, SETTINGS)


def test_what_the_tenant_cannot_see_changes_nothing() -> None:
    """Names, tags and statuses are not rendered: a change of theirs pushes nothing."""
    tree = site()
    renamed = replace(
        tree,
        load_balancer=replace(tree.load_balancer, name="x", description="'\n", generation=9, tags=("a",)),
        members=tuple(replace(member, name="\n", tags=("b",), changed_generation=9) for member in tree.members),
    )
    assert render(tree, SETTINGS) == render(renamed, SETTINGS)


def test_what_is_to_be_deleted_is_not_rendered() -> None:
    tree = site()
    going = replace(
        tree,
        listeners=(tree.listeners[0], replace(tree.listeners[1], delete_requested=True)),
        members=(tree.members[0], replace(tree.members[1], delete_requested=True), tree.members[2]),
        health_monitors=(replace(tree.health_monitors[0], delete_requested=True),),
    )
    gone = replace(tree, listeners=tree.listeners[:1], members=(tree.members[0], tree.members[2]), health_monitors=())
    assert render(going, SETTINGS) == render(gone, SETTINGS)


@pytest.mark.parametrize(
    "tree",
    [
        site(listeners=[]),
        site(listeners=[a_listener(admin_state_up=False)]),
        site(load_balancer=a_load_balancer(admin_state_up=False)),
        site(load_balancer=a_load_balancer(delete_requested=True)),
    ],
)
def test_nothing_to_listen_for_is_an_empty_text(tree: LoadBalancerTree) -> None:
    assert not render(tree, SETTINGS).text


@pytest.mark.parametrize(
    "fields, field",
    [
        ({"members": [a_member(address="example.org")]}, "address"),
        ({"members": [a_member(address="fe80::1%eth0")]}, "address"),
        ({"members": [a_member(monitor_address="1.2.3")]}, "monitor_address"),
        ({"load_balancer": a_load_balancer("not an address")}, "vip_address"),
        ({"monitors": [a_monitor(url_path="/a\nb")]}, "url_path"),
        ({"monitors": [a_monitor(http_version=1.1, domain_name="a\x00b")]}, "domain_name"),
        ({"monitors": [a_monitor(expected_codes="204-200")]}, "expected_codes"),
        ({"monitors": [a_monitor(expected_codes="2\x7f0")]}, "expected_codes"),
        ({"monitors": [a_monitor(type=HealthMonitorType.SCTP)]}, "type"),
        ({"listeners": [a_listener(protocol=ListenerProtocol.SCTP)]}, "protocol"),
        ({"listeners": [a_listener(allowed_cidrs=("10.0.0.0/8", "10.0.0"))]}, "allowed_cidrs"),
        ({"rules": [a_rule(value="/a\nb")], "policies": [a_policy()]}, "value"),
        (
            {
                "policies": [a_policy(action=L7PolicyAction.REDIRECT_TO_URL, redirect_url="http://a/\r\nX: y")],
                "rules": [a_rule()],
            },
            "redirect_url",
        ),
        ({"policies": [a_policy(listener=11)]}, "listener_id"),
        (
            {
                "load_balancer": a_load_balancer(
                    additional_vips=(AdditionalVip(address="::1%lo", subnet_id=SubnetId("s")),)
                )
            },
            "vip_address",
        ),
    ],
)
def test_what_cannot_be_carried_is_rejected_by_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Rejected) as raised:
        render(site(**fields), SETTINGS)
    assert raised.value.field == field
    assert raised.value.subject is not None
    assert raised.value.subject.kind == KIND_OF_BRANCH[next(iter(fields))]


def test_every_listener_listens_on_every_address() -> None:
    further = (
        AdditionalVip(address="127.0.0.9", subnet_id=SubnetId("t")),
        AdditionalVip(address="::1", subnet_id=SubnetId("u")),
    )
    load_balancer = a_load_balancer(additional_vips=further)
    lines = [x.split() for x in render(site(load_balancer=load_balancer), SETTINGS).text.splitlines()]
    places = [x[1].rpartition(":")[0] for x in lines if x[:1] == ["bind"]]
    listeners = len([x for x in lines if x[:1] == ["frontend"]])
    assert places == [load_balancer.vip.address, "127.0.0.9", "[::1]"] * listeners


def test_a_tenant_cannot_leave_his_word() -> None:
    path = "/'; shutdown \"$HOME\" \\ # \\' server evil"
    text = render(site(monitors=[a_monitor(url_path=path)]), SETTINGS).text
    lines = [line for line in text.splitlines() if "evil" in line]
    assert len(lines) == 2  # the pool is under two listeners
    assert all(line.startswith("    http-check send meth GET uri '/'\\''; shutdown") for line in lines)


def test_clashing_server_numbers_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_module, "server_number", lambda _member_id: 2**31 - 1)
    members = [a_member(30), a_member(31), a_member(32)]
    assert list(server_numbers(members).values()) == [2**31 - 1, 1, 2]


def test_paths_for_a_genuine_octavia_image() -> None:
    text = render(site(), HaproxySettings(state_dir=Path("/nowhere"), base_path="/var/lib/octavia/")).text
    assert "    stats socket /var/lib/octavia/00000000-0000-0000-0000-000000000001.sock mode 600 " in text
    assert "    server-state-file /var/lib/octavia/00000000-0000-0000-0000-000000000001/servers-state\n" in text


@pytest.mark.parametrize(
    "fields, name",
    [
        ({"threads": 0}, "threads"),
        ({"agent_port": 70_000}, "agent_port"),
        ({"accept_plain": True}, "plain_heartbeat_key"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(Invalid) as raised:
        HaproxySettings(state_dir=Path("/nowhere"), **fields).check()
    assert raised.value.field == name
