"""Server groups: one for each load balancer, so that its amphorae are on different hosts.

A group has nothing but its name to be known by, and Nova lets several have one. It is made before its first server and
dropped when its last is gone: whoever destroys a server drops all of ours that are empty, so that a crash in between leaves none
for ever. One that somebody else has just made and not used yet may be among them; he is refused, and makes it again. And Nova
drops a group whether it is empty or not, so whoever made the first server of one looks once more whether it is the one that all
choose: otherwise the other one of a pair would be kept off nothing. Which server goes into which group is not decided here:
servers.py asks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from frontinus.drivers.compute.nova.facts import GroupFacts
from frontinus.drivers.compute.nova.names import Names
from frontinus.drivers.compute.nova.nova import Nova
from frontinus.drivers.compute.nova.settings import NO_GROUPS
from frontinus.model.ids import LoadBalancerId


class Groups:
    """Shared by threads. `_lock` guards all but `_asked`, which `_counting` does, and keeps two of this process from making one
    group.

    Nova gives nothing but the list of all groups. So one list serves everybody in this process who asked before it was begun:
    those with a turn up to `_listed_for`; and one dropping of what is empty those up to `_dropped_for`."""

    def __init__(self, nova: Nova, names: Names, policy: str) -> None:
        self._nova, self._names, self._policy = nova, names, policy
        self._lock, self._counting = threading.Lock(), threading.Lock()
        self._wanted: Counter[str] = Counter()
        self._asked = self._listed_for = self._dropped_for = 0
        self._list: dict[str, GroupFacts] = {}

    @contextmanager
    def wanted(self, load_balancer_id: LoadBalancerId) -> Iterator[None]:
        """Meanwhile its group is not dropped by this process."""
        name = self._names.group_name(load_balancer_id)
        with self._lock:
            self._wanted[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._wanted[name] -= 1
                if not self._wanted[name]:
                    del self._wanted[name]

    def need(self, load_balancer_id: LoadBalancerId) -> GroupFacts | None:
        """The group, made if there is none; None where amphorae are not kept apart. Blocks. Raises Retry."""
        if self._policy == NO_GROUPS:
            return None
        name, turn = self._names.group_name(load_balancer_id), self._turn()
        with self._lock:
            found = self._named(name, turn)
            if found is None:
                # Another process may make one at the same moment: see `is_chosen`.
                found = self._nova.create_group(name, self._policy)
                self._list[found.id] = found
        return found

    def is_chosen(self, load_balancer_id: LoadBalancerId, group: GroupFacts) -> bool:
        """Whether this is the one of its name that all choose from now on, and is there at all. To be asked by whoever has made
        a server in one that was empty: one with a server is dropped by nobody, and comes before what is made later. Blocks.
        Raises Retry."""
        turn = self._turn()
        with self._lock:
            chosen = self._named(self._names.group_name(load_balancer_id), turn)
        return chosen is not None and chosen.id == group.id

    def drop_empty(self) -> None:
        """Blocks. Raises Retry."""
        if self._policy == NO_GROUPS:
            return
        turn = self._turn()
        with self._lock:
            if turn <= self._dropped_for:
                return
            # Never by an older list: a group that was empty then may have got its first server since.
            self._read()
            for group in tuple(self._list.values()):
                if self._names.is_our_group(group) and not group.members and not self._wanted[group.name]:
                    # A list may be long, and another process makes servers meanwhile.
                    now = self._nova.group(group.id)
                    if now is not None and not now.members:
                        self._nova.delete_group(group.id)
                        del self._list[group.id]
            self._dropped_for = self._listed_for

    def _turn(self) -> int:
        with self._counting:
            self._asked += 1
            return self._asked

    def _read(self) -> None:
        """With the lock."""
        with self._counting:
            served = self._asked
        self._list = {x.id: x for x in self._nova.groups()}
        self._listed_for = served

    def _named(self, name: str, turn: int) -> GroupFacts | None:
        """As of a moment after that turn. With the lock."""
        if turn > self._listed_for:
            self._read()
        # Of several the one that was made first, as Nova lists them: one that somebody makes later changes nothing of it.
        return next((x for x in self._list.values() if x.name == name), None)
