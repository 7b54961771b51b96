"""Sockets on which one nginx after the other takes the datagrams of the same place, so that none is lost in between.

Sockets of one user that bind to the same place with SO_REUSEPORT form a group, and the kernel spreads datagrams over
those of them that are *open*. One that is connected is passed over (Linux 5.4), and yet it goes on to send wherever it
is told to: to *quieten* a socket is to connect it to its own address, where nothing ever comes from. What it received
before stays in its queue. So an nginx that is replaced sends the answers that are owed over a socket that gets nothing
more. Nobody needs a privilege, and who holds a socket last needs not to be alive for it. Next: relay_service.py.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Collection, Iterable

from frontinus_amphora import open_sockets
from frontinus_amphora.open_sockets import Spot

_LIBC = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD = 438  # the same number on every architecture
_UNSPECIFIED = struct.pack("H14x", socket.AF_UNSPEC)
_SO_MEMINFO, _MEMINFO = 55, struct.Struct("9I")
_SO_RCVBUFFORCE = 33

ROOM = 4 << 20
"""Bytes of memory for what came and was not taken yet: some 5,000 small datagrams. The kernel's own 208 KiB hold 277, and who
comes in a burst of more is lost. Without privileges it is what net.core.rmem_max allows, twice the kernel's own as a rule."""


def make(spot: Spot, *, ours: bool, quiet: bool) -> socket.socket:
    """A socket at this spot. `ours` says that others of our own are there, whom it joins.

    Where none are it is bound alone first, so that it can never come between the sockets of another load balancer.
    Raises OSError when the kernel refuses."""
    made = socket.socket(socket.AF_INET6 if ":" in spot.address else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        try:
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, ROOM // 2)  # the kernel doubles it, for its own part
        except PermissionError:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM // 2)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if ours:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(spot)
        if quiet:
            quieten(made)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        made.close()
        raise
    return made


def quieten(each: socket.socket) -> bool:
    """Let it receive nothing from now on. Safe to repeat. False when the kernel refuses, as it does for an address that
    is not here now (the VIP of a pair, at the one that stands by); but then nothing comes, and no answer could leave."""
    try:
        each.connect(each.getsockname())
    except OSError:
        return False
    return True


def open_up(each: socket.socket) -> None:
    """Let it receive. Safe to repeat. (Python has no word for connect(AF_UNSPEC).)"""
    if _LIBC.connect(each.fileno(), _UNSPECIFIED, len(_UNSPECIFIED)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def is_open(each: socket.socket) -> bool:
    try:
        each.getpeername()
    except OSError:
        return True
    return False


def spot_of(each: socket.socket) -> Spot:
    address, port = each.getsockname()[:2]
    return Spot(str(address), int(port))


def waiting(each: socket.socket) -> int:
    """Memory of what waits to be read; 0 when nothing does."""
    memory: int = _MEMINFO.unpack(each.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[0]
    return memory


def held_by(pid: int, pidfd: int) -> list[socket.socket] | None:
    """Those that this process listens on, to be shared with it; None when the kernel does not let us have them.

    It does when the process is of our own user and Yama's ptrace_scope is 0, or when we have CAP_SYS_PTRACE."""
    shared = shared_by(pid, pidfd)
    if shared is None:
        return None
    found: list[socket.socket] = []
    others: list[socket.socket] = []
    for each in shared:
        of_internet = each.family in (socket.AF_INET, socket.AF_INET6)
        (found if each.type == socket.SOCK_DGRAM and of_internet else others).append(each)
    close_all(others)
    return found


def shared_by(pid: int, pidfd: int, of: Collection[str] | None = None) -> list[socket.socket] | None:
    """The sockets of this process, as `held_by`: those of these inodes, or all."""
    found: list[socket.socket] = []
    for number, inode in open_sockets.descriptors(pid):
        if of is not None and inode not in of:
            continue
        descriptor = _LIBC.syscall(_PIDFD_GETFD, pidfd, number, 0)
        if descriptor < 0:
            if open_sockets.inode_of(pid, number) != inode:
                continue  # closed meanwhile, as connections are
            close_all(found)
            return None
        found.append(socket.socket(fileno=descriptor))
    return found


def places_of(sockets: Iterable[socket.socket]) -> dict[Spot, bool]:
    """Where these are, and whether one of them there is open."""
    found: dict[Spot, bool] = {}
    for each in sockets:
        found[spot_of(each)] = found.get(spot_of(each), False) or is_open(each)
    return found


def places(pid: int) -> dict[Spot, bool]:
    """The same for the sockets of a master, which are those that it listens on, when they cannot be shared.

    Where sockets come and go the kernel's table may pass over one, so this is second best."""
    inodes = open_sockets.inodes(pid)
    found: dict[Spot, bool] = {}
    for inode, own, peer in open_sockets.table("udp"):
        if inode in inodes:
            found[own] = found.get(own, False) or peer.port == 0
    return found


def close_all(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()
