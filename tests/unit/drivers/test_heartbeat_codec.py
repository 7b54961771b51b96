"""Datagrams in, values or refusals out: the contract's vectors, and our envelope byte by byte."""

from __future__ import annotations

import hmac
import json
import struct
import zlib
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from frontinus.drivers.amphora.agent.heartbeat import (
    LARGEST_MESSAGE,
    MOST_PARTS,
    decode_envelope,
    decode_plain,
    is_envelope,
)
from frontinus.drivers.amphora.interface import Refused
from frontinus.model.heartbeat import Counters, Heartbeat, ListenerReport, PoolReport, join
from frontinus.model.ids import AmphoraId
from frontinus_amphora.encoding import LARGEST_DATAGRAM, PoolRow, encode_envelope, encode_envelopes
from frontinus_amphora.encoding import Counters as Told
from frontinus_amphora.encoding import message as agents_message

CONTRACT = yaml.safe_load((Path(__file__).parents[2] / "contract" / "heartbeat.yaml").read_text())
VECTORS: list[dict[str, Any]] = CONTRACT["vectors"]
NEGATIVE: list[dict[str, Any]] = CONTRACT["negative_vectors"]
KEY = b"insecure"
AMPHORA = AmphoraId("5b2d9c5e-6d39-4a0c-9f0f-8a7f9d1c2e01")
LISTENER, POOL, MEMBER = str(UUID(int=10)), str(UUID(int=20)), str(UUID(int=30))


def plain(message: dict[str, Any], key: bytes = KEY) -> bytes:
    payload = zlib.compress(json.dumps(message).encode())
    return payload + hmac.digest(key, payload, "sha256").hex().encode()


def envelope(
    message: bytes,
    *,
    amphora: str = AMPHORA,
    boot: int = 7,
    sequence: int = 9,
    key: bytes = KEY,
    magic: bytes = b"FRH1",
) -> bytes:
    signed = magic + UUID(amphora).bytes + struct.pack(">QQ", boot, sequence) + message
    return signed + hmac.digest(key, signed, "sha256")


def packed(message: dict[str, Any]) -> bytes:
    return zlib.compress(json.dumps(message).encode())


def message(**fields: Any) -> dict[str, Any]:
    return {"id": AMPHORA, "seq": 3, "listeners": {}, "pools": {}, "ver": 2, **fields}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
@pytest.mark.parametrize("form", ["packet_hex", "legacy_packet_hex"])
def test_vectors_of_the_contract(vector: dict[str, Any], form: str) -> None:
    said = json.loads(vector["json_utf8"])
    heard = decode_plain(bytes.fromhex(vector[form]), vector["key"].encode())
    assert heard.amphora_id == said["id"]
    assert heard.incremental
    assert {name: listener.status for name, listener in heard.listeners.items()} == {
        name: listener["status"] for name, listener in said["listeners"].items()
    }
    for name, listener in said["listeners"].items():
        stats = listener["stats"]
        assert heard.listeners[name].counters == Counters(
            bytes_in=stats["rx"],
            bytes_out=stats["tx"],
            active_connections=stats["conns"],
            total_connections=stats["totconns"],
            request_errors=stats["ereq"],
        )
    assert heard.pools == {
        name.split(":")[0]: PoolReport(status=pool["status"], members=pool["members"])
        for name, pool in said["pools"].items()
    }


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors_with_another_key_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="signature"):
        decode_plain(bytes.fromhex(vector["packet_hex"]), b"wrong-key")
    foreign = vector["signed_with_wrong_key"]
    with pytest.raises(Refused, match="signature"):
        decode_plain(bytes.fromhex(foreign["packet_hex"]), KEY)
    assert decode_plain(bytes.fromhex(foreign["packet_hex"]), foreign["key"].encode()).amphora_id


