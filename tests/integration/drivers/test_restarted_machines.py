"""A machine that restarts by itself shows the certificate of its birth again: it is given another one, and nobody else is."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from msgspec.structs import replace

from frontinus.drivers.amphora.agent.authority import Authority, Phase
from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.model.errors import Retry
from frontinus.model.tree import LoadBalancerTree

from tests.integration.drivers.world import AGENT, MEMBERS, VIP, World, ask, free_port
from tests.unit.drivers.trees import a_listener, a_load_balancer, a_member, a_pool, a_tree, number

VALIDITY, LIFE, HOUR = timedelta(days=30), timedelta(days=40), timedelta(hours=1)


def shown(world: World) -> x509.Certificate:
    """The certificate that the agent shows in a new handshake, whatever it is worth."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(world.settings.authority_directory / "client-frontinus-controller.pem")
    with (
        socket.create_connection((AGENT, world.settings.agent_port), timeout=5) as plain,
        context.wrap_socket(plain) as secured,
    ):
        certificate = secured.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate)


async def reborn(world: World, left: timedelta, *, name: str = "", authority: str = "authority") -> x509.Certificate:
    """The agent starts again with a certificate of which so much is left; what it is."""
    world.kill_agent()
    made_at = datetime.now(UTC) + left - VALIDITY
    issuing = Authority.open(world.settings.state_dir / authority, lambda: made_at)
    pem = issuing.issue_server(name or world.amphora.id, VALIDITY)
    world.start_agent({**world.driver.boot_files(world.amphora.id, AGENT).files, "server.pem": pem})
    await world.answering()
    return x509.load_pem_x509_certificate(pem)


def renewed_lately(world: World) -> None:
    """On record the amphora is a month old, and its certificate was renewed an hour ago."""
    now = datetime.now(UTC).replace(microsecond=0)
    world.amphora = replace(
        world.amphora,
        created_at=now - LIFE,
        identity_digest=world.driver.identity_digest,
        certificate_expires_at=now + VALIDITY - HOUR,
        certificate_renew_at=now + VALIDITY / 2 - HOUR,
    )


async def tree_of(world: World, port: int) -> LoadBalancerTree:
    member = await world.member("one")
    return a_tree(
        a_load_balancer(VIP),
        listeners=[a_listener(port=port)],
        pools=[a_pool()],
        members=[a_member(address=MEMBERS, port=member.port)],
    )


async def test_an_expired_certificate_of_its_own_is_replaced(world: World) -> None:
    renewed_lately(world)
    born_with = await reborn(world, timedelta(days=-1))
    port = free_port()
    tree = await tree_of(world, port)
    assert (await world.driver.info(world.amphora, tree)).digest is None
    given = await asyncio.to_thread(shown, world)
    assert given.serial_number != born_with.serial_number
    assert given.not_valid_after_utc > datetime.now(UTC) + VALIDITY / 2
    key = Authority.open(world.settings.authority_directory).heartbeat_key(world.amphora.id)
    assert f"\nheartbeat_key = {key}\n" in (world.place / "agent.conf").read_text()
    applied = await world.apply(tree)
    assert await ask(port) == "one"
    assert applied.identity is not None
    assert applied.identity.expires_at == (await asyncio.to_thread(shown, world)).not_valid_after_utc


async def test_a_push_mends_what_restarted_while_nobody_looked(world: World) -> None:
    """The driver has asked it before, and takes its version as known."""
    renewed_lately(world)
    tree = await tree_of(world, free_port())
    await world.apply(tree)
    await reborn(world, timedelta(days=-1))
    with suppress(Retry):  # the connection that was kept is lost
        await world.apply(tree)
    await world.apply(tree)
    assert (await asyncio.to_thread(shown, world)).not_valid_after_utc > datetime.now(UTC)


async def test_who_came_back_with_a_certificate_that_is_still_good_is_given_another(world: World) -> None:
    """It ends before the time at which the one on record is renewed: that renewal would come too late."""
    renewed_lately(world)
    born_with = await reborn(world, timedelta(days=3))
    tree = await tree_of(world, free_port())
    applied = await world.apply(tree)
    given = await asyncio.to_thread(shown, world)
    assert given.serial_number != born_with.serial_number
    assert applied.identity is not None
    assert applied.identity.expires_at == given.not_valid_after_utc
    world.amphora = replace(world.amphora, certificate_expires_at=applied.identity.expires_at)
    assert (await world.apply(tree)).identity is None
    assert (await asyncio.to_thread(shown, world)).serial_number == given.serial_number


