"""What an Octavia's own configuration says of how its controllers reach their amphorae: keys and certificates.

Read from octavia.conf and the files that it names, on a host of a health manager or worker. Writes nothing."""

from __future__ import annotations

import configparser
from pathlib import Path

import msgspec

from frontinus.model.errors import Invalid

FIELD = "octavia-config"


class OctaviaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """PEM texts, and the key of heartbeats. `server_authority_key` is encrypted with the passphrase, where there is one."""

    connection: str | None
    heartbeat_key: str
    heartbeat_receivers: tuple[str, ...]
    server_authority: bytes
    server_authority_key: bytes
    passphrase: bytes | None
    client: bytes
    base_path: str

    def __repr__(self) -> str:  # keeps keys out of logs and tracebacks
        return "OctaviaSettings(...)"


def read_settings(file: Path) -> OctaviaSettings:
    """Raises Invalid naming what is missing. Defaults are Octavia's."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        with file.open(encoding="utf-8") as opened:
            parser.read_file(opened)
    except (OSError, configparser.Error, UnicodeDecodeError) as error:
        raise Invalid(FIELD, f"{file} cannot be read: {error}") from error

    def option(section: str, name: str, default: str | None = None) -> str | None:
        return parser.get(section, name, fallback=default) or default

    def content(section: str, name: str, default: str) -> bytes:
        path = Path(option(section, name, default) or default)
        try:
            return path.read_bytes()
        except OSError as error:
            raise Invalid(FIELD, f"[{section}] {name}: {path} cannot be read: {error.strerror}") from error

    generator = option("certificates", "cert_generator", "local_cert_generator")
    if generator != "local_cert_generator":
        raise Invalid(FIELD, f"[certificates] cert_generator: {generator} keeps its authority where it cannot be read")
    key = option("health_manager", "heartbeat_key")
    if not key:
        raise Invalid(
            FIELD, "[health_manager] heartbeat_key is not set: the amphorae's heartbeats could not be verified"
        )
    passphrase = option("certificates", "ca_private_key_passphrase")
    receivers = option("health_manager", "controller_ip_port_list", "") or ""
    return OctaviaSettings(
        connection=option("database", "connection"),
        heartbeat_key=key,
        heartbeat_receivers=tuple(x.strip() for x in receivers.split(",") if x.strip()),
        # haproxy_amphora.server_ca is whom controllers trust; it may hold more than the one that signs, which comes first.
        server_authority=content("certificates", "ca_certificate", "/etc/ssl/certs/ssl-cert-snakeoil.pem")
        + content("haproxy_amphora", "server_ca", "/etc/octavia/certs/server_ca.pem"),
        server_authority_key=content("certificates", "ca_private_key", "/etc/ssl/private/ssl-cert-snakeoil.key"),
        passphrase=passphrase.encode() if passphrase else None,
        client=content("haproxy_amphora", "client_cert", "/etc/octavia/certs/client.pem"),
        base_path=option("haproxy_amphora", "base_path", "/var/lib/octavia") or "/var/lib/octavia",
    )
