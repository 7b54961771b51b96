"""Who may be whom: certificates that say one thing each, keys that say nothing of others, files that are whole."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from frontinus.drivers.amphora.agent.authority import CLIENT_VALIDITY, Authority, Phase, heartbeat_key
from frontinus.drivers.amphora.agent.boot import AgentSettings, boot_files
from frontinus.drivers.amphora.agent.heartbeat_keys import HeartbeatKeys
from frontinus.drivers.amphora.interface import Refused
from frontinus.model.ids import AmphoraId
from frontinus.testing.simulated_amphorae import SimulatedAmphora

from tests.unit.drivers.trees import AMPHORA

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DAYS_30 = timedelta(days=30)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def names(certificate: x509.Certificate) -> list[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(x509.DNSName)


def test_an_amphora_can_only_serve_under_its_id(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "authority", Clock())
    certificate = x509.load_pem_x509_certificate(authority.issue_server(AMPHORA, DAYS_30))
    assert names(certificate) == [AMPHORA]
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == AMPHORA
    assert usages(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert certificate.not_valid_before_utc <= NOW < certificate.not_valid_after_utc == NOW + DAYS_30
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.bundle))


def test_a_controller_can_only_ask_under_its_identity(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, Clock())
    certificate = x509.load_pem_x509_certificate(authority.client_pem("frontinus-controller").read_bytes())
    assert names(certificate) == ["frontinus-controller"]
    assert usages(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_machine_that_was_suspended_for_months_takes_it_for_valid(tmp_path: Path) -> None:
    """Its clock is set by what a controller says, whose certificate it judges before."""
    authority = Authority.open(tmp_path, Clock())
    client = x509.load_pem_x509_certificate(authority.client_pem("me").read_bytes())
    for certificate in (client, authority.issuing):
        assert certificate.not_valid_before_utc <= NOW - timedelta(days=300)


def test_each_authority_leaves_a_controller_what_to_ask_its_amphorae_by(tmp_path: Path) -> None:
    """For as long as that authority lives: nobody can sign another one. What is renewed in the usual way is not swept."""
    clock = Clock()
    authority = Authority.open(tmp_path, clock)
    authority.client_pem("me")
    issuers = []
    for _ in range(2):
        issuers.append(authority.issuing)
        for _ in range(3):
            clock.now += timedelta(days=1)
            authority.advance()
        authority.client_pem("me")
    kept = [x509.load_pem_x509_certificates(x.read_bytes()) for x in authority.former("me")]
    assert {issuer for _, issuer in kept} == set(issuers)
    for client, issuer in kept:
        client.verify_directly_issued_by(issuer)
        assert (names(client), usages(client)) == (["me"], [ExtendedKeyUsageOID.CLIENT_AUTH])
        assert client.not_valid_after_utc == issuer.not_valid_after_utc
    assert authority.former("somebody else") == ()
    clock.now += timedelta(days=200)
    assert not set(authority.former("me")) & set(authority.outlived_clients())
    assert {stat.S_IMODE(path.stat().st_mode) for path in authority.former("me")} == {0o600}


def test_the_authority_signs_amphorae_and_no_further_authorities(tmp_path: Path) -> None:
    certificate = x509.load_pem_x509_certificate(Authority.open(tmp_path, Clock()).bundle)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)


def test_the_client_certificate_is_renewed_at_half_of_its_time(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority.open(tmp_path, clock)
    first = authority.client_pem("me").read_bytes()
    clock.now += CLIENT_VALIDITY / 2 - timedelta(seconds=1)
    assert authority.client_pem("me").read_bytes() == first
    clock.now += timedelta(seconds=2)
    second = authority.client_pem("me").read_bytes()
    assert second != first
    assert authority.client_pem("me").read_bytes() == second


@pytest.mark.parametrize("damage", [b"", b"nonsense"])
def test_a_damaged_client_certificate_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    authority = Authority.open(tmp_path, Clock())
    authority.client_pem("me").write_bytes(damage)
    assert names(x509.load_pem_x509_certificate(authority.client_pem("me").read_bytes())) == ["me"]


def test_a_client_certificate_of_another_authority_is_made_anew(tmp_path: Path) -> None:
    ours, theirs = Authority.open(tmp_path / "a", Clock()), Authority.open(tmp_path / "b", Clock())
    foreign = theirs.client_pem("me").read_bytes()
    ours.client_pem("me").write_bytes(foreign)
    assert ours.client_pem("me").read_bytes() != foreign


def test_heartbeat_keys_are_told_apart_and_stay(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, Clock())
    key = authority.heartbeat_key("a")
    assert len(bytes.fromhex(key)) == 32
    assert key != authority.heartbeat_key("b")
    assert Authority.open(tmp_path, Clock()).heartbeat_key("a") == key
    assert Authority.open(tmp_path / "other", Clock()).heartbeat_key("a") != key


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    directory = tmp_path / "authority"
    authority = Authority.open(directory, Clock())
    authority.client_pem("me")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


@pytest.mark.parametrize("name, content", [("ca.pem", b"nonsense"), ("heartbeat.key", b"short")])
def test_a_directory_of_something_else_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    Authority.open(tmp_path, Clock())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        Authority.open(tmp_path, Clock())


def test_boot_files_of_any_call_differ_only_in_the_certificate(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, Clock())
    settings = AgentSettings(
        port=9443,
        controller_identity="me",
        heartbeat_destinations=("127.0.0.1:5555", "[::1]:5555"),
        heartbeat_interval=timedelta(milliseconds=500),
        certificate_validity=DAYS_30,
        haproxy_command="/usr/sbin/haproxy",
        nginx_command="/usr/sbin/nginx",
        keepalived_command="/usr/sbin/keepalived",
        network="none",
    )
    first = boot_files(AMPHORA, "127.0.0.1", authority, settings).files
    second = boot_files(AMPHORA, "127.0.0.1", authority, settings).files
    assert first.keys() == {"agent.conf", "server.pem", "client_ca.pem"}
    assert {name for name in first if first[name] != second[name]} == {"server.pem"}
    assert first["client_ca.pem"] == authority.bundle
    text = first["agent.conf"].decode()
    assert "heartbeat_interval = 0.5\n" in text
    assert "controller_ip_port_list = 127.0.0.1:5555, [::1]:5555\n" in text
    assert f"heartbeat_key = {authority.heartbeat_key(AMPHORA)}\n" in text
    # Agents of before refuse keys that they don't know: what they have by themselves is not said.
    assert {"nginx_cmd", "keepalived_cmd", "network"}.isdisjoint(x.split(" ")[0] for x in text.splitlines())


def test_a_change_of_the_authority_goes_through_its_phases(tmp_path: Path) -> None:
    ours, theirs = Authority.open(tmp_path, Clock()), Authority.open(tmp_path, Clock())
    first, digests = ours.issuing, {ours.digest}
    assert (ours.phase, ours.trusted) == (Phase.STEADY, (first,))

    assert ours.advance() is Phase.INTRODUCED
    assert (theirs.phase, theirs.issuing, len(theirs.trusted)) == (Phase.INTRODUCED, first, 2)
    new = theirs.trusted[1]
    digests.add(theirs.digest)

    assert theirs.advance() is Phase.IN_USE
    assert (ours.phase, ours.issuing, set(ours.trusted)) == (Phase.IN_USE, new, {first, new})
    x509.load_pem_x509_certificate(ours.issue_server(AMPHORA, DAYS_30)).verify_directly_issued_by(new)
    x509.load_pem_x509_certificate(ours.client_pem("me").read_bytes()).verify_directly_issued_by(new)
    digests.add(ours.digest)

    assert ours.advance() is Phase.STEADY
    assert (theirs.phase, theirs.trusted) == (Phase.STEADY, (new,))
    assert len(digests | {theirs.digest}) == 4, "each phase is told from every other"
    assert Authority.open(tmp_path, Clock()).digest == theirs.digest
    assert sorted(x.name for x in tmp_path.iterdir() if "ca" in x.name) == ["ca.pem"]


def test_the_key_of_heartbeats_changes_with_the_authority_and_both_are_accepted_meanwhile(tmp_path: Path) -> None:
    ours, theirs = Authority.open(tmp_path, Clock()), Authority.open(tmp_path, Clock())
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    ears, seconds = HeartbeatKeys(theirs), iter(range(0, 100, 2))
    (old,) = ours.heartbeat_masters

    def is_heard(master: bytes) -> bool:
        amphora = SimulatedAmphora(AmphoraId(AMPHORA), heartbeat_key(master, AMPHORA).encode())
        try:
            ears.decode(amphora.datagram(), moment + timedelta(seconds=next(seconds)))
        except Refused:
            return False
        return True

    seen: list[tuple[bool, ...]] = [(ours.heartbeat_key(AMPHORA) == heartbeat_key(old, AMPHORA), is_heard(old))]
    ours.advance()
    new = ours.heartbeat_masters[1]
    for _ in range(3):
        seen.append((ours.heartbeat_key(AMPHORA) == heartbeat_key(old, AMPHORA), is_heard(old), is_heard(new)))
        ours.advance()
    # Only who is told of a new authority is told of the key; in all phases but the last and the first both are heard.
    assert seen == [(True, True), (True, True, True), (False, True, True), (False, False, True)]


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_change_of_the_key_that_was_interrupted_goes_on(tmp_path: Path, done: int) -> None:
    authority = Authority.open(tmp_path, Clock())
    authority.advance()
    old, new = authority.heartbeat_masters
    if done:
        (tmp_path / "heartbeat-old.key").write_bytes(old)
    if done > 1:
        (tmp_path / "heartbeat-new.key").replace(tmp_path / "heartbeat.key")
    assert authority.phase is Phase.INTRODUCED
    assert set(authority.heartbeat_masters) == {old, new}
    seen = [(authority.advance(), authority.heartbeat_masters) for _ in range(2)]
    assert seen == [(Phase.IN_USE, (new, old)), (Phase.STEADY, (new,))]
    assert sorted(x.name for x in tmp_path.iterdir() if "heartbeat" in x.name) == ["heartbeat.key"]


def test_a_change_that_an_older_version_began_keeps_the_key(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, Clock())
    authority.advance()
    (tmp_path / "heartbeat-new.key").unlink()
    (key,) = authority.heartbeat_masters
    assert [authority.advance(), authority.advance()] == [Phase.IN_USE, Phase.STEADY]
    assert authority.heartbeat_masters == (key,)


def test_a_change_that_was_interrupted_between_its_two_files_goes_on(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, Clock())
    authority.advance()
    first, new = authority.trusted
    (tmp_path / "ca-old.pem").write_bytes(first.public_bytes(serialization.Encoding.PEM))
    assert (authority.phase, authority.trusted) == (Phase.INTRODUCED, (first, new))
    assert authority.advance() is Phase.IN_USE
    assert (authority.issuing, set(authority.trusted)) == (new, {first, new})


def test_a_certificate_that_nobody_renews_is_outlived_and_one_in_use_never(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority.open(tmp_path, clock)
    former, used = authority.client_pem("former"), authority.client_pem("used")
    (tmp_path / "client-foreign.pem").write_text("none of ours")
    clock.now += CLIENT_VALIDITY / 2 + timedelta(hours=1)
    assert authority.outlived_clients() == ()
    authority.client_pem("used")
    clock.now += timedelta(days=1)
    assert authority.outlived_clients() == (former,)
    clock.now += CLIENT_VALIDITY
    authority.client_pem("used")
    assert authority.outlived_clients() == (former,)
    assert used.exists()


def test_what_a_killed_writer_left_is_found(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, Clock())
    authority.client_pem("used")
    assert authority.scratch() == ()
    left = tmp_path / ".client-used.pem.a1b2c3_d"
    left.write_text("half of a key")
    (tmp_path / ".client-link.pem.a1b2c3_d").symlink_to(tmp_path / "ca.pem")
    assert authority.scratch() == (left,)
