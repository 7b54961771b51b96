"""Let no new TCP connection come about at what a process listens on, without a word to whoever asks for one.

He asks again after a second, and is answered by whoever has the address then. A filter on the listening socket drops what
opens a connection (RFC 9293, 3.5: SYN without ACK) before the kernel answers; connections that are there have no such
filter. It stays with the socket, whichever worker holds it. Next: load_balancer.py."""

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Callable

from frontinus_amphora import open_sockets, processes
from frontinus_amphora.datagram_sockets import close_all, shared_by
from frontinus_amphora.log import log
from frontinus_amphora.peer_probe import PORT as PEERS_PORT

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_FLAGS, _SYN, _SYN_AND_ACK = 13, 0x02, 0x12  # the byte of the TCP header, which is where the filter begins to read
_LOAD_BYTE, _AND, _IF_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06  # linux/bpf_common.h
_PASS, _DROP = 0xFFFFFFFF, 0
_PROGRAM = (
    (_LOAD_BYTE, 0, 0, _FLAGS),
    (_AND, 0, 0, _SYN_AND_ACK),
    (_IF_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, _DROP),
    (_RETURN, 0, 0, _PASS),
)


def shut(master: int | None) -> bool:
    """Whether nobody new gets to the workers of this haproxy over TCP from now on; the place among peers stays open. Safe to
    repeat.

    False, and nothing changed, where none run or the kernel does not let us have their sockets (datagram_sockets.held_by)."""
    # Of all, since one may be about to go.
    is_shut = any([_at_each(x, _drop_newcomers) for x in _workers(master)])  # noqa: C419
    if not is_shut:
        open_up(master)  # those that were reached before the kernel refused
    return is_shut


def open_up(master: int | None) -> None:
    """Newcomers are let in again. Safe to repeat, also where they were all along."""
    for worker in _workers(master):
        _at_each(worker, _let_in)


def _workers(master: int | None) -> list[int]:
    return [] if master is None else processes.children(master) or []


def _at_each(pid: int, work: Callable[[socket.socket], None]) -> bool:
    table = open_sockets.table("tcp")
    listening = {inode for inode, own, peer in table if peer.port == 0 and own.port != PEERS_PORT}
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # it is gone
        return False
    try:
        sockets = shared_by(pid, pidfd, listening)
    finally:
        os.close(pidfd)
    try:
        for each in sockets or ():
            work(each)
    except OSError as error:  # such as no room for a filter
        log("listeners not shut", pid=pid, error=str(error))
        return False
    finally:
        close_all(sockets or ())
    return sockets is not None


def _drop_newcomers(each: socket.socket) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *x) for x in _PROGRAM))
    program = struct.pack("HP", len(_PROGRAM), ctypes.addressof(code))
    each.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _let_in(each: socket.socket) -> None:
    with contextlib.suppress(FileNotFoundError):  # it has no filter
        each.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
