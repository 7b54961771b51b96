"""Heartbeat bytes against the contract's vectors, and haproxy's words against the contract's."""

import hashlib
import hmac
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontinus_amphora.encoding import (
    ENVELOPE_VERSION,
    PLAIN_VERSION,
    Counters,
    PoolRow,
    encode_envelope,
    encode_plain,
    member_status,
    message,
    parse_statistics,
)
from frontinus_amphora.statistics import MOST_ABSENT, Totals, Worker

pytestmark = pytest.mark.unit

CONTRACT = yaml.safe_load((Path(__file__).parents[1] / "contract" / "heartbeat.yaml").read_text())
LISTENER, POOL = "0c6f4c1e-9a49-4d0e-8a11-2f3b8f7a1001", "7f3a1d42-1f0b-4f6e-9a2d-5d6a7c8b2001"


@pytest.mark.parametrize("vector", CONTRACT["vectors"], ids=lambda vector: vector["name"])
def test_plain_datagram_is_the_contracts(vector: dict[str, Any]) -> None:
    """The compressed bytes depend on zlib, so what is compared is what a receiver sees."""
    content = json.loads(vector["json_utf8"])
    packet = encode_plain(content, vector["key"])
    payload, signature = packet[:-64], packet[-64:]
    assert zlib.decompress(payload).decode() == vector["json_utf8"]
    assert payload[:2] == b"\x78\xda"
    assert signature == hmac.new(vector["key"].encode(), payload, hashlib.sha256).hexdigest().encode()
    received = bytes.fromhex(vector["packet_hex"])
    if received[:-64] == payload:  # the same zlib as the vector's
        assert received == packet


@pytest.mark.parametrize("vector", CONTRACT["vectors"], ids=lambda vector: vector["name"])
def test_message_has_the_contracts_shape_and_order(vector: dict[str, Any]) -> None:
    wanted = json.loads(vector["json_utf8"])
    listeners = {
        name: (
            entry["status"],
            entry["stats"]["conns"],
            Counters(*(entry["stats"][key] for key in ("tx", "rx", "totconns", "ereq"))),
            0,
        )
        for name, entry in wanted["listeners"].items()
    }
    pools = {name: PoolRow(entry["status"], entry["members"]) for name, entry in wanted["pools"].items()}
    made = message(wanted["id"], wanted["seq"], listeners, pools, 3)
    assert json.dumps(made) == vector["json_utf8"]


def test_envelope_is_laid_out_as_described() -> None:
    amphora_id = "5b2d9c5e-6d39-4a0c-9f0f-8a7f9d1c2e01"
    packet = encode_envelope({"id": amphora_id}, "key", amphora_id, 0x0102030405060708, 9)
    assert packet[:4] == b"FRH1"
    assert packet[4:20].hex() == amphora_id.replace("-", "")
    assert packet[20:28] == bytes([1, 2, 3, 4, 5, 6, 7, 8])
    assert packet[28:36] == bytes([0, 0, 0, 0, 0, 0, 0, 9])
    assert json.loads(zlib.decompress(packet[36:-32])) == {"id": amphora_id}
    assert packet[-32:] == hmac.digest(b"key", packet[:-32], "sha256")


@pytest.mark.parametrize(
    "said, weight, word",
    [
        ("UP", 1, "UP"),
        ("UP", 0, "DRAIN"),
        ("UP 1/3", 1, "UP 1/3"),
        ("UP 1/3", 0, "DRAIN"),
        ("DOWN", 1, "DOWN"),
        ("DOWN 1/2", 0, "DOWN 1/2"),
        ("DOWN (agent)", 1, "DOWN"),
        ("DRAIN", 1, "DRAIN"),
        ("NOLB", 1, "DRAIN"),
        ("MAINT", 1, "MAINT"),
        ("MAINT (via a/b)", 0, "MAINT"),
        ("MAINT (resolution)", 1, "MAINT"),
        ("no check", 1, "no check"),
        ("no check", 0, "no check"),
    ],
)
def test_member_status_words(said: str, weight: int, word: str) -> None:
    assert member_status(said, weight) == word


TABLE = f"""# pxname,svname,scur,stot,bin,bout,ereq,status,weight,last_chk,
{LISTENER},FRONTEND,2,7,1024,4096,1,OPEN,,,
prometheus-exporter,FRONTEND,2,7,1024,4096,1,OPEN,,,
helper,FRONTEND,2,7,1024,4096,1,OPEN,,,
{POOL}:{LISTENER},one,0,0,0,0,,UP,1,"said ""a, b"" to us",
{POOL}:{LISTENER},two,0,0,0,0,,DOWN,1,,
{POOL}:{LISTENER},leaving,0,0,0,0,,MAINT,1,,
{POOL}:{LISTENER},BACKEND,0,0,0,0,,UP,2,,
prometheus:{LISTENER},BACKEND,0,0,0,0,,UP,2,,
"""


def test_statistics_are_read_from_csv() -> None:
    seen = parse_statistics(TABLE, {f"{POOL}:{LISTENER}/leaving"})
    assert seen.listeners == {LISTENER: ("OPEN", 2, Counters(tx=4096, rx=1024, totconns=7, ereq=1))}
    assert seen.pools == {f"{POOL}:{LISTENER}": PoolRow("UP", {"one": "UP", "two": "DOWN"})}


