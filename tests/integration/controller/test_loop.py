"""The loop of a controller as it runs: leases, and the work under them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from frontinus.controller.loop import Controller
from frontinus.drivers.compute.interface import Place
from frontinus.model.boot import BootFiles
from frontinus.model.ids import AmphoraId, LoadBalancerId

from tests.integration.controller.world import SETTINGS, World


class Hand:
    """Replaces `build`: the first one stays under way until it is let go; who is in it is counted."""

    def __init__(self, world: World) -> None:
        self._build = world.hands.compute.build
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()
        self.inside = 0
        self.most_inside = 0
        world.hands.compute.build = self.build  # type: ignore[method-assign]

    async def build(self, amphora_id: AmphoraId, load_balancer_id: LoadBalancerId, boot: BootFiles) -> Place:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            if not self.begun.is_set():
                self.begun.set()
                await self.let_go.wait()
            return await self._build(amphora_id, load_balancer_id, boot)
        finally:
            self.inside -= 1


async def test_controller_that_was_paused_does_not_work_against_itself(tmp_path: Path) -> None:
    """Its lease ran out while it was stopped, and it is itself who claims next: the old work ends before the new begins."""
    world = World(tmp_path)
    hand = Hand(world)
    controller = Controller(world.hands, ("amphora",))
    await controller.register()
    load_balancer_id = await world.create(80)
    running = asyncio.create_task(controller.run())
    try:
        async with asyncio.timeout(20):
            await hand.begun.wait()
            world.now += SETTINGS.lease_duration * 2
            while True:
                tree = await world.tree(load_balancer_id)
                assert tree is not None
                if tree.load_balancer.provisioning_status == "ACTIVE":
                    break
                await asyncio.sleep(0.01)
        assert hand.most_inside == 1
        await world.assert_served(load_balancer_id)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await world.store.close()
