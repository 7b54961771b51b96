"""Server groups: one for each load balancer, so that its amphorae are on different hosts.

A group has nothing but its name to be known by, and Nova lets several have one. It is made before its first server and
dropped when its last is gone: whoever destroys a server drops all of ours that are empty, so that a crash in between leaves none
for ever. One that somebody else has just made and not used yet may be among them; he is refused, and makes it again. Which
server goes into which group is not decided here: servers.py asks."""

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
    """Shared by threads; the lock guards `_wanted` and keeps two of this process from making one group."""

    def __init__(self, nova: Nova, names: Names, policy: str) -> None:
        self._nova, self._names, self._policy = nova, names, policy
        self._lock = threading.Lock()
        self._wanted: Counter[str] = Counter()

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

    def need(self, load_balancer_id: LoadBalancerId) -> str | None:
        """The id of the group, made if there is none; None where amphorae are not kept apart. Blocks. Raises Retry."""
        if self._policy == NO_GROUPS:
            return None
        name = self._names.group_name(load_balancer_id)
        with self._lock:
            found = self._named(name)
            if found is None:
                made = self._nova.create_group(name, self._policy)
                # Another process may have made one at the same moment: both choose the same.
                found = self._named(name) or made
                if found.id != made.id:
                    self._nova.delete_group(made.id)
        return found.id

    def drop_empty(self) -> None:
        """Blocks. Raises Retry."""
        if self._policy == NO_GROUPS:
            return
        with self._lock:
            for group in self._nova.groups():
                if self._names.is_our_group(group) and not group.members and not self._wanted[group.name]:
                    self._nova.delete_group(group.id)

    def _named(self, name: str) -> GroupFacts | None:
        found = [x for x in self._nova.groups() if x.name == name]
        return min(found, key=lambda x: (-len(x.members), x.id), default=None)
