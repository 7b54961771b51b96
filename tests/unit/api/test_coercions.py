"""What a value on the wire may look like, and what becomes of it (resources.yaml conventions.type_coercion)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from frontinus.api.wire_types import (
    AdditionalVips,
    Address,
    Boolean,
    Cidrs,
    Headers,
    Integer,
    Moment,
    Number,
    Persistence,
    Tags,
    Text,
    Uuid,
    WireType,
    lenient_boolean,
)
from frontinus.model.errors import Invalid

ID = "5ca1ab1e-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    "type_, sent, becomes",
    [
        pytest.param(Integer(), "80", 80, id="numeric string"),
        pytest.param(Integer(), 80.5, 80, id="fraction is cut off"),
        pytest.param(Integer(), -0.5, 0, id="towards zero"),
        pytest.param(Integer(), True, 1, id="true counts as 1"),
        pytest.param(Integer(), " 7 ", 7, id="white space around a number"),
        pytest.param(Number((1.0, 1.1)), "1.1", 1.1, id="numeric string as number"),
        pytest.param(Number((1.0, 1.1)), 1, 1.0, id="whole number as number"),
        pytest.param(Boolean(), "ON", True, id="text on"),
        pytest.param(Boolean(), "f", False, id="text f"),
        pytest.param(Boolean(), 0, False, id="number 0"),
        pytest.param(Uuid(), ID.upper(), ID, id="upper case"),
        pytest.param(Uuid(), ID.replace("-", ""), ID, id="without dashes"),
        pytest.param(Uuid(), f"{{{ID}}}", ID, id="in braces"),
        pytest.param(Uuid(), f"urn:uuid:{ID}", ID, id="as urn"),
        pytest.param(Address(), "2001:DB8::1", "2001:DB8::1", id="address stays as written"),
        pytest.param(
            Cidrs(),
            ["192.0.2.9/24", "192.0.2.0/24", "198.51.100.1"],
            ("192.0.2.0/24", "198.51.100.1/32"),
            id="networks",
        ),
        pytest.param(Cidrs(), ["2001:db8::1"], ("2001:db8::1/128",), id="bare IPv6 address"),
        pytest.param(Tags(), ["b", "a", ""], ("", "a", "b"), id="tags are kept sorted"),
        pytest.param(Text(prose=True), "two\nlines\tand a tab", "two\nlines\tand a tab", id="prose keeps its lines"),
        pytest.param(Text(), "žluťoučký 🐎", "žluťoučký 🐎", id="any script"),
    ],
)
def test_accepted(type_: WireType, sent: object, becomes: object) -> None:
    assert type_.parse(sent, "x") == becomes


@pytest.mark.parametrize(
    "type_, sent",
    [
        pytest.param(Integer(), "80.5", id="fraction in a string"),
        pytest.param(Integer(), "", id="empty string as number"),
        pytest.param(Integer(), "1_000", id="underscore"),
        pytest.param(Integer(), "٣", id="digits of another script"),
        pytest.param(Integer(), [1], id="list as number"),
        pytest.param(Integer(), 10**30, id="larger than any column"),
        pytest.param(Integer(), 1e300, id="huge float"),
        pytest.param(Integer(), "9" * 5000, id="endless digits"),
        pytest.param(Number((1.0, 1.1)), True, id="true as version"),
        pytest.param(Number((1.0, 1.1)), 1.2, id="unknown version"),
        pytest.param(Number((1.0, 1.1)), "nan", id="not a number"),
        pytest.param(Boolean(), "maybe", id="other text"),
        pytest.param(Boolean(), 2, id="other number"),
        pytest.param(Boolean(), 1.0, id="float as boolean"),
        pytest.param(Uuid(), "not-a-uuid", id="no uuid"),
        pytest.param(Uuid(), 5, id="number as uuid"),
        pytest.param(Address(), "300.1.1.1", id="no address"),
        pytest.param(Address(), "fe80::1%eth0", id="address with a zone"),
        pytest.param(Address(), "010.0.0.1", id="octal looking"),
        pytest.param(Text(), 5, id="number as text"),
        pytest.param(Text(), "nul\0", id="nul"),
        pytest.param(Text(), "line\nend", id="line end in a name"),
        pytest.param(Text(), "\x7f", id="delete"),
        pytest.param(Text(prose=True), "bell\x07", id="bell in prose"),
        pytest.param(Text(), "\ud800", id="half a character"),
        pytest.param(Text(), "x" * 256, id="too long"),
        pytest.param(Tags(), ["a", "a"], id="tag twice"),
        pytest.param(Tags(), [None], id="null tag"),
        pytest.param(Tags(), "a", id="text as list"),
        pytest.param(Cidrs(), ["192.0.2.0/33"], id="mask too long"),
        pytest.param(Headers(), {"X-Forwarded-For": True}, id="header is not text"),
        pytest.param(Headers(), [], id="list as object"),
        pytest.param(Persistence(), {}, id="empty persistence"),
        pytest.param(Persistence(), {"kind": "SOURCE_IP"}, id="unknown key of persistence"),
        pytest.param(Persistence(), "SOURCE_IP", id="text as object"),
        pytest.param(AdditionalVips(), [{"ip_address": "192.0.2.1"}], id="additional VIP without subnet"),
        pytest.param(AdditionalVips(), [{"subnet_id": ID, "mac": "x"}], id="unknown key of a VIP"),
        pytest.param(AdditionalVips(), [5], id="number as VIP"),
    ],
)
def test_refused_naming_the_path(type_: WireType, sent: object) -> None:
    with pytest.raises(Invalid) as refusal:
        type_.parse(sent, "pool.thing")
    assert refusal.value.field.startswith("pool.thing")


def test_times_are_shown_without_zone_and_asked_for_in_any() -> None:
    moment = datetime(2026, 1, 31, 12, 0, 0, 250, UTC)
    assert Moment().render(moment) == "2026-01-31T12:00:00.000250"
    assert Moment().query("2026-01-31T12:00:00.000250", "created_at") == moment
    assert Moment().query("2026-01-31T13:00:00.000250+01:00", "created_at") == moment
    for wrong in ("yesterday", "0001-01-01T00:00:00+10:00"):
        with pytest.raises(Invalid):
            Moment().query(wrong, "created_at")


@pytest.mark.parametrize(
    "text, meaning", [("True", True), ("YES", True), ("1", True), ("no", False), ("whatever", False), ("", False)]
)
def test_booleans_of_query_strings_are_lenient(text: str, meaning: bool) -> None:
    assert lenient_boolean(text) is meaning
