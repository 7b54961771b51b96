"""Hear at once of processes that end and of links that go, instead of looking again and again: what the drivers' `watch` is
made of. Linux only (pidfd_open(2), rtnetlink(7)). One owner: the event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Self

from frontinus.model.ids import AmphoraId

SHARE_OF_FILES = 4
"""One in so many of the files that this process may open is for watching; who finds no room is found by silence."""


LOOK_FOR_NEW_EVERY_S = 1.0
"""How often it is looked for amphorae that another process built, or an agent started again."""


class Endings:
    """Tells of amphorae of which a process has ended."""

    def __init__(self, tell: Callable[[AmphoraId], None]) -> None:
        self._tell = tell
        self._handles: dict[AmphoraId, int] = {}
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // SHARE_OF_FILES

    def __contains__(self, amphora_id: AmphoraId) -> bool:
        return amphora_id in self._handles

    def follow(self, amphora_id: AmphoraId, pid: int, is_still: Callable[[], bool]) -> None:
        """Tell when this process ends. It is the amphora's as long as `is_still` says so; asked when the number cannot come
        to mean another any more."""
        if amphora_id in self._handles or len(self._handles) >= self._most:
            return
        try:
            handle = os.pidfd_open(pid)
        except OSError:  # it is gone, which whoever looks next sees; or there is no room
            return
        self._handles[amphora_id] = handle
        # Readable when the process has ended.
        asyncio.get_running_loop().add_reader(handle, self._ended, amphora_id)
        if not is_still():
            self._forget(amphora_id)

    def _ended(self, amphora_id: AmphoraId) -> None:
        self._forget(amphora_id)
        self._tell(amphora_id)

    def _forget(self, amphora_id: AmphoraId) -> None:
        handle = self._handles.pop(amphora_id)
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for amphora_id in tuple(self._handles):
            self._forget(amphora_id)


async def watch(
    tell: Callable[[AmphoraId], None],
    follow: Callable[[Endings], Awaitable[None]],
    built: asyncio.Event,
    owners: Callable[[frozenset[str]], Awaitable[Iterable[AmphoraId]]] | None = None,
) -> None:
    """Watch until cancelled: `follow` has the processes of new amphorae followed, whenever `built` is set and from time to
    time; `owners` are the amphorae whose links have such names, where they have any."""
    with Endings(tell) as endings:
        async with asyncio.TaskGroup() as tasks:
            if owners is not None:
                tasks.create_task(_watch_links(tell, owners))
            while True:
                built.clear()
                await follow(endings)
                with suppress(TimeoutError):
                    await asyncio.wait_for(built.wait(), LOOK_FOR_NEW_EVERY_S)


async def _watch_links(
    tell: Callable[[AmphoraId], None], owners: Callable[[frozenset[str]], Awaitable[Iterable[AmphoraId]]]
) -> None:
    with LinkNews() as news:
        while True:
            for amphora_id in await owners(await news.lost()):
                tell(amphora_id)


_RTMGRP_LINK, _RTM_NEWLINK, _RTM_DELLINK, _IFLA_IFNAME, _IFF_RUNNING = 1, 16, 17, 3, 0x40
_HEADER, _LINK, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=HH")


class LinkNews:
    """What the kernel says of the links of our network namespace."""

    def __init__(self) -> None:
        """Raises OSError where the kernel does not give it."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _RTMGRP_LINK))

    async def lost(self) -> frozenset[str]:
        """The names of the next links that are gone, or do not carry anything (any more). Where more came than the kernel
        keeps for us, those are not told."""
        while True:
            try:
                names = lost_links(await asyncio.get_running_loop().sock_recv(self._socket, 65_536))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            if names:
                return names

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def lost_links(said: bytes) -> frozenset[str]:
    """The names of the links that these messages of rtnetlink(7) say are gone, or not running."""
    names: set[str] = set()
    at = 0
    while at + _HEADER.size <= len(said):
        length, kind, *_ = _HEADER.unpack_from(said, at)
        if not _HEADER.size <= length <= len(said) - at:
            break
        if kind in (_RTM_NEWLINK, _RTM_DELLINK) and length >= _HEADER.size + _LINK.size:
            flags = _LINK.unpack_from(said, at + _HEADER.size)[3]
            if kind == _RTM_DELLINK or not flags & _IFF_RUNNING:
                names |= _name_in(said[at + _HEADER.size + _LINK.size : at + length])
        at += _aligned(length)
    return frozenset(names)


def _name_in(attributes: bytes) -> set[str]:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if length < _ATTRIBUTE.size:
            break
        if kind == _IFLA_IFNAME:
            return {os.fsdecode(attributes[at + _ATTRIBUTE.size : at + length].rstrip(b"\0"))}
        at += _aligned(length)
    return set()


def _aligned(length: int) -> int:
    """Messages and attributes begin at multiples of four (NLMSG_ALIGN, RTA_ALIGN)."""
    return (length + 3) & ~3
