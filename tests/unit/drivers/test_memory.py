"""What HAProxy does within a flavor's memory: as many connections as there is room for, and a refusal where too few are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.haproxy.memory import Load, Room, room_within
from frontinus.drivers.amphora.haproxy.render import render
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.nginx.render import render as render_nginx
from frontinus.drivers.amphora.nginx.settings import NginxDriverSettings
from frontinus.model.enums import SessionPersistenceType
from frontinus.model.errors import Rejected
from frontinus.model.tree import LoadBalancerTree, SessionPersistence

from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_pool, a_tree

PLACE = Path("/nowhere")
SETTINGS = HaproxySettings(state_dir=PLACE)


def load(**fields: int) -> Load:
    return Load(**{"threads": 1, "servers": 0, "tables": 0, "tls_sides": 0, **fields})


@pytest.mark.parametrize(
    "memory, given, expected",
    [
        pytest.param(32, load(), Room(614), id="the least"),
        pytest.param(256, load(), Room(6348), id="plain"),
        pytest.param(256, load(tls_sides=1), Room(1923), id="TLS from clients"),
        pytest.param(256, load(tls_sides=2), Room(1133), id="TLS on both sides"),
        pytest.param(256, load(threads=4), Room(5657), id="threads"),
        pytest.param(256, load(servers=1000), Room(6148), id="members"),
        pytest.param(256, load(tables=2), Room(4761, 162529), id="stick tables"),
    ],
)
def test_there_is_room_for(memory: int, given: Load, expected: Room) -> None:
    assert room_within(memory, given) == expected


@pytest.mark.parametrize(
    "memory, given, least",
    [
        pytest.param(32, load(threads=8), 75, id="threads"),
        pytest.param(32, load(servers=10_000), 91, id="members"),
        pytest.param(16, load(tls_sides=2), 30, id="TLS"),
        pytest.param(12, load(tables=1), 14, id="stick tables"),
    ],
)
def test_too_little_is_refused_with_what_would_do(memory: int, given: Load, least: int) -> None:
    with pytest.raises(Rejected, match=f"at least {least} are needed") as caught:
        room_within(memory, given)
    assert caught.value.field == "max_memory"
    assert room_within(least, given).connections >= 100
    with pytest.raises(Rejected):
        room_within(least - 1, given)


def site(max_memory: int | None, **fields: Any) -> LoadBalancerTree:
    sticky = SessionPersistence(type=SessionPersistenceType.SOURCE_IP)
    tree = a_tree(listeners=[a_listener()], pools=[a_pool(session_persistence=sticky)], members=[a_member()])
    return replace(tree, load_balancer=replace(a_load_balancer(), max_memory=max_memory, **fields))


def test_the_text_says_it() -> None:
    text = render(site(64), SETTINGS).text
    assert "\n    setenv FRONTINUS_MAX_MEMORY 64\n" in text
    room = room_within(64, load(servers=1, tables=1))
    assert f"\n    fd-hard-limit {2 * room.connections + 100}\n" in text
    assert re.search(r"\n    table .* size (\d+)", text)[1] == str(room.table_entries)  # type: ignore[index]
    assert "FRONTINUS_MAX_MEMORY" not in render(site(None), SETTINGS).text


def test_no_more_than_was_asked_for_where_there_is_room() -> None:
    text = render(site(4096, max_connections=500), SETTINGS).text
    assert "\n    fd-hard-limit 1100\n" in text
    assert f" size {SETTINGS.stick_table_size}" in text


def test_who_cannot_limit_it_refuses() -> None:
    """Agents of Octavia, and nginx."""
    with pytest.raises(Rejected) as caught:
        render(site(64), HaproxySettings(state_dir=PLACE, base_path="/var/lib/octavia"))
    assert caught.value.field == "max_memory"
    with pytest.raises(Rejected, match="max_memory"):
        render_nginx(site(64), NginxDriverSettings(state_dir=PLACE).nginx())
