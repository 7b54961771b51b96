"""UDP listeners as keepalived reads them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.agent.lvs import lvs_files, with_lvs
from frontinus.drivers.amphora.haproxy.render import CAPABILITIES
from frontinus.model.capabilities import require
from frontinus.model.enums import (
    HealthMonitorType,
    LbAlgorithm,
    ListenerProtocol,
    PoolProtocol,
    SessionPersistenceType,
)
from frontinus.model.errors import Rejected, Unsupported
from frontinus.model.tree import LoadBalancerTree, SessionPersistence

from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_monitor, a_pool, a_tree, number


def tree(pool: dict[str, Any] | None = None, listener: dict[str, Any] | None = None, **member: Any) -> LoadBalancerTree:
    return a_tree(
        a_load_balancer("10.0.0.5"),
        listeners=[a_listener(10, ListenerProtocol.UDP, 53, **(listener or {}))],
        pools=[a_pool(20, PoolProtocol.UDP, **(pool or {}))],
        members=[a_member(30, address="10.0.1.1", port=5353, **member)],
        monitors=[a_monitor(40, 20, HealthMonitorType.UDP_CONNECT)],
    )


def text_of(found: LoadBalancerTree) -> str:
    return lvs_files(found)[0].content.decode()


def test_a_listener_is_a_virtual_server() -> None:
    assert text_of(tree(weight=7)) == (
        "global_defs {\n"
        "    lvs_timeouts udp 50\n"
        "}\n"
        f"virtual_server 10.0.0.5 53 {{ # {number(10)}\n"
        "    protocol UDP\n"
        "    lvs_method NAT\n"
        "    lvs_sched wrr\n"
        f"    real_server 10.0.1.1 5353 {{ # {number(20)}/{number(30)}\n"
        "        weight 7\n"
        "    }\n"
        "}\n"
    )


def test_the_outline_says_how_members_are_examined() -> None:
    outline = json.loads(lvs_files(tree())[1].content)
    assert outline["listeners"] == {number(10): {"binds": [["10.0.0.5", 53]], "datagrams": True}}
    assert outline["pools"][number(20)][number(30)]["check"]["kind"] == "UDP-CONNECT"


@pytest.mark.parametrize(
    "pool, lines",
    [
        pytest.param({"lb_algorithm": LbAlgorithm.LEAST_CONNECTIONS}, ["lvs_sched wlc"], id="least connections"),
        pytest.param({"lb_algorithm": LbAlgorithm.SOURCE_IP}, ["lvs_sched mh"], id="source"),
        pytest.param({"lb_algorithm": LbAlgorithm.SOURCE_IP_PORT}, ["lvs_sched mh", "mh-port"], id="source and port"),
        pytest.param(
            {"session_persistence": SessionPersistence(type=SessionPersistenceType.SOURCE_IP)},
            ["lvs_sched wrr", "persistence_timeout 360"],
            id="persistence",
        ),
        pytest.param(
            {
                "session_persistence": SessionPersistence(
                    type=SessionPersistenceType.SOURCE_IP,
                    persistence_timeout=60,
                    persistence_granularity="255.255.240.0",
                )
            },
            ["lvs_sched wrr", "persistence_timeout 60", "persistence_granularity 255.255.240.0"],
            id="persistence with all that it has",
        ),
    ],
)
def test_how_sessions_are_spread(pool: dict[str, Any], lines: list[str]) -> None:
    found = [line.strip() for line in text_of(tree(pool)).splitlines()]
    start = found.index("lvs_method NAT") + 1
    assert found[start : start + len(lines)] == lines
    assert found[start + len(lines)].startswith("real_server")


@pytest.mark.parametrize(
    "member, weights",
    [
        pytest.param({"weight": 0}, ["weight 0", "weight 1"], id="a draining one keeps its sessions"),
        pytest.param({"admin_state_up": False}, ["weight 1"], id="a disabled one is not there"),
    ],
)
def test_members_that_get_nothing_new(member: dict[str, Any], weights: list[str]) -> None:
    assert [x.strip() for x in text_of(tree(**member)).splitlines() if "weight" in x] == weights


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(tree(weight=0), id="its only member is drained"),
        pytest.param(tree(admin_state_up=False), id="its only member is disabled"),
        pytest.param(tree(pool={"admin_state_up": False}), id="its pool is disabled"),
        pytest.param(
            a_tree(a_load_balancer("10.0.0.5"), listeners=[a_listener(10, ListenerProtocol.UDP, 53)]), id="no pool yet"
        ),
        pytest.param(
            a_tree(a_load_balancer("fd00::5"), listeners=[a_listener(10, ListenerProtocol.SCTP, 53)]), id="IPv6"
        ),
    ],
)
def test_keepalived_takes_a_listener_that_has_nobody(found: LoadBalancerTree, tmp_path: Path) -> None:
    """Of a virtual server without a real one it says that it has none, and that the file is bad."""
    config = tmp_path / "lvs.conf"
    config.write_text(text_of(found))
    command = ["keepalived", "-t", "-l", "-C", "-p", str(tmp_path / "pid"), "-f", str(config)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_member_of_the_other_family_is_refused_by_name() -> None:
    found = a_tree(
        a_load_balancer("10.0.0.5"),
        listeners=[a_listener(10, ListenerProtocol.UDP, 53)],
        pools=[a_pool(20, PoolProtocol.UDP)],
        members=[a_member(30, address="fd00::1")],
    )
    with pytest.raises(Rejected, match="two families") as caught:
        lvs_files(found)
    assert caught.value.subject is not None
    assert caught.value.subject.id == number(30)


def test_nothing_is_pushed_without_datagrams() -> None:
    assert lvs_files(a_tree(listeners=[a_listener()], pools=[a_pool()])) == ()


@pytest.mark.parametrize(
    "listener, field",
    [
        pytest.param({"allowed_cidrs": ("10.0.0.0/8",)}, "allowed_cidrs", id="who may come"),
        pytest.param({"connection_limit": 5}, "connection_limit", id="how many"),
    ],
)
def test_what_lvs_does_not_know_is_refused(listener: dict[str, Any], field: str) -> None:
    found = tree(listener=listener)
    require(found, CAPABILITIES)
    with pytest.raises(Unsupported) as caught:
        require(found, with_lvs(CAPABILITIES))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "times, expected",
    [
        pytest.param((3_000, 9_000), 3, id="the shorter one"),
        pytest.param((1, 50_000), 1, id="whole seconds"),
        pytest.param((0, 7_001), 8, id="one is none"),
        pytest.param((0, 0), 2_000_000, id="for ever"),
    ],
)
def test_how_long_a_session_may_be_silent(times: tuple[int, int], expected: int) -> None:
    found = tree(listener={"timeout_client_data": times[0], "timeout_member_data": times[1]})
    assert text_of(found).startswith(f"global_defs {{\n    lvs_timeouts udp {expected}\n}}\nvirtual_server ")


@pytest.mark.parametrize(
    "protocol, times, expected",
    [
        pytest.param(ListenerProtocol.UDP, {"timeout_client_data": 50_000}, None, id="the same"),
        pytest.param(ListenerProtocol.UDP, {"timeout_client_data": 9_000}, "timeout_client_data", id="another one"),
        pytest.param(ListenerProtocol.UDP, {"timeout_member_data": 9_000}, "timeout_member_data", id="of members"),
        pytest.param(ListenerProtocol.SCTP, {}, None, id="nothing for SCTP"),
        pytest.param(ListenerProtocol.SCTP, {"timeout_member_data": 9_000}, "timeout_member_data", id="one for SCTP"),
        pytest.param(ListenerProtocol.TCP, {"timeout_client_data": 9_000}, None, id="for HAProxy"),
    ],
)
def test_a_time_that_lvs_cannot_keep_is_refused(
    protocol: ListenerProtocol, times: dict[str, int], expected: str | None
) -> None:
    found = tree()
    found = replace(found, listeners=(*found.listeners, a_listener(11, protocol, 54, None, **times)))
    if expected is None:
        require(found, with_lvs(CAPABILITIES))
        return
    with pytest.raises(Unsupported) as caught:
        require(found, with_lvs(CAPABILITIES))
    assert (caught.value.field, caught.value.subject.id) == (expected, number(11))  # type: ignore[union-attr]


def test_sctp_is_offered_by_lvs_alone() -> None:
    found = a_tree(
        listeners=[a_listener(10, ListenerProtocol.SCTP, 53)],
        pools=[a_pool(20, PoolProtocol.SCTP)],
        monitors=[a_monitor(40, 20, HealthMonitorType.SCTP)],
    )
    require(found, with_lvs(CAPABILITIES))
    with pytest.raises(Unsupported):
        require(found, CAPABILITIES)


def test_a_time_for_persistence_is_offered_by_lvs_alone() -> None:
    found = tree(
        {"session_persistence": SessionPersistence(type=SessionPersistenceType.SOURCE_IP, persistence_timeout=60)}
    )
    require(found, with_lvs(CAPABILITIES))
    with pytest.raises(Unsupported):
        require(found, CAPABILITIES)
