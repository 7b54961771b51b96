"""What an amphora driver is examined on: how to make it, how to start an amphora, how to reach behind its back.

Next: amphora_on_paper.py (what needs no amphora), amphora_in_place.py (what does)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from frontinus.drivers.amphora.interface import AmphoraDriver
from frontinus.model.enums import AmphoraStatus
from frontinus.model.ids import AmphoraId, LoadBalancerId, new_id
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.testing.exam import NotExaminable, require
from frontinus.testing.exam_trees import PROJECT, plain_tree

LONGEST_PAUSE_S = 1.0
"""For so long at most may a driver keep the event loop from others. Generous: the machine of an exam has other work too."""


@dataclass(frozen=True)
class AmphoraBench:
    """`place` starts an amphora with the driver's boot files, gives the management address once its agent answers, and
    takes it away at the end; None: there is none to examine on. `vip_address` and two `ports` are free to listen on
    there; `hold_port` takes an address and port from the amphora for a while, and `hang` keeps all that runs in its place
    from doing anything for a while. `deaf_address` is one where no agent answers. `reachable` says that the exam itself
    reaches the VIP, and the amphora a server of the exam on `member_address`: then traffic is sent. `datagram` makes a
    genuine heartbeat of an amphora, which the driver has not seen. `digest_elsewhere` renders in another process."""

    factory: Callable[[], AmphoraDriver]
    place: Callable[[AmphoraDriver, AmphoraId], AbstractAsyncContextManager[str]] | None = None
    vip_address: str = "127.64.0.10"
    ports: tuple[int, int] = (18_080, 18_081)
    hold_port: Callable[[str, int], AbstractContextManager[object]] | None = None
    hang: Callable[[AmphoraId], AbstractContextManager[object]] | None = None
    deaf_address: str = "127.191.255.254"
    reachable: bool = False
    member_address: str = "127.0.0.1"
    datagram: Callable[[AmphoraDriver, AmphoraId], bytes | Awaitable[bytes]] | None = None
    digest_elsewhere: Callable[[LoadBalancerTree, Amphora], Awaitable[str]] | None = None

    def tree(self, driver: AmphoraDriver, *ports: int, of: LoadBalancerId | None = None) -> LoadBalancerTree:
        """A plain load balancer of what the driver offers, with a listener on each port."""
        return plain_tree(driver.offers(), self.vip_address, *ports, load_balancer_id=of)


def amphora_at(address: str, tree: LoadBalancerTree, amphora_id: AmphoraId | None = None) -> Amphora:
    """The record of an amphora that carries the tree."""
    return Amphora(
        id=amphora_id or AmphoraId(new_id()),
        load_balancer_id=tree.id,
        project_id=PROJECT,
        status=AmphoraStatus.ALLOCATED,
        management_address=address,
        # Now, not the exam's fixed time: a driver may think a certificate from then old.
        created_at=datetime.now(UTC),
    )


@asynccontextmanager
async def made(bench: AmphoraBench) -> AsyncIterator[AmphoraDriver]:
    """A driver, closed at the end."""
    driver = bench.factory()
    try:
        yield driver
    finally:
        await driver.close()


@asynccontextmanager
async def running(bench: AmphoraBench, *ports: int) -> AsyncIterator[tuple[AmphoraDriver, Amphora, LoadBalancerTree]]:
    """A driver, an amphora whose agent answers and to which nothing was applied yet, and a plain tree for it."""
    if bench.place is None:
        raise NotExaminable("the bench has no `place` to start an amphora in")
    async with made(bench) as driver:
        amphora_id = AmphoraId(new_id())
        tree = bench.tree(driver, *ports)
        async with bench.place(driver, amphora_id) as address:
            yield driver, amphora_at(address, tree, amphora_id), tree


async def require_runs(driver: AmphoraDriver, amphora: Amphora, tree: LoadBalancerTree) -> None:
    """Raise Violation unless the agent says that this tree is what runs."""
    wanted = driver.render(tree, amphora)
    info = await driver.info(amphora, tree)
    require(info.running, "the agent says that nothing runs")
    require(info.digest in (None, wanted.digest), f"{info.digest} runs, not {wanted.digest}")


@asynccontextmanager
async def others_go_on(what: str) -> AsyncIterator[None]:
    """Raise Violation when the event loop stood still inside: a controller serves hundreds of amphorae on it."""
    longest = 0.0
    clock = asyncio.get_running_loop().time

    async def watch() -> None:
        nonlocal longest
        last = clock()
        while True:
            await asyncio.sleep(0.01)
            longest, last = max(longest, clock() - last), clock()

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        yield
        await asyncio.sleep(0.02)
    finally:
        watching.cancel()
    require(longest < LONGEST_PAUSE_S, f"{what} kept everybody else waiting for {longest:.1f} s: it blocks")
