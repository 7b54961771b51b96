"""Certificates kept in encrypted files: what comes in is checked, what lies there tells nothing, what goes out fits."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from frontinus.drivers.secret.local.driver import LocalSecrets, LocalSecretsSettings
from frontinus.drivers.secret.noop import NoopSecrets
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId

OURS, THEIRS = ProjectId("ours"), ProjectId("theirs")
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PEM = serialization.Encoding.PEM


def certificate_of(key: Key, name: str = "www.example.org") -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )


def pem(item: Key | x509.Certificate, password: bytes | None = None) -> bytes:
    if isinstance(item, x509.Certificate):
        return item.public_bytes(PEM)
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return item.private_bytes(PEM, serialization.PrivateFormat.PKCS8, protection)


KEY = ec.generate_private_key(ec.SECP256R1())
LEAF = certificate_of(KEY)
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
INTERMEDIATE = certificate_of(OTHER_KEY, "an authority")
REVOKED = (
    x509.CertificateRevocationListBuilder()
    .issuer_name(INTERMEDIATE.subject)
    .last_update(datetime(2026, 1, 1, tzinfo=UTC))
    .next_update(datetime(2027, 1, 1, tzinfo=UTC))
    .sign(OTHER_KEY, hashes.SHA256())
    .public_bytes(PEM)
)


@pytest.fixture
def secrets(tmp_path: Path) -> LocalSecrets:
    return LocalSecrets(LocalSecretsSettings(state_dir=tmp_path))


@pytest.mark.parametrize(
    "content, password",
    [
        (pem(LEAF) + pem(KEY) + pem(INTERMEDIATE), None),
        (pem(INTERMEDIATE) + pem(KEY) + pem(LEAF), None),
        (b"Bag attributes\n" + pem(KEY) + b"subject=x\n" + pem(LEAF) + pem(INTERMEDIATE), None),
        (pem(LEAF) + pem(KEY, b"opens") + pem(INTERMEDIATE), "opens"),
        (
            pkcs12.serialize_key_and_certificates(
                b"x", KEY, LEAF, [INTERMEDIATE], serialization.BestAvailableEncryption(b"opens")
            ),
            "opens",
        ),
        (
            pkcs12.serialize_key_and_certificates(None, KEY, LEAF, [INTERMEDIATE], serialization.NoEncryption()),
            None,
        ),
    ],
    ids=["leaf first", "leaf last", "with talk", "encrypted key", "pkcs12 encrypted", "pkcs12"],
)
async def test_every_form_gives_the_same_certificate(
    secrets: LocalSecrets, content: bytes, password: str | None
) -> None:
    reference = secrets.put(content, OURS, password=password)
    found = await secrets.certificate(reference, OURS)
    assert found.certificate == pem(LEAF)
    assert found.intermediates == (pem(INTERMEDIATE),)
    key = serialization.load_pem_private_key(found.private_key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.private_numbers() == KEY.private_numbers()


async def test_what_has_no_key_serves_where_none_is_needed(secrets: LocalSecrets) -> None:
    """Authorities and revocation lists alone or together; a certificate with its key is an authority too."""
    both = secrets.put(pem(LEAF) + REVOKED + pem(INTERMEDIATE), OURS)
    whole = secrets.put(pem(KEY) + pem(LEAF), OURS)

    assert (await secrets.authorities(both, OURS)).certificates == (pem(LEAF), pem(INTERMEDIATE))
    assert (await secrets.revocations(both, OURS)).lists == (REVOKED,)
    assert (await secrets.authorities(whole, OURS)).certificates == (pem(LEAF),)
    with pytest.raises(Invalid, match="holds no private key"):
        await secrets.certificate(both, OURS)
    with pytest.raises(Invalid, match="no revocation list"):
        await secrets.revocations(whole, OURS)
    with pytest.raises(Invalid, match="no certificate of an authority"):
        await secrets.authorities(secrets.put(REVOKED, OURS), OURS)
    with pytest.raises(Invalid, match="no such secret"):
        await secrets.revocations(both, THEIRS)


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()])
async def test_other_kinds_of_keys(secrets: LocalSecrets, key: Key) -> None:
    leaf = certificate_of(key)
    found = await secrets.certificate(secrets.put(pem(leaf) + pem(key), OURS), OURS)
    assert found.certificate == pem(leaf)


@pytest.mark.parametrize(
    "content, password, reason",
    [
        (b"", None, "neither PEM nor"),
        (b"\x30\x82nonsense", None, "neither PEM nor"),
        (pem(LEAF), "needless", "no private key"),
        (b"-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----\n", None, "no certificate, no key"),
        (pem(KEY) + pem(LEAF) + REVOKED, None, "two secrets"),
        (REVOKED.replace(b"MI", b"XX", 1), None, "revocation list in the PEM text cannot be read"),
        (pem(KEY), None, "no certificate"),
        (pem(LEAF) + pem(OTHER_KEY), None, "belongs to none"),
        (pem(LEAF) + pem(KEY) + pem(OTHER_KEY), None, "more than one private key"),
        (pem(LEAF) + pem(KEY, b"opens"), None, "give its password"),
        (pem(LEAF) + pem(KEY, b"opens"), "wrong", "is the password right"),
        (pem(LEAF) + pem(KEY), "needless", "give no password"),
        (pem(KEY) + pem(LEAF).replace(b"MII", b"XXX", 1), None, "certificate in the PEM text cannot be read"),
        (pem(KEY).replace(b"MI", b"XX", 1) + pem(LEAF), None, "private key cannot be read"),
        (b"-----BEGIN " + b"x" * 2_000_000, None, "larger"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_kept(
    secrets: LocalSecrets, content: bytes, password: str | None, reason: str
) -> None:
    with pytest.raises(Invalid, match=reason):
        secrets.put(content, OURS, password=password)
    assert secrets.list(OURS) == ()


async def test_a_secret_is_its_projects_only(secrets: LocalSecrets) -> None:
    reference = secrets.put(pem(LEAF) + pem(KEY), OURS, name="mine")
    assert secrets.list(THEIRS) == ()
    with pytest.raises(Invalid):
        await secrets.certificate(reference, THEIRS)
    with pytest.raises(Invalid):
        secrets.delete(reference, THEIRS)
    assert [(secret.reference, secret.name) for secret in secrets.list(OURS)] == [(reference, "mine")]
    secrets.delete(reference, OURS)
    assert secrets.list(OURS) == ()
    with pytest.raises(Invalid):
        await secrets.certificate(reference, OURS)


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "local:",
        "local:../key",
        f"local:{UUID(int=5)}",
        f"local:{UUID(int=0xA)}".upper(),
        f"{UUID(int=5)}",
        "https://barbican/v1/containers/x",
    ],
)
async def test_an_unknown_reference_is_named(secrets: LocalSecrets, reference: str) -> None:
    with pytest.raises(Invalid) as raised:
        await secrets.certificate(reference, OURS)
    assert raised.value.field == reference


async def test_nothing_can_be_read_from_the_files(secrets: LocalSecrets, tmp_path: Path) -> None:
    reference = secrets.put(pem(LEAF) + pem(KEY), OURS, name="a telling name")
    directory = tmp_path / "secrets"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content = path.read_bytes()
        assert not any(word in content for word in (b"PRIVATE", b"CERTIFICATE", b"telling", b"ours"))
    found = await LocalSecrets(LocalSecretsSettings(state_dir=tmp_path)).certificate(reference, OURS)
    assert "PRIVATE" not in repr(found)


async def test_files_cannot_be_exchanged_or_altered(secrets: LocalSecrets, tmp_path: Path) -> None:
    one, two = (secrets.put(pem(LEAF) + pem(KEY), project) for project in (OURS, THEIRS))
    path = {reference: tmp_path / "secrets" / f"{reference.removeprefix('local:')}.secret" for reference in (one, two)}
    path[one].write_bytes(path[two].read_bytes())
    with pytest.raises(Invalid, match="damaged"):
        await secrets.certificate(one, OURS)
    assert secrets.list(OURS) == ()
    assert len(secrets.list(THEIRS)) == 1


async def test_another_key_file_opens_nothing(secrets: LocalSecrets, tmp_path: Path) -> None:
    reference = secrets.put(pem(LEAF) + pem(KEY), OURS)
    (tmp_path / "secrets" / "key").write_bytes(bytes(32))
    with pytest.raises(Invalid, match="another key file"):
        await LocalSecrets(LocalSecretsSettings(state_dir=tmp_path)).certificate(reference, OURS)


def test_a_key_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(Invalid, match="32 bytes"):
        LocalSecrets(LocalSecretsSettings(state_dir=tmp_path, directory=tmp_path))


def test_secrets_are_listed_oldest_first(tmp_path: Path) -> None:
    times = iter(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=5 - number) for number in range(5))
    secrets = LocalSecrets(LocalSecretsSettings(state_dir=tmp_path), clock=lambda: next(times))
    references = [secrets.put(pem(LEAF) + pem(KEY), OURS) for _ in range(5)]
    assert [secret.reference for secret in secrets.list(OURS)] == references[::-1]


async def test_noop_has_no_secrets() -> None:
    with pytest.raises(Invalid):
        await NoopSecrets().certificate("local:x", OURS)


async def test_only_what_a_killed_writer_left_is_discarded(tmp_path: Path) -> None:
    secrets = LocalSecrets(LocalSecretsSettings(state_dir=tmp_path))
    reference = secrets.put(pem(LEAF) + pem(KEY), OURS)
    left = tmp_path / "secrets" / f".{reference.removeprefix('local:')}.secret.x_9z0a1b"
    left.write_bytes(b"half")
    [told] = await secrets.list_unused()
    assert told.name == str(left)
    await secrets.discard(told)
    await secrets.discard(replace(told, name=str(tmp_path / "secrets" / "key")))
    assert await secrets.list_unused() == ()
    assert (await secrets.certificate(reference, OURS)).private_key