@pytest.mark.parametrize("vector", NEGATIVE, ids=lambda vector: vector["name"])
def test_negative_vectors_of_the_contract(vector: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        decode_plain(bytes.fromhex(vector["packet_hex"]), vector["key"].encode())


@pytest.mark.parametrize("version", [None, 1])
def test_old_versions_have_pools_inside_listeners_and_absolute_counters(version: int | None) -> None:
    said: dict[str, Any] = {
        "id": AMPHORA,
        "seq": 0,
        "listeners": {
            LISTENER: {
                "status": "OPEN",
                "stats": {"tx": 5, "rx": 4, "conns": 3, "totconns": 2, "ereq": 1},
                "pools": {POOL: {"status": "UP", "members": {MEMBER: "UP"}}},
            }
        },
    }
    if version is not None:
        said["ver"] = version
    heard = decode_plain(plain(said), KEY)
    assert not heard.incremental
    assert heard.pools == {POOL: PoolReport(status="UP", members={MEMBER: "UP"})}


def test_what_a_member_said_can_be_kept_and_shown() -> None:
    """PostgreSQL has no place for a NUL, and a terminal obeys an escape."""
    checks = {MEMBER: {"status": "L7STS", "code": 503, "text": "a\0b\x1b[31m \u2028ç"}}
    pools = {POOL: {"status": "DOWN", "members": {MEMBER: "DOWN"}, "checks": checks}}
    heard = decode_envelope(envelope(packed(message(pools=pools))), lambda _: KEY)
    assert heard.pools[POOL].checks[MEMBER].text == "a\ufffdb\ufffd[31m \ufffdç"


def test_a_check_that_ended_without_a_status_is_no_reason_to_refuse_the_rest() -> None:
    """-1 in 32 bits: older agents tell it as haproxy does."""
    checks = {MEMBER: {"status": "PROCERR", "code": 4294967295, "text": "External check error"}}
    pools = {POOL: {"status": "UP", "members": {MEMBER: "DOWN"}, "checks": checks}}
    heard = decode_envelope(envelope(packed(message(pools=pools))), lambda _: KEY)
    assert heard.pools[POOL].checks[MEMBER].code is None


def test_a_pool_under_several_listeners_is_the_last_one() -> None:
    pools = {
        f"{POOL}:{LISTENER}": {"status": "UP", "members": {MEMBER: "UP"}},
        f"{POOL}:{UUID(int=11)}": {"status": "DOWN", "members": {MEMBER: "DOWN 1/2"}},
    }
    heard = decode_plain(plain(message(pools=pools)), KEY)
    assert heard.pools == {POOL: PoolReport(status="DOWN", members={MEMBER: "DOWN 1/2"})}


def test_an_envelope() -> None:
    said = message(
        listeners={LISTENER: {"status": "OPEN", "stats": {"tx": 1, "rx": 2, "conns": 3, "totconns": 4, "ereq": 5}}},
        pools={f"{POOL}:{LISTENER}": {"status": "UP", "members": {MEMBER: "no check"}}},
    )
    datagram = envelope(packed(said), boot=2**64 - 1, sequence=2**63)
    assert is_envelope(datagram)
    asked: list[str] = []

    def key_of(amphora_id: AmphoraId) -> bytes:
        asked.append(amphora_id)
        return KEY

    assert decode_envelope(datagram, key_of) == Heartbeat(
        amphora_id=AMPHORA,
        boot=2**64 - 1,
        sequence=2**63,
        incremental=False,
        listeners={
            LISTENER: ListenerReport(
                status="OPEN",
                counters=Counters(bytes_in=2, bytes_out=1, active_connections=3, total_connections=4, request_errors=5),
            )
        },
        pools={POOL: PoolReport(status="UP", members={MEMBER: "no check"})},
    )
    assert asked == [AMPHORA]


def test_one_amphora_cannot_speak_for_another() -> None:
    other = str(UUID(int=99))
    keys = {AMPHORA: b"its own", other: b"the other's"}
    with pytest.raises(Refused, match="signature"):
        decode_envelope(envelope(packed(message(id=other)), amphora=other, key=keys[AMPHORA]), keys.__getitem__)
    with pytest.raises(Refused, match="different amphorae"):
        decode_envelope(envelope(packed(message(id=other)), key=keys[AMPHORA]), keys.__getitem__)


@pytest.mark.parametrize("offset", [0, 4, 20, 28, 36, -40, -1])
def test_every_part_of_an_envelope_is_signed(offset: int) -> None:
    datagram = bytearray(envelope(packed(message())))
    datagram[offset] ^= 1
    with pytest.raises(Refused):
        decode_envelope(bytes(datagram), lambda _amphora_id: KEY)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "cut off"),
        (b"not zlib", "inflate"),
        (packed(message())[:-5], "cut off"),
        (packed(message()) + b"more", "follows"),
        (zlib.compress(b" " * (LARGEST_MESSAGE + 1)), "too large"),
        (zlib.compress(b"[]"), "no sense"),
        (zlib.compress(b"{}"), "no sense"),
        (zlib.compress(b'{"id": "x\xff"}'), "no sense"),
        (packed(message(listeners={LISTENER: {"status": "OPEN", "stats": {"tx": -1}}})), "no sense"),
        (packed(message(listeners={LISTENER: {"status": 5}})), "no sense"),
        (packed(message(ver="3")), "no sense"),
    ],
)
def test_what_is_signed_can_still_be_nonsense(content: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        decode_envelope(envelope(content), lambda _amphora_id: KEY)
    payload = content
    with pytest.raises(Refused):
        decode_plain(payload + hmac.digest(KEY, payload, "sha256").hex().encode(), KEY)


def test_a_key_is_not_asked_for_what_is_no_envelope() -> None:
    def never(amphora_id: AmphoraId) -> bytes:
        raise AssertionError(amphora_id)

    for datagram in (b"", b"FRH1", envelope(b"", magic=b"FRH3"), b"FRH1" + b"x" * 63, b"FRH2" + b"x" * 67):
        with pytest.raises(Refused, match="not an envelope"):
            decode_envelope(datagram, never)


@given(st.binary(max_size=300))
@example(b"")
@example(b"FRH1" + bytes(100))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(Refused):
        decode_plain(noise, KEY)
    with pytest.raises(Refused):
        decode_envelope(noise, lambda _amphora_id: KEY)


@pytest.mark.parametrize("count", [2**53 + 1, 2**63, 2**70])
def test_counters_that_no_database_could_hold_are_refused(count: int) -> None:
    said = message(listeners={LISTENER: {"status": "OPEN", "stats": {"tx": count}}})
    with pytest.raises(Refused, match="makes no sense"):
        decode_envelope(envelope(packed(said)), lambda _: KEY)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(Refused, match="makes no sense"):
        decode_envelope(envelope(zlib.compress(b'{"listeners":' + b"[" * 400_000)), lambda _: KEY)


def part(content: bytes, number: int, of: int) -> bytes:
    return envelope(struct.pack(">HH", number, of) + content, magic=b"FRH2")


def test_a_part_is_read_by_itself() -> None:
    said = message(pools={f"{POOL}:{LISTENER}": {"status": "UP", "members": {MEMBER: "UP"}}})
    datagram = part(packed(said), 1, 3)
    assert is_envelope(datagram)
    heard = decode_envelope(datagram, lambda _: KEY)
    assert (heard.boot, heard.sequence, heard.part, heard.parts) == (7, 9, 1, 3)
    assert heard.pools == {POOL: PoolReport(status="UP", members={MEMBER: "UP"})}


@pytest.mark.parametrize("number, of", [(0, 0), (1, 1), (3, 3), (4, 3), (0, MOST_PARTS + 1), (65_535, 65_535)], ids=str)
def test_a_part_of_no_message_is_refused(number: int, of: int) -> None:
    with pytest.raises(Refused, match="part of no message"):
        decode_envelope(part(packed(message()), number, of), lambda _: KEY)


@pytest.mark.parametrize("offset", [0, 4, 20, 28, 36, 37, 38, 39, 40, -40, -1])
def test_every_byte_of_a_part_is_signed(offset: int) -> None:
    datagram = bytearray(part(packed(message()), 0, 2))
    datagram[offset] ^= 1
    with pytest.raises(Refused):
        decode_envelope(bytes(datagram), lambda _: KEY)


@pytest.mark.parametrize(
    "listeners, pools, members",
    [
        pytest.param(1, 1, 100, id="one datagram"),
        pytest.param(1, 1, 5_000, id="one very large pool"),
        pytest.param(40, 200, 60, id="many of everything"),
        pytest.param(3_000, 0, 0, id="listeners only"),
        pytest.param(1, 4_000, 0, id="pools without members"),
    ],
)
def test_what_the_agent_splits_is_joined_again(listeners: int, pools: int, members: int) -> None:
    rows = {
        str(uuid4()): ("OPEN", number, Told(tx=number, rx=2 * number, totconns=3 * number, ereq=4 * number), 5)
        for number in range(listeners)
    }
    told = {
        f"{uuid4()}:{next(iter(rows))}": PoolRow("UP", {str(uuid4()): "UP" for _ in range(members)})
        for _ in range(pools)
    }
    content = agents_message(AMPHORA, 9, rows, told, 2)
    packets = encode_envelopes(content, KEY.decode(), AMPHORA, 7, 9)
    assert max(map(len, packets)) <= LARGEST_DATAGRAM
    heard = [decode_envelope(packet, lambda _: KEY) for packet in packets]
    assert [each.part for each in heard] == list(range(len(packets)))
    assert join(heard) == decode_envelope(encode_envelope(content, KEY.decode(), AMPHORA, 7, 9), lambda _: KEY)
    assert (len(packets) > 1) == (pools * members + listeners + pools > 1_000)


def test_a_message_for_more_parts_than_a_receiver_joins_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontinus_amphora.encoding.MOST_PARTS", 3)
    pools = {f"{uuid4()}:{uuid4()}": PoolRow("UP", {str(uuid4()): "UP" for _ in range(10_000)})}
    with pytest.raises(ValueError, match="too large"):
        encode_envelopes(agents_message(AMPHORA, 0, {}, pools, 2), KEY.decode(), AMPHORA, 7, 0)


@pytest.mark.parametrize("empty", [False, True])
def test_that_there_is_nothing_travels_in_our_format_only(empty: bool) -> None:
    ours = agents_message(AMPHORA, 1, {}, {}, 2, empty=empty)
    heard = decode_envelope(encode_envelope(ours, KEY.decode(), AMPHORA, 7, 1), lambda _: KEY)
    assert heard.empty is empty
    assert "empty" not in agents_message(AMPHORA, 1, {}, {}, 3, empty=empty)


@pytest.mark.parametrize("lost", [(), (LISTENER, POOL)], ids=["whole", "lost"])
def test_lost_files_travel_in_our_format_only(lost: tuple[str, ...]) -> None:
    ours = agents_message(AMPHORA, 1, {}, {}, 2, lost)
    heard = decode_envelope(encode_envelope(ours, KEY.decode(), AMPHORA, 7, 1), lambda _: KEY)
    assert heard.incomplete == frozenset(lost)
    assert "incomplete" not in agents_message(AMPHORA, 1, {}, {}, 3, lost)
