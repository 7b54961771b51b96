"""Values become columns and back without losing anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from frontinus.model.enums import FaultPhase, ListenerProtocol, ProvisioningStatus
from frontinus.model.errors import Unreadable
from frontinus.model.ids import ListenerId, LoadBalancerId, ProjectId
from frontinus.model.tree import Listener
from frontinus.store import rows
from frontinus.store.statement import Row, Value, padded, padded_size

pytestmark = pytest.mark.unit

LISTENER = Listener(
    id=ListenerId("l"),
    load_balancer_id=LoadBalancerId("b"),
    project_id=ProjectId("p"),
    protocol=ListenerProtocol.HTTP,
    protocol_port=80,
    created_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
)


@settings(deadline=None)
@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_times_are_exact_and_sort_as_numbers(one: datetime, other: datetime) -> None:
    assert rows.from_microseconds(rows.to_microseconds(one)) == one
    assert rows.from_microseconds(rows.to_microseconds(one)).tzinfo is UTC
    assert (rows.to_microseconds(one) < rows.to_microseconds(other)) == (one < other)


def spoilt(**values: Value) -> Row:
    """The row of LISTENER with these instead."""
    row = dict(zip(rows.LISTENER.columns, rows.LISTENER.encode(LISTENER), strict=True)) | values
    return tuple(row.values())


@pytest.mark.parametrize(
    "row, why",
    [
        pytest.param(spoilt(protocol="QUIC"), "row l of the table listener.*protocol is 'QUIC'", id="an unknown word"),
        pytest.param(spoilt(fault="{"), "row l of the table listener.*truncated", id="half of a document"),
        pytest.param(spoilt(created_at=None), "row l of the table listener", id="no time"),
    ],
)
def test_a_row_that_no_version_of_ours_wrote_is_named(row: Row, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        rows.LISTENER.decode(row)


def test_a_row_of_a_newer_version_can_be_shown() -> None:
    shown = rows.LISTENER.decode_leniently(spoilt(protocol="QUIC", fault='{"code": 1}', allowed_cidrs="?"))
    assert (shown.protocol, shown.fault, shown.allowed_cidrs, shown.protocol_port) == ("QUIC", None, (), 80)
    assert msgspec.to_builtins(shown)["protocol"] == "QUIC"
    with pytest.raises(ValueError, match="QUIC"):
        ListenerProtocol("QUIC")  # it did not become one of ours


def test_a_fault_of_a_newer_version_is_read() -> None:
    told = '{"code":"x","phase":"migrate","message":"m","since":"2026-01-02T03:04:05Z"}'
    fault = rows.LISTENER.decode(spoilt(fault=told)).fault
    assert fault is not None
    assert (fault.phase, fault.message) == (FaultPhase.INTERNAL, "m")


def test_a_time_in_another_zone_is_the_same_moment() -> None:
    here = datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert rows.from_microseconds(rows.to_microseconds(here)) == datetime(2026, 6, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="as it was"),
        pytest.param({"tags": ("b", "a")}, id="tags in their order"),
        pytest.param({"insert_headers": {"X-B": "1", "X-A": "2"}}, id="headers"),
        pytest.param({"tls_versions": ()}, id="none allowed"),
        pytest.param({"tls_versions": None}, id="not said"),
        pytest.param({"hsts_preload": None}, id="a flag that is unset"),
        pytest.param({"connection_limit": None}, id="a number that is unset"),
    ],
)
def test_a_value_comes_back(change: dict[str, object]) -> None:
    value = replace(LISTENER, **change)
    assert rows.LISTENER.decode(rows.LISTENER.encode(value)) == value


def test_only_changed_columns_are_named() -> None:
    after = replace(LISTENER, provisioning_status=ProvisioningStatus.ACTIVE, tags=("x",))
    assert rows.LISTENER.changed(LISTENER, after) == {"provisioning_status": "ACTIVE", "tags": '["x"]'}
    assert rows.LISTENER.changed(LISTENER, replace(LISTENER)) == {}


def test_an_engines_own_booleans_are_understood() -> None:
    """SQLite and MariaDB give 0 and 1, PostgreSQL True and False."""
    position = rows.LISTENER.columns.index("admin_state_up")
    encoded = list(rows.LISTENER.encode(LISTENER))
    for given_value, expected in ((0, False), (1, True), (False, False), (True, True)):
        encoded[position] = given_value
        assert rows.LISTENER.decode(tuple(encoded)).admin_state_up is expected


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=70))
def test_padding_changes_no_set(ids: list[str]) -> None:
    size = padded_size(len(ids))
    assert len(ids) <= size < 2 * len(ids) or len(ids) == size == 1
    parameters = padded(ids, size)
    assert len(parameters) == size
    assert set(parameters.values()) == set(ids)
