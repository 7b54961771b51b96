"""Which change takes which commands, and which a reload. That the commands work is for tests/integration/drivers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from frontinus.drivers.amphora.agent.change import Change
from frontinus.drivers.amphora.haproxy.diff import MOST_COMMANDS, diff_texts
from frontinus.drivers.amphora.haproxy.render import render, server_number
from frontinus.drivers.amphora.haproxy.server import Check, Server, read_server
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.model.enums import HealthMonitorType, LbAlgorithm, ListenerProtocol, PoolProtocol
from frontinus.model.tree import LoadBalancerTree, Member

from tests.unit.drivers.trees import a_listener, a_member, a_monitor, a_pool, a_tree, number

SETTINGS = HaproxySettings(state_dir=Path("/nowhere"))
BACKEND = f"{number(20)}:{number(10)}"
THIRTY, THIRTY_ONE = f"{BACKEND}/{number(30)}", f"{BACKEND}/{number(31)}"


def text(tree: LoadBalancerTree) -> str:
    return render(tree, SETTINGS).text


def site(*members: Member, monitored: bool = False, pool: dict[str, Any] | None = None) -> LoadBalancerTree:
    return a_tree(
        listeners=[a_listener()],
        pools=[a_pool(**(pool or {}))],
        members=members,
        monitors=[a_monitor()] if monitored else [],
    )


def change(before: LoadBalancerTree, after: LoadBalancerTree) -> Change:
    return diff_texts(text(before), text(after))


def test_nothing_changed() -> None:
    assert change(site(a_member()), site(a_member())) == Change((), reload=False)


def test_a_member_joins() -> None:
    words = f"127.0.0.1:8080 id {server_number(number(31))} weight 1 pool-max-conn -1 pool-purge-delay 5s"
    assert change(site(a_member()), site(a_member(), a_member(31))) == Change(
        (f"add server {THIRTY_ONE} {words}", f"set server {THIRTY_ONE} state ready"), reload=False
    )


def test_a_checked_member_joins_with_its_checks_on() -> None:
    commands = change(site(a_member(), monitored=True), site(a_member(), a_member(31), monitored=True)).commands
    assert " check inter 1s fall 2 rise 2 " in commands[0]
    assert commands[1:] == (f"enable health {THIRTY_ONE}", f"set server {THIRTY_ONE} state ready")


@pytest.mark.parametrize("joins", [{}, {"admin_state_up": False}], ids=["enabled", "disabled"])
def test_who_shall_be_pinged_joins_with_a_reload(joins: dict[str, Any]) -> None:
    """HAProxy cannot ping a server that came while it runs; tests/integration/drivers/test_monitors.py has it by traffic."""
    pinged = replace(site(a_member()), health_monitors=(a_monitor(type=HealthMonitorType.PING),))
    assert change(pinged, replace(pinged, members=(*pinged.members, a_member(31, **joins)))).reload
    assert not change(pinged, replace(pinged, members=(replace(pinged.members[0], weight=7),))).reload


def test_a_disabled_member_joins_and_stays_in_maintenance() -> None:
    commands = change(site(a_member()), site(a_member(), a_member(31, admin_state_up=False))).commands
    assert len(commands) == 1
    assert " disabled " in commands[0]


def test_a_member_leaves() -> None:
    assert change(site(a_member(), a_member(31)), site(a_member())) == Change(
        (f"set server {THIRTY_ONE} state maint", f"del server {THIRTY_ONE}"), reload=False
    )


def test_new_members_come_before_old_ones_go() -> None:
    commands = change(site(a_member(31)), site(a_member(30))).commands
    assert [command.split()[0] for command in commands] == ["add", "set", "set", "del"]


@pytest.mark.parametrize(
    "before, after, command",
    [
        ({}, {"weight": 7}, "weight 7"),
        ({"weight": 7}, {"weight": 0}, "weight 0"),
        ({}, {"admin_state_up": False}, "state maint"),
        ({"admin_state_up": False}, {}, "state ready"),
    ],
)
def test_a_member_changes(before: dict[str, Any], after: dict[str, Any], command: str) -> None:
    assert change(site(a_member(**before)), site(a_member(**after))) == Change(
        (f"set server {THIRTY} {command}",), reload=False
    )


@pytest.mark.parametrize(
    "before, after, command",
    [
        ({}, {"monitor_port": 9}, "check-addr 127.0.0.1 port 9"),
        ({}, {"monitor_address": "::1"}, "check-addr [::1] port 8080"),
        ({"monitor_address": "::1", "monitor_port": 9}, {}, "check-addr 127.0.0.1 port 8080"),
    ],
)
def test_where_checks_go_changes(before: dict[str, Any], after: dict[str, Any], command: str) -> None:
    changed = change(site(a_member(**before), monitored=True), site(a_member(**after), monitored=True))
    assert changed == Change((f"set server {THIRTY} {command}",), reload=False)


def test_where_checks_go_takes_a_reload_when_the_member_speaks_proxy() -> None:
    pool = {"protocol": PoolProtocol.PROXY}
    before = site(a_member(), monitored=True, pool=pool)
    assert change(before, site(a_member(monitor_port=9), monitored=True, pool=pool)).reload


@pytest.mark.parametrize(
    "after",
    [
        site(a_member(backup=True)),
        site(a_member(port=9)),
        site(a_member(address="::1")),
        site(a_member(), monitored=True),
        site(a_member(), pool={"lb_algorithm": LbAlgorithm.SOURCE_IP}),
        site(a_member(), pool={"admin_state_up": False}),
        replace(site(a_member()), listeners=(a_listener(port=81),)),
        replace(site(a_member()), listeners=(a_listener(), a_listener(11, port=81))),
        replace(site(a_member()), listeners=(a_listener(protocol=ListenerProtocol.TCP),)),
        replace(site(a_member()), listeners=(a_listener(timeout_client_data=5),)),
    ],
)
def test_structure_takes_a_reload(after: LoadBalancerTree) -> None:
    assert change(site(a_member()), after).reload
    assert change(after, site(a_member())).reload


def test_with_a_reload_members_that_stay_are_changed_before_it() -> None:
    before = site(a_member(), a_member(31), a_member(32))
    after = replace(site(a_member(weight=3), a_member(31), a_member(33)), listeners=(a_listener(port=81),))
    assert change(before, after) == Change((f"set server {THIRTY} weight 3",), reload=True)


def test_the_same_member_in_two_backends_changes_in_both() -> None:
    listeners = (a_listener(), a_listener(11, port=81))
    before = replace(site(a_member()), listeners=listeners)
    after = replace(site(a_member(weight=3)), listeners=listeners)
    assert [command.split()[2] for command in change(before, after).commands] == [
        THIRTY,
        f"{number(20)}:{number(11)}/{number(30)}",
    ]


@pytest.mark.parametrize("foreign", ["", "# by hand\nglobal\n    daemon\n", "backend x\n\tserver y 1.1.1.1:1\n"])
def test_what_we_did_not_write_takes_a_reload(foreign: str) -> None:
    assert diff_texts(foreign, text(site(a_member()))).reload


def test_a_server_line_that_we_would_not_write_takes_a_reload() -> None:
    old = text(site(a_member()))
    assert diff_texts(old.replace(" weight 1", " weight 1 maxconn 5"), old) == Change((), reload=True)


SERVERS = st.builds(
    Server,
    name=st.uuids().map(str),
    number=st.integers(1, 2**31 - 1),
    address=st.ip_addresses().map(str),
    port=st.integers(1, 65535),
    weight=st.integers(0, 256),
    backup=st.booleans(),
    disabled=st.booleans(),
    proxy_protocol=st.integers(0, 2),
    check=st.none()
    | st.builds(
        Check,
        inter=st.integers(1, 999).map(lambda seconds: f"{seconds}s"),
        fall=st.integers(1, 10),
        rise=st.integers(1, 10),
        address=st.none() | st.ip_addresses().map(str),
        port=st.none() | st.integers(1, 65535),
    ),
)


@given(SERVERS)
def test_a_server_line_is_read_back(server: Server) -> None:
    assert read_server(server.words()) == server


def test_very_many_members_at_once_take_a_reload() -> None:
    """Thousands of commands would take longer than the reload, and the agent refuses more than ten thousand."""
    many = [a_member(n) for n in range(31, 31 + MOST_COMMANDS)]
    assert change(site(a_member()), site(a_member(), *many)) == Change((), reload=True)
    assert not change(site(a_member()), site(a_member(), *many[: MOST_COMMANDS // 2])).reload


@pytest.mark.parametrize(
    "old, new, expected",
    [
        pytest.param(5, 6, Change((f"set maxconn frontend {number(10)} 6",), reload=False), id="another limit"),
        pytest.param(
            -1, 6, Change((f"set maxconn frontend {number(10)} 6",), reload=False), id="a limit for the first time"
        ),
        pytest.param(5, -1, Change((), reload=True), id="no limit any more"),
        pytest.param(5, 0, Change((), reload=True), id="nobody is let in, which is a rule and no limit"),
        pytest.param(0, 5, Change((), reload=True), id="somebody is let in again"),
    ],
)
def test_a_connection_limit(old: int, new: int, expected: Change) -> None:
    def limited(limit: int) -> LoadBalancerTree:
        return a_tree(listeners=[a_listener(connection_limit=limit)], pools=[a_pool()], members=[a_member()])

    assert change(limited(old), limited(new)) == expected


def test_a_connection_limit_among_other_changes_takes_a_reload() -> None:
    def listening(limit: int, timeout: int) -> LoadBalancerTree:
        listener = a_listener(connection_limit=limit, timeout_client_data=timeout)
        return a_tree(listeners=[listener], pools=[a_pool()], members=[a_member()])

    assert change(listening(5, 1_000), listening(6, 2_000)) == Change((), reload=True)
