"""Certificates that change: without a reload where HAProxy can, without a failed handshake ever, with no key on a disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from frontinus.drivers.amphora.haproxy.driver import HaproxyDriver
from frontinus.model.certificates import Authorities, Revocations
from frontinus.model.enums import ClientAuthentication
from frontinus.testing.certificates import TestAuthority

from tests.integration.drivers.tls_world import AUTHORITY, CERTIFICATE, REVOKED, SNI, TlsSite, der
from tests.integration.drivers.world import World


@pytest.fixture
async def site(world: World) -> TlsSite:
    return TlsSite(world, (await world.member("one")).port)


@contextlib.asynccontextmanager
async def callers(site: TlsSite, count: int = 4) -> AsyncIterator[list[str]]:
    """Clients that make one handshake after the other; gives what went wrong."""
    failures: list[str] = []
    ended = asyncio.Event()

    async def call() -> None:
        while not ended.is_set():
            try:
                heard = await site.caller(trusts=site.authority).ask()
                if heard.body != "one":
                    failures.append(heard.answer[:80].decode())
            except OSError as error:
                failures.append(repr(error))

    tasks = [asyncio.create_task(call()) for _ in range(count)]
    try:
        yield failures
    finally:
        ended.set()
        await asyncio.gather(*tasks)


async def served(site: TlsSite, name: str = "www.example.org") -> str:
    heard = await site.caller(name=name).ask()
    return next((ref for ref, each in site.certificates.items() if der(each) == heard.certificate), "an old one")


async def test_certificates_rotate_under_load_without_an_error(site: TlsSite) -> None:
    await site.shows()
    actions = []
    async with callers(site) as failures:
        for _ in range(20):
            site.certificates[CERTIFICATE] = site.authority.issue("www.example.org")
            actions.append((await site.shows()).action)
            assert await served(site) == CERTIFICATE
    assert (set(actions), failures) == ({"runtime"}, [])


async def test_the_file_on_disk_is_what_runs(site: TlsSite) -> None:
    """After changes at run time a new HAProxy, made from the files, serves the same."""
    await site.shows()
    site.certificates[CERTIFICATE] = site.authority.issue("www.example.org")
    assert (await site.shows()).action == "runtime"
    assert (await site.shows()).action == "unchanged"
    await site.shows(listener={"timeout_client_data": 40_000})
    assert await served(site) == CERTIFICATE


async def test_sni_certificates_come_and_go_at_run_time(site: TlsSite) -> None:
    site.certificates[SNI] = site.authority.issue("shop.example.org")
    site.certificates["local:third"] = site.authority.issue("third.example.org")
    await site.shows(listener={"sni_container_refs": (SNI,)})
    steps: list[tuple[tuple[str, ...], str]] = [
        ((SNI, "local:third"), "runtime"),
        ((SNI,), "runtime"),
        (("local:third", SNI), "runtime"),
        ((), "reload"),  # two at once: what the list was cannot be told any more
        ((SNI, "local:third"), "runtime"),
    ]
    async with callers(site) as failures:
        for references, action in steps:
            assert (await site.shows(listener={"sni_container_refs": references})).action == action
            for name, reference in (("shop.example.org", SNI), ("third.example.org", "local:third")):
                assert await served(site, name) == (reference if reference in references else CERTIFICATE)
    assert failures == []


async def test_the_first_of_those_of_one_name_is_served_as_after_a_start(site: TlsSite) -> None:
    """Also when it came later, or was replaced, or is the one for everybody."""
    other, first, second = "other.example.org", "local:first", "local:second"

    def renew(reference: str, *names: str) -> None:
        site.certificates[reference] = site.authority.issue(*names)

    async def shows(*references: str) -> str:
        return (await site.shows(listener={"sni_container_refs": references})).action

    renew(first, other)
    renew(second, other)
    assert await shows(second) == "start"
    assert (await shows(second, first), await served(site, other)) == ("runtime", second)
    assert (await shows(second), await served(site, other)) == ("runtime", second)
    assert (await shows(first, second), await served(site, other)) == ("reload", first)
    renew(first, other)
    assert (await shows(first, second), await served(site, other)) == ("reload", first)
    renew(second, other, "www.example.org")
    assert (await shows(first, second), await served(site, other)) == ("runtime", first)
    renew(CERTIFICATE, "www.example.org")
    assert (await shows(first, second), await served(site)) == ("reload", CERTIFICATE)
    renew(CERTIFICATE, "WWW.example.org", "another.example.org")
    assert (await shows(first, second), await served(site)) == ("reload", CERTIFICATE)
    renew(first, "alone.example.org")
    assert (await shows(first, second), await served(site, other)) == ("runtime", second)


async def test_authorities_and_revocations_change_at_run_time(site: TlsSite) -> None:
    old, new = TestAuthority("old"), TestAuthority("new")
    of_old, of_new = old.issue("client"), new.issue("client")
    fields: dict[str, Any] = {
        "client_authentication": ClientAuthentication.MANDATORY,
        "client_ca_tls_container_ref": AUTHORITY,
        "client_crl_container_ref": REVOKED,
    }

    async def welcome() -> tuple[bool, bool]:
        return not await site.caller(own=of_old).is_refused(), not await site.caller(own=of_new).is_refused()

    site.authorities[AUTHORITY] = Authorities(certificates=(old.pem,))
    site.revocations[REVOKED] = Revocations(lists=(old.revoke(), new.revoke()))
    await site.shows(listener=fields)
    assert await welcome() == (True, False)
    site.authorities[AUTHORITY] = Authorities(certificates=(old.pem, new.pem))
    assert (await site.shows(listener=fields)).action == "runtime"
    assert await welcome() == (True, True)
    site.revocations[REVOKED] = Revocations(lists=(old.revoke(of_old), new.revoke()))
    assert (await site.shows(listener=fields)).action == "runtime"
    assert await welcome() == (False, True)


async def test_what_is_too_large_for_a_command_is_reloaded(site: TlsSite) -> None:
    authorities = [TestAuthority(f"authority {number}") for number in range(30)]
    client = authorities[-1].issue("client")
    fields: dict[str, Any] = {
        "client_authentication": ClientAuthentication.MANDATORY,
        "client_ca_tls_container_ref": AUTHORITY,
    }
    site.authorities[AUTHORITY] = Authorities(certificates=(authorities[0].pem,))
    await site.shows(listener=fields)
    site.authorities[AUTHORITY] = Authorities(certificates=tuple(x.pem for x in authorities))
    assert (await site.shows(listener=fields)).action == "reload"
    assert (await site.caller(own=client).ask()).body == "one"


async def test_a_driver_that_knows_nothing_rotates_at_run_time_too(site: TlsSite) -> None:
    await site.shows()
    await site.world.driver.close()
    site.world.driver = HaproxyDriver(site.world.settings)
    site.certificates[CERTIFICATE] = site.authority.issue("www.example.org")
    assert (await site.shows()).action == "runtime"
    assert await served(site) == CERTIFICATE


async def test_a_member_and_a_certificate_change_together(site: TlsSite) -> None:
    await site.shows()
    site.certificates[CERTIFICATE] = site.authority.issue("www.example.org")
    site.members = 2
    assert (await site.shows()).action == "runtime"
    assert (await served(site), (await site.caller().ask()).body) == (CERTIFICATE, "one")


def holds(directory: Path, content: bytes) -> bool:
    paths = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return any(content in path.read_bytes() for path in paths)


async def test_no_key_is_ever_on_a_disk(site: TlsSite) -> None:
    seen = []
    for _ in range(3):
        site.certificates[CERTIFICATE] = site.authority.issue("www.example.org")
        await site.shows()
        seen.append(site.certificates[CERTIFICATE].private_key.splitlines()[1])
    site.world.kill_agent()
    site.world.start_agent()
    await site.world.answering()
    assert (await site.shows()).action == "unchanged"
    assert await served(site) == CERTIFICATE
    for key in seen:
        assert not holds(site.world.place, key)
    assert holds(site.world.memory, seen[-1])
    assert not any(holds(site.world.memory, key) for key in seen[:-1])
