"""Let no new TCP connection come about at what a process listens on, without a word to whoever asks for one.

He asks again after a second, and is answered by whoever has the address then. A filter on the listening socket drops what
opens a connection (RFC 9293, 3.5: SYN without ACK) before the kernel answers; connections that are there have no such
filter. It stays with the socket, whichever worker holds it. Next: load_balancer.py."""

import ctypes
import os
import socket
import struct

from frontinus_amphora import open_sockets
from frontinus_amphora.datagram_sockets import close_all, shared_by

_SO_ATTACH_FILTER = 26
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


def shut(pid: int, kept: int) -> bool:
    """Whether nobody new gets to this process over TCP from now on, but at port `kept`. Safe to repeat.

    False, and nothing changed, where the kernel does not let us have its sockets (datagram_sockets.held_by)."""
    listening = {inode for inode, own, peer in open_sockets.table("tcp") if peer.port == 0 and own.port != kept}
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # it is gone
        return False
    try:
        sockets = shared_by(pid, pidfd, listening)
    finally:
        os.close(pidfd)
    for each in sockets or ():
        _drop_newcomers(each)
    close_all(sockets or ())
    return sockets is not None


def _drop_newcomers(each: socket.socket) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *x) for x in _PROGRAM))
    program = struct.pack("HP", len(_PROGRAM), ctypes.addressof(code))
    each.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
