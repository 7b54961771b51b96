"""Which tables are handed over, and what of a dump is understood; that sessions outlive reloads is shown by real traffic."""

from __future__ import annotations

import pytest

from frontinus_amphora.stick_tables import Server, entries, others, tables
from frontinus_amphora.table_keeper import keeper_text


@pytest.mark.parametrize(
    "line, expected",
    [
        ("table t type ipv6 size 100", ("ipv6",)),
        ("table t type string len 40 size 100", ("string", "len", "40")),
        ("table t type binary len 20 size 100", None),
        ("table t", None),
        ("server t type", None),
    ],
)
def test_tables_that_can_be_told_are_found(line: str, expected: tuple[str, ...] | None) -> None:
    assert tables(f"peers p\n  server local\n  {line}\n").get("p/t") == expected


def test_tables_of_backends_are_not() -> None:
    assert tables("backend b\n  stick-table type ipv6 size 100\n") == {}


def test_others_are_those_with_an_address() -> None:
    text = "peers p\n  bind a:1025\n  server own\n  server x b:1025\n  table t type ipv6 size 100\nbackend b\n  server m c:80\n"
    assert others(text) == {("server", "x", "b:1025")}


DUMP_2_6 = """# table: p/t, type: ipv6, size:100, used:3
0x55da0e9c25c0: key=::ffff:127.84.7.11 use=0 exp=0 server_id=11 server_key=s1
0x7f16e00426a0: key=2001:db8::1 use=1 exp=10 server_id=12 server_key=-
0x7f16e00426a1: key=2001:db8::2 use=1 exp=10 server_id=0 server_key=-

> """
DUMP_3_0 = """# table: p/t, type: string, size:100, used:1
0x7fb3eb560d50: key=00AF use=0 exp=0 shard=0 server_id=11 server_key=s1
"""


@pytest.mark.parametrize(
    "dump, expected",
    [
        pytest.param(DUMP_2_6, [("::ffff:127.84.7.11", Server("11", "s1")), ("2001:db8::1", Server("12"))], id="2.6"),
        pytest.param(DUMP_3_0, [("00AF", Server("11", "s1"))], id="3.0"),
        pytest.param("No such table\n", [], id="no table"),
        *(
            pytest.param(f"0x1: key={key} use=0 exp=0 server_id=11 server_key=s1\n", [], id=f"no key: {key}")
            for key in ("a;shutdown", "a\\n", "<<", "a b", "'", "$x")
        ),
    ],
)
def test_a_dump_is_understood(dump: str, expected: list[tuple[str, Server]]) -> None:
    assert entries(dump) == expected


@pytest.mark.parametrize(
    "known, told, expected",
    [
        pytest.param(Server("11", "s1"), Server("11", "s1"), True, id="the same"),
        pytest.param(Server("11"), Server("11", "s1"), True, id="only told yet"),
        pytest.param(Server("11", "s2"), Server("11", "s1"), False, id="told over what it had chosen: the name counts"),
        pytest.param(Server("12", "s2"), Server("11"), False, id="another"),
    ],
)
def test_whether_two_entries_mean_one_server(known: Server, told: Server, expected: bool) -> None:
    assert known.agrees(told) is expected


KEPT = """global
    httpclient.ssl.verify none
peers p
    server own
    server keeper unix@x.k
    table t type ipv6 size 100
backend b
    stick on src table p/t
"""


def test_a_keeper_has_the_tables_of_the_text_and_its_peer() -> None:
    said = (keeper_text(KEPT, "x.k", "own", "haproxy") or "").splitlines()
    assert [x.strip() for x in said[said.index("peers p") :]] == [
        "peers p",
        "bind unix@x.k mode 600 user haproxy",
        "server keeper",
        "server own unix@x.k.none",
        "table t type ipv6 size 100 store server_id,server_key",
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(KEPT.replace("x.k", "y.k"), id="at another place"),
        pytest.param(KEPT.replace("    server keeper unix@x.k\n", ""), id="not asked for"),
        pytest.param("", id="nothing"),
    ],
)
def test_who_asks_for_no_keeper_has_none(text: str) -> None:
    assert keeper_text(text, "x.k", "own", "") is None
