"""Driver and agent together, when things are not as they should be: each trouble has its error, and nothing is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from msgspec.structs import replace

from frontinus.drivers.amphora.agent.authority import Authority, Phase
from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.drivers.amphora.haproxy.render import rendered
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.interface import Refused
from frontinus.model.enums import ListenerProtocol
from frontinus.model.errors import BindRefused, RefusedBind, Rejected, Retry
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.ids import AmphoraId
from frontinus.model.tree import LoadBalancerTree

from tests.integration.drivers.world import AGENT, MEMBERS, VIP, World, ask, free_port, until
from tests.unit.drivers.trees import (
    AMPHORA,
    LOAD_BALANCER,
    a_listener,
    a_load_balancer,
    a_member,
    a_pool,
    a_tree,
    number,
)


@pytest.fixture
async def site(world: World) -> tuple[World, int]:
    await world.member("one")
    return world, free_port()


def tree_of(world: World, port: int, **member: Any) -> LoadBalancerTree:
    return a_tree(
        a_load_balancer(VIP),
        listeners=[a_listener(port=port)],
        pools=[a_pool()],
        members=[a_member(address=MEMBERS, port=world.members["one"].port, **member)],
    )


async def test_info_tells_what_runs(site: tuple[World, int]) -> None:
    world, port = site
    tree = tree_of(world, port)
    before = await world.driver.info(world.amphora, tree)
    assert (before.extension, before.running, before.digest) == (1, False, None)
    await world.apply(tree)
    after = await world.driver.info(world.amphora, tree)
    assert after.running
    assert after.digest == world.driver.render(tree, world.amphora).digest
    assert after.balancer_version[:1].isdigit()
    await world.driver.retire(world.amphora, tree)
    retired = await world.driver.info(world.amphora, tree)
    assert (retired.running, retired.digest) == (False, None)
    await world.driver.retire(world.amphora, tree)


async def test_a_port_that_is_taken_is_told_and_heals(site: tuple[World, int]) -> None:
    world, port = site
    other = free_port()
    tree = tree_of(world, port)
    await world.apply(tree)
    more = replace(tree, listeners=(*tree.listeners, a_listener(11, ListenerProtocol.TCP, other)))
    with socket.create_server((VIP, other)):
        with pytest.raises(BindRefused) as raised:
            await world.apply(more)
        assert raised.value.binds == (RefusedBind(number(11), VIP, other, "EADDRINUSE"),)
        assert await ask(port) == "one"
        assert (await world.apply(more.without({number(11)}))).action == "unchanged"
    assert (await world.apply(more)).action == "reload"
    assert await ask(other) == "one"


async def test_what_somebody_pushed_who_was_killed_is_not_pushed_again(site: tuple[World, int]) -> None:
    """Another controller finds it there; unless a push is asked for, whatever is there."""
    world, port = site
    tree = tree_of(world, port)
    await world.apply(tree)
    came: list[str] = []
    other = HaproxyDriver(world.settings)
    rendered_there = other.render(tree, world.amphora)
    apply = other._client.apply

    async def noted(*arguments: Any, **named: Any) -> Any:
        came.append(named["digest"])
        return await apply(*arguments, **named)

    other._client.apply = noted  # type: ignore[method-assign]
    try:
        assert (await other.apply(world.amphora, tree, rendered_there)).action == "unchanged"
        assert came == []
        wished = replace(world.amphora, push_requested_at=datetime.now(UTC))
        assert (await other.apply(wished, tree, rendered_there)).action == "unchanged"
        assert came == [rendered_there.digest]
    finally:
        await other.close()


async def test_an_address_that_is_not_there_is_told(site: tuple[World, int]) -> None:
    world, port = site
    tree = replace(tree_of(world, port), load_balancer=a_load_balancer("192.0.2.1"))
    with pytest.raises(BindRefused) as raised:
        await world.apply(tree)
    assert raised.value.binds == (RefusedBind(number(10), "192.0.2.1", port, "EADDRNOTAVAIL"),)
    assert not world.haproxy_pids()


async def test_a_text_that_haproxy_refuses_changes_nothing(site: tuple[World, int]) -> None:
    world, port = site
    tree = tree_of(world, port)
    await world.apply(tree)
    with pytest.raises(Rejected, match="unknown keyword 'nonsense'"):
        await world.driver.apply(world.amphora, tree, rendered("global\n    nonsense\n"))
    assert await ask(port) == "one"
    assert (await world.apply(tree)).action == "unchanged"


async def test_an_agent_that_is_gone_is_told_and_one_that_is_back_adopts(site: tuple[World, int]) -> None:
    world, port = site
    tree = tree_of(world, port)
    await world.apply(tree)
    world.kill_agent()
    for call in (world.driver.info(world.amphora, tree), world.apply(tree_of(world, port, weight=2))):
        with pytest.raises(Retry) as raised:
            await call
        assert raised.value.code == "agent-unreachable"
    assert await ask(port) == "one"
    world.start_agent()
    await world.answering()
    assert (await world.apply(tree_of(world, port, weight=2))).action == "runtime"


async def test_no_answer_is_told_in_time(world: World) -> None:
    with socket.create_server((AGENT, 0)) as silent:
        settings = replace_settings(world, agent_port=silent.getsockname()[1])
        driver = HaproxyDriver(settings)
        began = time.monotonic()
        with pytest.raises(Retry) as raised:
            await driver.info(world.amphora, a_tree())
        assert raised.value.code == "agent-unreachable"
        assert time.monotonic() - began < 3
        await driver.close()


async def test_an_amphora_without_an_address_is_told(world: World) -> None:
    with pytest.raises(Retry, match="no management address"):
        await world.driver.info(replace(world.amphora, management_address=None), a_tree())


async def test_another_amphora_at_the_address_is_not_spoken_to(world: World) -> None:
    other = replace(world.amphora, id=AmphoraId(number(99)))
    with pytest.raises(Retry) as raised:
        await world.driver.info(other, a_tree())
    assert raised.value.code == "agent-identity"
    # Nor over the connections that were made to the one that is there.
    assert (await world.driver.info(world.amphora, a_tree())).extension == 1
    with pytest.raises(Retry) as raised:
        await world.driver.info(other, a_tree())
    assert raised.value.code == "agent-identity"


async def test_a_controller_of_another_installation_is_kept_out(world: World, tmp_path: Path) -> None:
    stranger = HaproxyDriver(replace_settings(world, state_dir=tmp_path / "other"))
    with pytest.raises(Retry) as raised:
        await stranger.info(world.amphora, a_tree())
    assert raised.value.code == "agent-identity"
    await stranger.close()


async def test_a_controller_of_another_name_is_kept_out(world: World) -> None:
    stranger = HaproxyDriver(replace_settings(world, controller_identity="somebody-else"))
    with pytest.raises(Retry):
        await stranger.info(world.amphora, a_tree())
    await stranger.close()


async def test_two_controllers_can_take_turns(site: tuple[World, int]) -> None:
    """Each remembers a text that the other has replaced meanwhile: commands against it are refused and made anew."""
    world, port = site
    other = HaproxyDriver(world.settings)
    await world.apply(tree_of(world, port))
    for driver, weight in ((other, 2), (world.driver, 3), (other, 4), (world.driver, 2)):
        tree = tree_of(world, port, weight=weight)
        applied = await driver.apply(world.amphora, tree, driver.render(tree, world.amphora))
        assert applied.action == "runtime"
        assert f" {weight} " in world.runtime("show servers state").split(number(30))[1][:30]
    await other.close()


async def test_applies_to_one_amphora_wait_for_each_other(site: tuple[World, int]) -> None:
    world, port = site
    await world.apply(tree_of(world, port))
    weights = range(2, 12)
    applied = await asyncio.gather(*(world.apply(tree_of(world, port, weight=weight)) for weight in weights))
    assert {answer.action for answer in applied} == {"runtime"}
    last = world.driver.render(tree_of(world, port, weight=11), world.amphora)
    assert (await world.driver.info(world.amphora, a_tree())).digest == last.digest


async def test_an_apply_that_is_cancelled_can_be_repeated(site: tuple[World, int]) -> None:
    world, port = site
    tree = tree_of(world, port)
    task = asyncio.create_task(world.apply(tree))
    await until((world.place / LOAD_BALANCER / "haproxy.cfg").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await world.apply(tree)).action in {"start", "unchanged"}
    assert await ask(port) == "one"


async def test_heartbeats_are_heard_and_say_what_is(site: tuple[World, int]) -> None:
    world, port = site
    await world.apply(tree_of(world, port))
    await ask(port)
    heard: list[Heartbeat] = []

    async def reports_the_request() -> bool:
        try:
            datagram = world.heartbeats.recv(65536)
        except BlockingIOError:
            return False
        heard.append(world.driver.decode(datagram, datetime.now(UTC)))
        listener = heard[-1].listeners.get(number(10))
        return listener is not None and listener.counters.total_connections == 1

    await until(reports_the_request)
    last = heard[-1]
    assert (last.amphora_id, last.incremental) == (AMPHORA, False)
    assert last.pools[number(20)].members == {number(30): "no check"}
    assert len({beat.boot for beat in heard}) == 1
    sequences = [beat.sequence for beat in heard if beat.sequence is not None]
    assert sequences == sorted(set(sequences))
    with pytest.raises(Refused, match="plain"):
        world.driver.decode(b"x" * 200, datetime.now(UTC))


def shown(world: World) -> x509.Certificate:
    """The certificate that the agent shows in a new handshake."""
    context = ssl.create_default_context(cafile=str(world.place / "client_ca.pem"))
    context.load_cert_chain(world.settings.authority_directory / "client-frontinus-controller.pem")
    with (
        socket.create_connection((AGENT, world.settings.agent_port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=AMPHORA) as secured,
    ):
        certificate = secured.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate)


async def test_a_renewed_certificate_is_shown(world: World) -> None:
    await world.driver.info(world.amphora, a_tree())
    first = await asyncio.to_thread(shown, world)
    identity = await world.driver.renew_identity(world.amphora)
    second = await asyncio.to_thread(shown, world)
    assert second.serial_number != first.serial_number
    assert second.not_valid_after_utc == identity.expires_at
    assert identity.renew_at == identity.expires_at - world.settings.server_certificate_validity / 2


async def test_the_authority_is_replaced_without_anybody_being_refused(world: World, tmp_path: Path) -> None:
    """Two controllers go on asking over new connections, in every phase, before and after the amphora has reached it."""
    authority = Authority.open(world.settings.authority_directory)
    old = authority.issuing

    async def both_are_served() -> None:
        for _ in range(2):
            driver = HaproxyDriver(world.settings)
            try:
                await driver.info(world.amphora, a_tree())
            finally:
                await driver.close()
        await world.driver.info(world.amphora, a_tree())

    phases = [authority.phase]
    for _ in range(3):
        phases.append(authority.advance())
        await both_are_served()
        await world.driver.renew_identity(world.amphora)
        await both_are_served()
        assert (
            f"\nheartbeat_key = {authority.heartbeat_key(world.amphora.id)}\n"
            in (world.place / "agent.conf").read_text()
        )
    assert phases == [Phase.STEADY, Phase.INTRODUCED, Phase.IN_USE, Phase.STEADY]
    assert authority.issuing != old
    (await asyncio.to_thread(shown, world)).verify_directly_issued_by(authority.issuing)
    stranger = Authority.open(tmp_path / "another")
    other = HaproxyDriver(replace_settings(world, authority=tmp_path / "another"))
    with pytest.raises(Retry, match="not who it should be"):
        await other.info(world.amphora, a_tree())
    await other.close()
    assert stranger.issuing != authority.issuing


def replace_settings(world: World, **fields: Any) -> HaproxySettings:
    found: HaproxySettings = dataclasses.replace(world.settings, **fields)
    return found
