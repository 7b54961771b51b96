"""The two nginx of one load balancer: one for connections, which reloads, and one for datagrams, which is replaced
(relay_service.py). One process could not be both: what reloads loses answers to datagrams, and what is replaced goes on
to accept connections beside its successor.

Beside them, LVS: the same listeners of datagrams on an amphora whose kernel has it (lvs.py).

Each runs when its files are there. They share a directory and a log. The order of a change: connections first, because
a place may go over from the one to the other. Guarded like nginx.py. Next: nginx.py.
"""

from collections.abc import Callable
from typing import NamedTuple

from frontinus_amphora import binds, files, lvs
from frontinus_amphora.encoding import Counters, ListenerRow, PoolRow
from frontinus_amphora.keepalived_service import KeepalivedProgram
from frontinus_amphora.nginx import CONNECTIONS, DATAGRAMS, Nginx, Pushed, read_pushed
from frontinus_amphora.nginx_service import Program
from frontinus_amphora.values import ACTIONS


class PushedPair(NamedTuple):
    connections: Pushed | None
    datagrams: Pushed | None
    lvs: Pushed | None

    def listeners(self) -> list[str]:
        return [name for pushed in self if pushed is not None for name in pushed.outline.listeners]


def read_pair(directory: str) -> PushedPair:
    """What the files in this directory make nginx do. Raises Invalid when they make no sense."""
    return PushedPair(*(read_pushed(f"{directory}/{name}") for name in (CONNECTIONS, DATAGRAMS, lvs.NAME)))


class NginxPair:
    """Guarded by its load balancer's lock, except for the methods marked *any thread* in nginx.py."""

    def __init__(
        self,
        load_balancer_id: str,
        base_path: str,
        program: Program,
        keepalived: KeepalivedProgram,
        timeout: float,
        old_workers_mib: float,
        patience: float,
        changed: Callable[[], None],
        watched: Callable[[], None],
    ) -> None:
        self.directory = f"{base_path}/{load_balancer_id}/nginx"
        self.log = f"{self.directory}/nginx.log"
        self._connections, self._datagrams = (
            Nginx(load_balancer_id, base_path, name, program, timeout, old_workers_mib, patience, changed, watched)
            for name in (CONNECTIONS, DATAGRAMS)
        )
        self._lvs = lvs.Lvs(
            load_balancer_id,
            base_path,
            lvs.NAME,
            program,
            timeout,
            old_workers_mib,
            patience,
            changed,
            watched,
            keepalived=keepalived,
        )
        self._all: tuple[Nginx, ...] = (self._connections, self._datagrams, self._lvs)

    def check(self, pushed: PushedPair, trial: str | None = None) -> None:
        for nginx, each in zip(self._all, pushed, strict=True):
            if each is not None and not nginx.is_settled(each):
                nginx.check(each, trial)

    def refused_binds(self, pushed: PushedPair) -> list[binds.RefusedBind]:
        refused: list[binds.RefusedBind] = []
        for nginx, each in zip(self._all, pushed, strict=True):
            if each is not None and not nginx.is_settled(each):
                # The one for datagrams starts last, and what was for connections before may then be free for it.
                refused += nginx.refused_binds(each.outline, self._connections.running())
        return refused

    def follow(self, pushed: PushedPair) -> str:
        """Run this. What was done, for both together. Raises ServiceFailed."""
        actions = [nginx.follow(each) for nginx, each in zip(self._all, pushed, strict=True)]
        return max(actions, key=ACTIONS.index)

    def delete(self) -> None:
        for nginx in self._all:
            nginx.delete()
        files.remove_tree(self.directory)

    def is_running(self) -> bool:
        return any(nginx.is_running() for nginx in self._all)

    def has_fallen(self) -> bool:
        return any(nginx.has_fallen() for nginx in self._all)

    def is_settled(self, pushed: PushedPair) -> bool:
        return all(nginx.is_settled(each) for nginx, each in zip(self._all, pushed, strict=True))

    def resume(self, pushed: PushedPair) -> None:
        for nginx, each in zip(self._all, pushed, strict=True):
            nginx.resume(each)

    def descriptors(self) -> dict[int, str]:
        return {number: meaning for nginx in self._all for number, meaning in nginx.descriptors().items()}

    def heard(self) -> str:
        return "".join(nginx.heard() for nginx in self._all)

    def notice_death(self) -> None:
        for nginx in self._all:
            nginx.notice_death()

    def attend(self) -> float | None:
        return min((due for nginx in self._all if (due := nginx.attend()) is not None), default=None)

    def take_counted(self) -> dict[str, Counters]:
        """What the kernel counted for LVS since this was last asked; nginx tells by its log. *Any thread.*"""
        return self._lvs.take_counted()

    def let_go(self) -> None:
        for nginx in self._all:
            nginx.let_go()

    def rows(self) -> tuple[dict[str, ListenerRow], dict[str, PoolRow]]:
        listeners: dict[str, ListenerRow] = {}
        pools: dict[str, PoolRow] = {}
        for nginx in self._all:
            more_listeners, more_pools = nginx.rows()
            listeners.update(more_listeners)
            pools.update(more_pools)
        return listeners, pools
