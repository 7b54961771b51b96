"""Flow logs and the operator's messages: nothing where nothing is asked, and no way in for a tenant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy.log_options import check_logs
from frontinus.drivers.amphora.haproxy.render import render
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.model.enums import ListenerProtocol
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId

from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_pool, a_tree, number

AMPHORA = number(99)
TREE = a_tree(
    listeners=[a_listener(), a_listener(11, port=81, protocol=ListenerProtocol.TCP)],
    pools=[a_pool()],
    members=[a_member()],
)


def settings(**fields: Any) -> HaproxySettings:
    return HaproxySettings(state_dir=Path("/nowhere"), **fields)


def lines(word: str, **fields: Any) -> list[str]:
    text = render(TREE, settings(**fields), amphora_id=AMPHORA).text
    return [line.strip() for line in text.splitlines() if line.split()[:1] == [word]]


@pytest.mark.parametrize(
    "fields", [{}, {"log_protocol": "TCP"}, {"user_log_format": "%ci"}, {"connection_logging": False}], ids=str
)
def test_what_nobody_asked_for_costs_nothing(fields: dict[str, Any]) -> None:
    assert render(TREE, settings(**fields), amphora_id=AMPHORA) == render(TREE, settings())
    assert " log" not in render(TREE, settings()).text


def test_over_udp() -> None:
    targets = {"tenant_log_targets": ("192.0.2.1:514", "[2001:db8::1]:514"), "admin_log_targets": ("192.0.2.2:1514",)}
    flow = ["log 192.0.2.1:514 len 4096 format rfc3164 local0", "log [2001:db8::1]:514 len 4096 format rfc3164 local0"]
    admin = "log 192.0.2.2:1514 len 4096 format rfc3164 local1 notice"
    assert lines("log", **targets) == [admin, *flow, "log global", *flow, "log global"]
    assert lines("log-send-hostname", **targets) == [f"log-send-hostname amphora-{AMPHORA}"]
    assert lines("ring", **targets) == []


def test_over_tcp_each_target_has_a_ring() -> None:
    fields = {
        "tenant_log_targets": ("192.0.2.1:514", "192.0.2.2:514"),
        "admin_log_targets": ("192.0.2.1:514",),
        "log_protocol": "TCP",
        "user_log_facility": 5,
        "administrative_log_facility": 6,
    }
    assert lines("ring", **fields) == ["ring tenant-log-0", "ring tenant-log-1", "ring admin-log-0"]
    assert lines("log", **fields)[0] == "log ring@admin-log-0 len 4096 local6 notice"
    assert lines("log", **fields)[1:3] == [
        "log ring@tenant-log-0 len 4096 local5",
        "log ring@tenant-log-1 len 4096 local5",
    ]


def test_flow_logs_can_be_switched_off_without_the_operators_messages() -> None:
    fields = {"tenant_log_targets": ("192.0.2.1:514",), "admin_log_targets": ("192.0.2.1:514",)}
    assert lines("log-format", **fields, connection_logging=False) == []
    assert len(lines("log", **fields, connection_logging=False)) == 3


def test_tokens_are_filled_in_and_what_http_alone_knows_is_a_dash_elsewhere() -> None:
    tree = replace(TREE, load_balancer=replace(a_load_balancer(), project_id=ProjectId("50%ci %[src]")))
    text = render(
        tree,
        settings(
            tenant_log_targets=("192.0.2.1:514",), user_log_format="{{project_id}} {{ lb_id }} %ci %{+Q}r %ST %tsc"
        ),
    ).text
    http, tcp = [line.strip() for line in text.splitlines() if line.strip().startswith("log-format")]
    assert http == f"log-format '50%%ci %%[src] {tree.id} %ci %{{+Q}}r %ST %tsc'"
    assert tcp == f"log-format '50%%ci %%[src] {tree.id} %ci - - %tsc'"


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"tenant_log_targets": ("192.0.2.1",)}, "tenant_log_targets"),
        ({"tenant_log_targets": ("syslog.example.com:514",)}, "tenant_log_targets"),
        ({"admin_log_targets": ("192.0.2.1:0",)}, "admin_log_targets"),
        ({"user_log_facility": 8}, "user_log_facility"),
        ({"administrative_log_facility": -1}, "administrative_log_facility"),
        ({"log_protocol": "QUIC"}, "log_protocol"),
        ({"user_log_format": "%ci\n%cp"}, "user_log_format"),
        ({"user_log_format": "{{ secret }}"}, "user_log_format"),
    ],
    ids=str,
)
def test_what_cannot_be_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_logs(settings(**fields))
    assert caught.value.field == named


def test_the_default_can_be() -> None:
    check_logs(settings(tenant_log_targets=("192.0.2.1:514",), admin_log_targets=("[2001:db8::1]:514",)))
