"""As much of SCTP (RFC 9260) as it takes to associate and say a name, over raw sockets: for kernels without it.

Run with a name it is a server that answers everybody; `ask` is a client. Nothing is sent again, and nobody is waited for."""

from __future__ import annotations

import socket
import struct
import sys

SCTP = 132
DATA, INIT, INIT_ACK, SACK, ABORT, COOKIE_ECHO, COOKIE_ACK = 0, 1, 2, 3, 6, 10, 11
TAG = 0x46726F6E
_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


def _checksum(packet: bytes) -> int:
    """CRC32c (RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for byte in packet:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _packet(source: int, destination: int, tag: int, *chunks: bytes) -> bytes:
    body = b"".join(chunks)
    empty = struct.pack(">HHII", source, destination, tag, 0) + body
    return struct.pack(">HHI", source, destination, tag) + struct.pack("<I", _checksum(empty)) + body


def _chunk(kind: int, value: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BBH", kind, flags, len(value) + 4) + value + bytes(-len(value) % 4)


def _data(text: bytes) -> bytes:
    return _chunk(DATA, struct.pack(">IHHI", 1, 0, 0, 0) + text, flags=3)


def _opening(kind: int, *parameters: bytes) -> bytes:
    return _chunk(kind, struct.pack(">IIHHI", TAG, 65_536, 1, 1, 1) + b"".join(parameters))


def _parse(datagram: bytes) -> tuple[int, int, int, list[tuple[int, bytes]]]:
    """Source port, destination port, tag, and chunks, of an IPv4 packet."""
    packet = datagram[(datagram[0] & 15) * 4 :]
    source, destination, tag = struct.unpack(">HHI", packet[:8])
    chunks, at = [], 12
    while at + 4 <= len(packet):
        kind, _, length = struct.unpack(">BBH", packet[at : at + 4])
        chunks.append((kind, packet[at + 4 : at + length]))
        at += max(4, length + -length % 4)
    return source, destination, tag, chunks


def ask(address: str, port: int, own_port: int, patience: float) -> str:
    """What the server says to an association; empty when nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, SCTP) as raw:
        raw.settimeout(patience)
        raw.sendto(_packet(own_port, port, 0, _opening(INIT)), (address, 0))
        try:
            while True:
                datagram, (sender, _) = raw.recvfrom(65_536)
                source, destination, tag, chunks = _parse(datagram)
                if (sender, source, destination, tag) != (address, port, own_port, TAG):
                    continue
                for kind, value in chunks:
                    if kind == INIT_ACK:
                        cookie = value[20:24]  # of the one parameter, behind its head
                        peer = struct.unpack(">I", value[:4])[0]
                        raw.sendto(
                            _packet(own_port, port, peer, _chunk(COOKIE_ECHO, cookie), _data(b"who")), (address, 0)
                        )
                    if kind == DATA:
                        return value[12:].decode()
        except TimeoutError:
            return ""


def serve(name: str, port: int) -> None:
    """Answer whoever associates, until the process ends."""
    peers: dict[tuple[str, int], int] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, SCTP) as raw:
        print("up", flush=True)  # noqa: T201 - whoever started it waits for that
        while True:
            datagram, (sender, _) = raw.recvfrom(65_536)
            source, destination, _tag, chunks = _parse(datagram)
            if destination != port:
                continue
            for kind, value in chunks:
                if kind == INIT:
                    peers[sender, source] = struct.unpack(">I", value[:4])[0]
                    answer = _opening(INIT_ACK, struct.pack(">HH4s", 7, 8, b"cook"))
                elif kind == COOKIE_ECHO:
                    answer = _chunk(COOKIE_ACK, b"")
                elif kind == DATA:
                    answer = _data(name.encode())
                else:
                    continue
                raw.sendto(_packet(port, source, peers.get((sender, source), 0), answer), (sender, 0))


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