async def test_a_certificate_that_another_controller_renewed_is_left_alone(world: World) -> None:
    """This one still has a connection over which the one before was shown."""
    renewed_lately(world)
    tree = await tree_of(world, free_port())
    await world.apply(tree)
    other = HaproxyDriver(world.settings)
    try:
        identity = await other.renew_identity(world.amphora)
    finally:
        await other.close()
    given = await asyncio.to_thread(shown, world)
    world.amphora = replace(world.amphora, certificate_expires_at=identity.expires_at)
    assert (await world.apply(tree)).identity is None
    assert (await asyncio.to_thread(shown, world)).serial_number == given.serial_number


@pytest.mark.parametrize("rotated", [Phase.IN_USE, Phase.STEADY])
async def test_who_was_born_under_an_authority_of_before_is_given_another(rotated: Phase, world: World) -> None:
    """It knows no other clients than those of that authority, and signs its heartbeats with a key of that."""
    renewed_lately(world)
    await world.driver.info(world.amphora, a_tree())
    authority = Authority.open(world.settings.authority_directory)
    born = world.driver.boot_files(world.amphora.id, AGENT)
    assert born.identity is not None
    world.amphora = replace(world.amphora, birth_fingerprint=born.identity.fingerprint)
    authority.advance()
    while authority.phase is not rotated:
        authority.advance()
    world.kill_agent()
    world.start_agent(born.files)
    await world.answering()
    assert (await world.driver.info(world.amphora, a_tree())).digest is None
    given = await asyncio.to_thread(shown, world)
    given.verify_directly_issued_by(authority.issuing)
    assert (
        f"\nheartbeat_key = {authority.heartbeat_key(world.amphora.id)}\n" in (world.place / "agent.conf").read_text()
    )
    assert (world.place / "client_ca.pem").read_bytes() == authority.bundle
    applied = await world.apply(await tree_of(world, free_port()))
    assert applied.identity is not None
    assert applied.identity.digest == authority.digest


async def test_who_has_the_key_of_an_authority_of_before_is_given_nothing(world: World) -> None:
    """That it was stolen may be why there is another one."""
    renewed_lately(world)
    await world.driver.info(world.amphora, a_tree())
    authority = Authority.open(world.settings.authority_directory)
    born = world.driver.boot_files(world.amphora.id, AGENT)
    thief = world.driver.boot_files(world.amphora.id, AGENT)
    assert born.identity is not None
    world.amphora = replace(world.amphora, birth_fingerprint=born.identity.fingerprint)
    for _ in range(3):
        authority.advance()
    world.kill_agent()
    world.start_agent(thief.files)
    await world.answering()
    with pytest.raises(Retry) as raised:
        await world.driver.info(world.amphora, a_tree())
    assert raised.value.code == "agent-identity"
    assert (world.place / "server.pem").read_bytes() == thief.files["server.pem"]
    # With what it was born with it would have been, so nothing else was wrong.
    world.kill_agent()
    world.start_agent(born.files)
    await world.answering()
    assert (await world.driver.info(world.amphora, a_tree())).digest is None


@pytest.mark.parametrize(
    "case",
    ["another amphora", "another authority", "before its time", "more than on record", "no record", "not of its birth"],
)
async def test_nobody_else_is_given_an_identity(case: str, world: World) -> None:
    renewed_lately(world)
    ended = timedelta(days=-1)
    now = datetime.now(UTC)
    match case:
        case "another amphora":
            born_with = await reborn(world, ended, name=number(99))
        case "another authority":
            born_with = await reborn(world, ended, authority="another")
        case "before its time":
            born_with = await reborn(world, -LIFE - timedelta(days=1))
        case "more than on record":
            born_with = await reborn(world, ended)
            world.amphora = replace(world.amphora, certificate_expires_at=now + ended - HOUR)
        case "not of its birth":
            born_with = await reborn(world, ended)
            world.amphora = replace(world.amphora, birth_fingerprint="0" * 64)
        case _:
            born_with = await reborn(world, ended)
            world.amphora = replace(world.amphora, certificate_expires_at=None)
    with pytest.raises(Retry) as raised:
        await world.driver.info(world.amphora, a_tree())
    assert raised.value.code == "agent-identity"
    assert (await asyncio.to_thread(shown, world)).serial_number == born_with.serial_number
