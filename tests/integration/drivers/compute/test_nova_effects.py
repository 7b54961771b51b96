"""What the driver `nova` does is really so, looked up with openstacksdk behind its back; and its death between any two
calls to OpenStack leaks nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from frontinus.drivers.compute.interface import PlaceState
from frontinus.drivers.compute.nova.driver import NovaCompute
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, new_id
from frontinus.model.ports import Port, PortPurpose
from frontinus.testing.faults import Killed

from tests.integration.drivers.compute.conftest import NovaSite
from tests.openstack_lab import Deadly, over

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.usefixtures("tidy"),
]

BOOT = BootFiles(files={"agent.conf": b"id = 1\n"})


@pytest.fixture
async def driver(nova_site: NovaSite) -> AsyncIterator[NovaCompute]:
    made = nova_site.driver()
    yield made
    for amphora_id in await made.list_owned():
        await made.destroy(amphora_id)
    await made.close()


async def build(
    driver: NovaCompute, site: NovaSite, amphora_id: AmphoraId, load_balancer_id: LoadBalancerId | None = None
) -> None:
    management = site.port(amphora_id, PortPurpose.MANAGEMENT)
    await driver.build(amphora_id, load_balancer_id or LoadBalancerId(new_id()), BOOT, (management,))


async def test_a_server_is_what_the_settings_say(driver: NovaCompute, nova_site: NovaSite) -> None:
    amphora_id, load_balancer_id = AmphoraId(new_id()), LoadBalancerId(new_id())
    await build(driver, nova_site, amphora_id, load_balancer_id)
    (server,) = nova_site.servers(amphora_id)
    look = nova_site.look
    assert server.status == "ACTIVE"
    assert look.image.get_image(server.image.id).tags == ["fake-image"]
    assert server.flavor.original_name == "lb.tiny"
    assert server.has_config_drive
    assert server.metadata["frontinus_load_balancer"] == load_balancer_id
    management = nova_site.port(amphora_id, PortPurpose.MANAGEMENT)
    assert look.network.get_port(management.id).device_id == server.id
    (group,) = nova_site.groups()
    assert group.member_ids == [server.id]


async def test_a_pair_built_one_after_the_other_is_on_two_hosts_and_its_group_goes_with_the_last(
    driver: NovaCompute, nova_site: NovaSite
) -> None:
    pair, load_balancer_id = [AmphoraId(new_id()), AmphoraId(new_id())], LoadBalancerId(new_id())
    for amphora_id in pair:
        await build(driver, nova_site, amphora_id, load_balancer_id)
    assert len(nova_site.groups()) == 1
    assert len(nova_site.hosts(pair)) == 2
    await driver.destroy(pair[0])
    assert len(nova_site.groups()) == 1
    await driver.destroy(pair[1])
    assert nova_site.groups() == []


async def test_a_pair_built_at_once_is_on_two_hosts_where_that_is_a_must(nova_site: NovaSite) -> None:
    """Nova only prefers two hosts by the default policy, and of two that it places at once it may see neither."""
    driver = nova_site.driver(server_groups="anti-affinity")
    pair, load_balancer_id = [AmphoraId(new_id()), AmphoraId(new_id())], LoadBalancerId(new_id())
    try:
        await asyncio.gather(*(build(driver, nova_site, x, load_balancer_id) for x in pair))
        assert len(nova_site.groups()) == 1
        assert len(nova_site.hosts(pair)) == 2
    finally:
        for amphora_id in pair:
            await driver.destroy(amphora_id)
        await driver.close()


async def test_a_strangers_image_is_not_used(nova_site: NovaSite) -> None:
    driver, amphora_id = nova_site.driver(image_owner=None), AmphoraId(new_id())
    try:
        with pytest.raises(Retry, match="no image with the tag"):
            await build(driver, nova_site, amphora_id)
        assert nova_site.servers(amphora_id) == []
    finally:
        await driver.destroy(amphora_id)
        await driver.close()


async def test_a_planned_stop_is_told_from_a_failure(driver: NovaCompute, nova_site: NovaSite) -> None:
    amphora_id = AmphoraId(new_id())
    await build(driver, nova_site, amphora_id)
    (server,) = nova_site.servers(amphora_id)
    nova_site.look.compute.stop_server(server.id)
    nova_site.look.compute.wait_for_server(server, status="SHUTOFF", interval=1)
    assert (await driver.get(amphora_id)).state is PlaceState.STOPPED_ON_PURPOSE
    nova_site.admin.compute.reset_server_state(server.id, "error")
    assert (await driver.get(amphora_id)).state is PlaceState.STOPPED


async def test_a_server_of_an_octavia_is_never_listed(driver: NovaCompute, nova_site: NovaSite) -> None:
    amphora_id, look = AmphoraId(new_id()), nova_site.look
    image = next(iter(look.image.images(tag="fake-image")))
    flavor = look.compute.find_flavor("lb.tiny", ignore_missing=False)
    octavias = look.compute.create_server(
        name=f"amphora-{amphora_id}", image_id=image.id, flavor_id=flavor.id, networks="none"
    )
    try:
        assert amphora_id not in await driver.list_owned()
        assert amphora_id not in {x.amphora_id for x in await driver.list_belongings()}
    finally:
        look.compute.delete_server(octavias.id)
        look.compute.wait_for_delete(octavias)


@pytest.mark.timeout(3600)
async def test_death_between_any_two_calls_leaks_nothing_and_converges(nova_site: NovaSite) -> None:
    """Nova is polled, so how many calls a life has is not known before: each is killed one call later, until one lives."""
    survivor = nova_site.driver()
    fatal, lived = 0, False
    try:
        while not lived:
            fatal += 1
            amphora_id, victim = AmphoraId(new_id()), NovaCompute(nova_site.settings(), over(Deadly(fatal)))
            try:
                await build(victim, nova_site, amphora_id)
                await victim.destroy(amphora_id)
                lived = True
            except Killed:
                pass
            await victim.close()
            if nova_site.servers(amphora_id):
                assert amphora_id in await survivor.list_owned(), f"after call {fatal} nobody would find it"
            if fatal % 2:
                await build(survivor, nova_site, amphora_id)
                assert len(nova_site.servers(amphora_id)) == 1, f"after call {fatal}"
            await survivor.destroy(amphora_id)
            assert nova_site.servers(amphora_id) == [], f"after call {fatal} a server is left"
            assert nova_site.groups() == [], f"after call {fatal} a group is left"
        assert fatal > 10, "so many calls a life takes at least: was anybody killed?"
    finally:
        await survivor.close()


async def holds(driver: NovaCompute, amphora_id: AmphoraId, port: Port) -> bool:
    """Whether it comes to have the port and keeps it, as a controller would see to: Nova may be about what the dead one asked
    for, and then refuses, or takes away what it has just given."""
    kept = 0
    for _ in range(60):
        try:
            await driver.attach(amphora_id, port)
            kept = kept + 1 if port.id in ((await driver.get(amphora_id)).attached or ()) else 0
        except Retry:
            kept = 0
        if kept == 3:
            return True
        await asyncio.sleep(1)
    return False


@pytest.mark.timeout(3600)
async def test_death_while_a_port_is_attached_or_a_server_rebuilt_is_made_good(
    nova_site: NovaSite, driver: NovaCompute
) -> None:
    """One server, which goes through all of it: that it is one, with the ports that it should have, is what is to be shown."""
    amphora_id = AmphoraId(new_id())
    await build(driver, nova_site, amphora_id)
    (server,) = nova_site.servers(amphora_id)
    more = nova_site.port(amphora_id, PortPurpose.VIP)

    async def comes_and_goes(mortal: NovaCompute) -> None:
        await mortal.attach(amphora_id, more)
        await mortal.detach(amphora_id, more)

    async def is_rebuilt(mortal: NovaCompute) -> None:
        nova_site.admin.compute.reset_server_state(server.id, "error")
        await build(mortal, nova_site, amphora_id)

    async def until_it_lives(
        live: Callable[[NovaCompute], Awaitable[None]], then: Callable[[], Awaitable[None]]
    ) -> None:
        fatal, lived = 0, False
        while not lived:
            fatal += 1
            victim = NovaCompute(nova_site.settings(), over(Deadly(fatal)))
            try:
                await live(victim)
                lived = True
            except Killed:
                pass
            await victim.close()
            await build(driver, nova_site, amphora_id)
            assert [x.id for x in nova_site.servers(amphora_id)] == [server.id], f"call {fatal}"
            assert await holds(driver, amphora_id, more), f"call {fatal}"
            assert (await driver.get(amphora_id)).state is PlaceState.RUNNING
            assert len(list(nova_site.look.compute.server_interfaces(server.id))) == 2
            await then()
        assert fatal > 4, "so many calls it takes at least: was anybody killed?"

    async def is_taken() -> None:
        await driver.detach(amphora_id, more)
        assert len(list(nova_site.look.compute.server_interfaces(server.id))) == 1

    async def is_kept() -> None:
        pass

    await until_it_lives(comes_and_goes, is_taken)
    # Of a port that has just gone Nova may still think in a rebuild.
    assert await holds(driver, amphora_id, more)
    await until_it_lives(is_rebuilt, is_kept)
