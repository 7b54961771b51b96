"""A tenant's certificate from the shell to the wire: stored, served, replaced while everything runs, never on a disk."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from frontinus.model.certificates import Certificate
from frontinus.testing.certificates import TestAuthority, bundle

from tests.acceptance.support import COMMAND, Api, Backend, Installation, free_port, report, serving, until


def frontinus(installation: Installation, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *words, "--state-dir", str(installation.state_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def served(vip: str, port: int, authority: TestAuthority) -> bytes | None:
    """The certificate that a client gets which trusts the authority; None when it gets nothing."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    try:
        with (
            socket.create_connection((vip, port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="www.example.org") as connection,
        ):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n")
            if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
                return None
            return connection.getpeercert(binary_form=True)
    except OSError:
        return None


def der(certificate: Certificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.certificate.decode())


def holds(directory: Path, content: bytes) -> list[Path]:
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if content in path.read_bytes()]


@pytest.mark.beside
def test_a_certificate_is_stored_served_and_replaced(
    installation: Installation, api: Api, backends: list[Backend], tmp_path: Path
) -> None:
    authority = TestAuthority()
    first, second, third = (authority.issue("www.example.org") for _ in range(3))
    file = tmp_path / "site.pem"
    file.write_bytes(bundle(first))
    stored = frontinus(installation, "secret", "store", "--name", "site", str(file))
    assert stored.returncode == 0, stored.stderr
    reference, port = stored.stdout.strip(), free_port()

    load_balancer: Any = api.create(
        "loadbalancers",
        "loadbalancer",
        vip_subnet_id=api.subnet_id(),
        listeners=[
            {
                "protocol": "TERMINATED_HTTPS",
                "protocol_port": port,
                "default_tls_container_ref": reference,
                "default_pool": {
                    "name": "web",
                    "protocol": "HTTP",
                    "lb_algorithm": "ROUND_ROBIN",
                    "members": [{"address": "127.0.0.1", "protocol_port": backends[0].port}],
                },
            }
        ],
    )
    vip = load_balancer["vip_address"]
    until(lambda: served(vip, port, authority) == der(first), 20, "the certificate is not served")

    refused = frontinus(installation, "secret", "delete", reference)
    assert refused.returncode == 1
    assert "listener" in refused.stderr

    file.write_bytes(bundle(second))
    started = time.monotonic()
    assert frontinus(installation, "secret", "replace", reference, str(file)).returncode == 0
    until(lambda: served(vip, port, authority) == der(second), 10, "the new certificate is not served")
    report(f"secret replaced to served: {time.monotonic() - started:.2f} s")

    # The keys vanish under it; nobody does anything, and they are there again.
    (amphora_id,) = installation.amphora_ids()
    memory = Path(f"/dev/shm/frontinus-{amphora_id}")
    shutil.rmtree(memory / load_balancer["id"])
    started = time.monotonic()
    until(lambda: holds(memory, second.private_key.splitlines()[1]), 20, "the keys do not come back")
    report(f"keys vanished to pushed again: {time.monotonic() - started:.2f} s")
    assert served(vip, port, authority) == der(second)

    # Everything dies, as when the machine restarts: the keys are gone with the memory, and come back with a push.
    installation.kill()
    installation.kill_amphorae()
    for path in memory.rglob("*.pem"):
        path.unlink()
    file.write_bytes(bundle(third))
    assert frontinus(installation, "secret", "replace", reference, str(file)).returncode == 0
    installation.start()
    until(lambda: served(vip, port, authority) == der(third), 30, "TLS does not come back")

    for certificate in (first, second, third):
        assert holds(installation.state_dir, certificate.private_key.splitlines()[1]) == []
    shown = frontinus(installation, "secret", "delete", "--force", reference)
    assert shown.returncode == 0
    assert served(vip, port, authority) == der(third), "what runs goes on"
    amphorae = installation.amphora_ids()
    installation.down()
    assert not any(Path(f"/dev/shm/frontinus-{x}").exists() for x in amphorae), "keys are left in memory"


@pytest.mark.beside
def test_an_amphora_that_dies_while_a_secret_cannot_be_read_is_replaced_for_the_rest(
    installation: Installation, api: Api, backends: list[Backend], tmp_path: Path
) -> None:
    """What needs the secret waits for it, and says so; all else is served by another amphora."""
    authority = TestAuthority()
    lost, kept = (authority.issue("www.example.org") for _ in range(2))
    references: list[str] = []
    for certificate in (lost, kept):
        file = tmp_path / "site.pem"
        file.write_bytes(bundle(certificate))
        stored = frontinus(installation, "secret", "store", str(file))
        assert stored.returncode == 0, stored.stderr
        references.append(stored.stdout.strip())
    plain, tls, with_name = (free_port() for _ in range(3))
    members = [{"address": "127.0.0.1", "protocol_port": backends[0].port}]
    pool = {"name": "web", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": members}
    named: dict[str, Any] = {"protocol": "TERMINATED_HTTPS", "default_pool": {"name": "web"}}
    load_balancer: Any = api.create(
        "loadbalancers",
        "loadbalancer",
        vip_subnet_id=api.subnet_id(),
        pools=[pool],
        listeners=[
            {"protocol": "HTTP", "protocol_port": plain, "default_pool": {"name": "web"}},
            {**named, "protocol_port": tls, "default_tls_container_ref": references[0]},
            {
                **named,
                "protocol_port": with_name,
                "default_tls_container_ref": references[1],
                "sni_container_refs": references[:1],
            },
        ],
    )
    vip = load_balancer["vip_address"]
    until(lambda: served(vip, tls, authority) == der(lost), 20, "TLS is not served")
    (stored_at,) = installation.state_dir.rglob(f"{references[0].rpartition(':')[2].rpartition('/')[2]}*")
    away = tmp_path / "away"
    stored_at.rename(away)
    installation.kill_amphorae()
    started = time.monotonic()
    serving(vip, plain)
    report(f"amphora killed beside a lost secret to HTTP served: {time.monotonic() - started:.2f} s")
    until(lambda: served(vip, with_name, authority) == der(kept), 20, "the other certificate is not served")
    until(lambda: served(vip, tls, authority) is None, 20, "what nobody can read is served for ever")
    settled = api.settled(load_balancer["id"])
    assert settled["fault"]["code"] == "secret-unreadable"
    faults = {
        x["protocol_port"]: x["fault"]
        for x in (api.show(f"listeners/{each['id']}", "listener") for each in settled["listeners"])
    }
    assert faults[plain] is None
    for port in (tls, with_name):
        assert references[0] in faults[port]["message"]
        assert (faults[port]["object_type"], faults[port]["left_out"]) == ("listener", port == tls)

    away.rename(stored_at)
    until(lambda: served(vip, tls, authority) == der(lost), 20, "TLS does not come back")
    until(lambda: api.load_balancer(load_balancer["id"])["fault"] is None, 20, "the fault stays")
