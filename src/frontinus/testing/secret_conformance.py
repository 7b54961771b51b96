"""Examines a secret driver against drivers/secret/interface.py. How to use it: exam.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from frontinus.drivers.secret.interface import SecretDriver
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId, new_id
from frontinus.testing.exam import Checks, NotExaminable, Report, expect, hold, require


@dataclass(frozen=True)
class SecretBench:
    """`reference` is a good certificate that `project_id` may read and `stranger_id` may not; None: there is none.
    `authorities` and `revocations` are references to such, for the same project, and so are `broken`, which exist and
    do not parse."""

    factory: Callable[[], SecretDriver]
    reference: str | None = None
    project_id: ProjectId = ProjectId("conformance")
    stranger_id: ProjectId = ProjectId("stranger")
    authorities: str | None = None
    revocations: str | None = None
    broken: tuple[str, ...] = ()


async def examine(bench: SecretBench, *, limit: float = 60.0) -> Report:
    """Run every check; each may take `limit` seconds."""
    return await hold(CHECKS, bench, limit)


_checks: Checks[SecretBench] = Checks()


@asynccontextmanager
async def _driver(bench: SecretBench) -> AsyncIterator[SecretDriver]:
    driver = bench.factory()
    try:
        yield driver
    finally:
        await driver.close()


def _good(bench: SecretBench) -> str:
    if bench.reference is None:
        raise NotExaminable("the bench has no `reference`")
    return bench.reference


@_checks.claim("the certificate behind a reference is parsed and checked; the key is unencrypted and matches it")
async def certificate_is_whole(bench: SecretBench) -> None:
    async with _driver(bench) as driver:
        found = await driver.certificate(_good(bench), bench.project_id)
        certificate = x509.load_pem_x509_certificate(found.certificate)
        key = load_pem_private_key(found.private_key, password=None)
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        matches = key.public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form)
        require(matches, "the key is not the certificate's")
        for intermediate in found.intermediates:
            x509.load_pem_x509_certificate(intermediate)


@_checks.claim("asking again, and asking another driver, gives the same")
async def certificate_stays_the_same(bench: SecretBench) -> None:
    async with _driver(bench) as driver, _driver(bench) as other:
        first = await driver.certificate(_good(bench), bench.project_id)
        again = await driver.certificate(_good(bench), bench.project_id)
        elsewhere = await other.certificate(_good(bench), bench.project_id)
        require(first == again, "it changed between two calls")
        require(first == elsewhere, "another driver has another")


@_checks.claim("nothing that it returns shows itself when printed")
async def certificate_is_not_printed(bench: SecretBench) -> None:
    async with _driver(bench) as driver:
        found = await driver.certificate(_good(bench), bench.project_id)
        inner = found.private_key.strip().splitlines()[1]
        require(inner not in repr(found).encode() + str(found).encode(), "its repr holds the private key")


@_checks.claim("Invalid naming the reference when it cannot be resolved")
async def unknown_reference_is_invalid(bench: SecretBench) -> None:
    async with _driver(bench) as driver:
        unknown = [f"local:{new_id()}", f"https://keys.example.org/v1/containers/{new_id()}", new_id()]
        hostile = ["nonsense", "../../etc/passwd", "local:../../etc/passwd", "file:///etc/passwd", "local:\x00", "ключ"]
        for method in (driver.certificate, driver.authorities, driver.revocations):
            for reference in (*unknown, *hostile):
                error = await expect(Invalid, method(reference, bench.project_id), f"reference {reference!r}")
                require(reference in str(error), f"the message for {reference!r} does not name it: {error}")


@_checks.claim("authorities are certificates, and revocation lists are that; a secret of another kind is Invalid")
async def other_kinds_are_what_they_should_be(bench: SecretBench) -> None:
    if bench.authorities is None or bench.revocations is None:
        raise NotExaminable("the bench has no `authorities` or no `revocations`")
    async with _driver(bench) as driver:
        found = await driver.authorities(bench.authorities, bench.project_id)
        require(found.certificates, "there is no authority")
        for certificate in found.certificates:
            x509.load_pem_x509_certificate(certificate)
        revoked = await driver.revocations(bench.revocations, bench.project_id)
        require(revoked.lists, "there is no revocation list")
        for revocations in revoked.lists:
            x509.load_pem_x509_crl(revocations)
        keyless = driver.certificate(bench.authorities, bench.project_id)
        await expect(Invalid, keyless, "authorities without a key, asked for as certificate")
        await expect(Invalid, driver.revocations(_good(bench), bench.project_id), "a certificate, asked for as list")
        await expect(Invalid, driver.authorities(bench.authorities, bench.stranger_id), "a stranger's call")
        await expect(Invalid, driver.revocations(bench.revocations, bench.stranger_id), "a stranger's call")


@_checks.claim("Invalid when the reference is not readable by the project")
async def stranger_reads_nothing(bench: SecretBench) -> None:
    async with _driver(bench) as driver:
        reference = _good(bench)
        error = await expect(Invalid, driver.certificate(reference, bench.stranger_id), "a stranger's call")
        require(reference in str(error), f"the message does not name it: {error}")
        require("PRIVATE KEY" not in str(error), "the message holds a key")


@_checks.claim("Invalid naming the reference when what is behind it does not parse")
async def broken_secret_is_invalid(bench: SecretBench) -> None:
    if not bench.broken:
        raise NotExaminable("the bench has no `broken` references")
    async with _driver(bench) as driver:
        for reference in bench.broken:
            error = await expect(Invalid, driver.certificate(reference, bench.project_id), f"{reference!r}")
            require(reference in str(error), f"the message does not name it: {error}")


CHECKS = _checks.all()
