"""Servers of Nova in which something runs (the lab at level 2: QEMU): a machine that ends by itself is told from one that
somebody stopped, and a build brings both to life again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from frontinus.drivers.compute.interface import PlaceState
from frontinus.drivers.compute.nova.driver import NovaCompute
from frontinus.model.boot import BootFiles
from frontinus.model.ids import AmphoraId, LoadBalancerId, new_id
from frontinus.model.ports import PortPurpose

from tests import openstack_lab
from tests.acceptance.on_openstack import qemu_of, upload_image
from tests.integration.drivers.compute.conftest import NovaSite

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.usefixtures("tidy"),
]

BOOT = BootFiles(files={"agent.conf": b"id = 1\n"})
PATIENCE_S = 180
NOTICED_S = 800
"""Where libvirt's event does not reach Nova, as in the lab, it sees that a machine is off when it looks, every ten minutes
(`sync_power_state_interval`)."""


@pytest.fixture(scope="module")
def image_tag() -> Iterator[str]:
    """Of the image that `make image` has built, in our account's project."""
    openstack_lab.clouds_file(level=2)
    ours, tag = openstack_lab.connect(openstack_lab.OURS), f"t{new_id()[:8]}"
    image_id = upload_image(ours, tag)
    yield tag
    ours.image.delete_image(image_id)


async def state_is(
    driver: NovaCompute, amphora_id: AmphoraId, *wanted: PlaceState, within: int = PATIENCE_S
) -> PlaceState:
    """The first of these states that it comes to."""
    found = (await driver.get(amphora_id)).state
    for _ in range(within):
        if found in wanted:
            break
        await asyncio.sleep(1)
        found = (await driver.get(amphora_id)).state
    return found


async def test_a_machine_that_ends_is_told_from_one_that_is_stopped(nova_site: NovaSite, image_tag: str) -> None:
    driver, amphora_id = nova_site.driver(image_tag=image_tag, image_owner=None), AmphoraId(new_id())
    load_balancer_id = LoadBalancerId(new_id())

    async def build() -> None:
        management = nova_site.port(amphora_id, PortPurpose.MANAGEMENT)
        await driver.build(amphora_id, load_balancer_id, BOOT, (management,))

    try:
        await build()
        (server,) = nova_site.servers(amphora_id)
        assert (await driver.get(amphora_id)).state is PlaceState.RUNNING

        os.kill(qemu_of(server.id), signal.SIGKILL)
        stopped = (PlaceState.STOPPED, PlaceState.STOPPED_ON_PURPOSE)
        assert await state_is(driver, amphora_id, *stopped, within=NOTICED_S) is PlaceState.STOPPED
        assert await state_is(driver, amphora_id, PlaceState.STOPPED_ON_PURPOSE, within=10) is PlaceState.STOPPED
        nova_site.look.compute.wait_for_server(server, status="SHUTOFF", interval=1, wait=PATIENCE_S)
        assert (await driver.get(amphora_id)).state is PlaceState.STOPPED

        await build()
        assert await state_is(driver, amphora_id, PlaceState.RUNNING) is PlaceState.RUNNING
        (server,) = nova_site.servers(amphora_id)
        assert qemu_of(server.id)

        nova_site.look.compute.stop_server(server.id)
        assert await state_is(driver, amphora_id, *stopped) is PlaceState.STOPPED_ON_PURPOSE
        nova_site.look.compute.wait_for_server(server, status="SHUTOFF", interval=1, wait=PATIENCE_S)
        assert (await driver.get(amphora_id)).state is PlaceState.STOPPED_ON_PURPOSE
    finally:
        await driver.destroy(amphora_id)
        await driver.close()