CHECKS = f"""# pxname,svname,scur,stot,bin,bout,ereq,status,weight,check_status,check_code,check_desc,last_chk,
{POOL}:{LISTENER},up,0,0,0,0,,UP,1,L7OK,200,Layer7 check passed,OK,
{POOL}:{LISTENER},refused,0,0,0,0,,DOWN,1,* L4CON,,Layer4 connection problem,Connection refused,
{POOL}:{LISTENER},wrong,0,0,0,0,,DOWN 1/2,1,L7STS,500,Layer7 wrong status,,
{POOL}:{LISTENER},ended,0,0,0,0,,DOWN,1,PROCERR,4294967295,External check error,,
{POOL}:{LISTENER},unasked,0,0,0,0,,DOWN,1,INI,,Initializing,,
{POOL}:{LISTENER},off,0,0,0,0,,MAINT,1,L4TOUT,,Layer4 timeout,,
{POOL}:{LISTENER},BACKEND,0,0,0,0,,UP,2,,,,,
"""


def test_members_that_are_down_come_with_the_reason() -> None:
    checks = parse_statistics(CHECKS).pools[f"{POOL}:{LISTENER}"].checks
    assert checks == {
        "refused": ("L4CON", None, "Layer4 connection problem: Connection refused"),
        "wrong": ("L7STS", 500, "Layer7 wrong status"),
        "ended": ("PROCERR", None, "External check error"),
    }


@pytest.mark.parametrize("said", ["a\x1cb", "a\x85b", '"a\u2028b,c"', "a\x0bb"])
def test_no_member_hides_behind_what_it_says(said: str) -> None:
    """What haproxy shows of its answer may have what other programs take for the end of a line."""
    table = CHECKS.replace("Layer7 wrong status,,", f"Layer7 wrong status,{said},")
    pool = parse_statistics(table).pools[f"{POOL}:{LISTENER}"]
    assert pool.members["wrong"] == "DOWN 1/2"
    assert pool.checks["wrong"].text == f"Layer7 wrong status: {said.strip(chr(34))}"


def test_only_our_own_format_tells_the_reason() -> None:
    pools = parse_statistics(CHECKS).pools
    told = {
        version: message("5b2d9c5e-6d39-4a0c-9f0f-8a7f9d1c2e01", 1, {}, pools, version)["pools"]
        for version in (PLAIN_VERSION, ENVELOPE_VERSION)
    }
    name = f"{POOL}:{LISTENER}"
    assert told[PLAIN_VERSION] == {name: {"status": "UP", "members": pools[name].members}}
    assert told[ENVELOPE_VERSION][name]["checks"]["wrong"] == {  # type: ignore[index]
        "status": "L7STS",
        "code": 500,
        "text": "Layer7 wrong status",
    }


@pytest.mark.parametrize(
    "status,scur,slim,expected",
    [("OPEN", "4", "5", "OPEN"), ("OPEN", "5", "5", "FULL"), ("OPEN", "9", "0", "OPEN"), ("FULL", "0", "", "FULL")],
)
def test_listener_at_its_limit_is_full(status: str, scur: str, slim: str, expected: str) -> None:
    name = "0c6f4c1e-9a49-4d0e-8a11-2f3b8f7a1001"
    table = (
        f"# pxname,svname,scur,slim,stot,bin,bout,ereq,status,weight\n{name},FRONTEND,{scur},{slim},1,2,3,4,{status},\n"
    )
    assert parse_statistics(table).listeners[name].status == expected


@pytest.mark.parametrize("text", ["", "\n", "nonsense", "# pxname,svname\na,b\n", "Unknown command\n"])
def test_what_is_no_table_has_no_rows(text: str) -> None:
    assert parse_statistics(text) == ({}, {})


def test_totals_never_go_back() -> None:
    first, second = Worker(1, 10), Worker(1, 20)  # the same pid, another process
    totals = Totals()
    assert totals.saw(first, {LISTENER: Counters(100, 10, 5, 1)}, 77)
    assert not totals.saw(second, {LISTENER: Counters(1, 1, 1, 0)}, 88)  # after a reload: both live
    assert totals.total(LISTENER) == (101, 11, 6, 1)
    totals.saw(first, {LISTENER: Counters(110, 10, 5, 1)}, 99)  # an old worker still counts
    totals.lost(first)
    assert totals.total(LISTENER) == (111, 11, 6, 1)
    restored = Totals.from_json(json.loads(json.dumps(totals.to_json())))
    assert restored.total(LISTENER) == (111, 11, 6, 1)
    assert restored.since == {LISTENER: 77}
    restored.prune([])
    assert restored.total(LISTENER) == (111, 11, 6, 1)  # it may only be disabled


def test_listeners_that_are_gone_are_forgotten_when_they_are_very_many() -> None:
    totals, worker = Totals(), Worker(1, 1)
    names = [str(number) for number in range(MOST_ABSENT + 3)]
    totals.saw(worker, dict.fromkeys(names, Counters(1, 1, 1, 1)), 77)
    totals.prune(["0"])
    assert [name for name in names if totals.total(name) == (0, 0, 0, 0)] == ["1", "2"]


def test_counts_that_were_kept_before_times_were_count_on() -> None:
    """A receiver that was told no time must not be told one for what it knows already."""
    kept = {"base": {LISTENER: [1, 2, 3, 4]}, "workers": {"7:9": {"other": [1, 1, 1, 1]}}, "reported": {}}
    assert Totals.from_json(kept).since == {LISTENER: 0, "other": 0}


def test_increments_add_up_to_the_total() -> None:
    totals, worker = Totals(), Worker(1, 1)
    totals.saw(worker, {LISTENER: Counters(5, 5, 5, 5)}, 77)
    assert totals.take_increments(LISTENER) == (5, 5, 5, 5)
    totals.saw(worker, {LISTENER: Counters(7, 5, 6, 5)}, 88)
    assert totals.take_increments(LISTENER) == (2, 0, 1, 0)


def test_counter_that_went_back_is_its_own_increment() -> None:
    assert Counters(3, 9, 4, 0).since(Counters(5, 5, 4, 1)) == (3, 4, 0, 0)
