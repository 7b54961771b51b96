"""The files that a place holds before the agent in it starts: configuration, server certificate, authority.

Layout of the configuration: contract/amphora-agent.yaml, agent_config_file, plus the agent's own `[frontinus]`
section. Pure but for the certificate that is issued. `{place}` and `{memory}` stand for directories of the
place (model/boot.py)."""

from __future__ import annotations

import configparser
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from frontinus.drivers.amphora.agent.authority import Authority
from frontinus.model.boot import BootFiles, Identity
from frontinus.model.ids import AmphoraId

AGENT_CONFIG = "agent.conf"
SERVER_CERTIFICATE = "server.pem"
CLIENT_CA = "client_ca.pem"


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """What an agent is told besides who it is. See AgentDriverSettings for the meaning of each."""

    port: int
    controller_identity: str
    heartbeat_destinations: Sequence[str]
    heartbeat_interval: timedelta
    certificate_validity: timedelta
    haproxy_command: str
    nginx_command: str
    keepalived_command: str
    network: str


def boot_files(
    amphora_id: AmphoraId, management_address: str, authority: Authority, settings: AgentSettings
) -> BootFiles:
    """Boot files with a fresh certificate. The files of any call start the same amphora."""
    identity, certificate = issue_identity(amphora_id, authority, settings.certificate_validity)
    return BootFiles(
        identity=identity,
        files={
            AGENT_CONFIG: agent_config(amphora_id, management_address, authority.heartbeat_key(amphora_id), settings),
            SERVER_CERTIFICATE: certificate,
            CLIENT_CA: authority.bundle,
        },
    )


def issue_identity(amphora_id: AmphoraId, authority: Authority, validity: timedelta) -> tuple[Identity, bytes]:
    """A fresh certificate with its key, and what is to be remembered of it. Renewed when half of its time is over: a
    controller may be away for as long as the other half."""
    pem = authority.issue_server(amphora_id, validity)
    certificate = x509.load_pem_x509_certificate(pem)
    expires_at = certificate.not_valid_after_utc
    identity = Identity(
        digest=authority.digest,
        expires_at=expires_at,
        renew_at=expires_at - validity / 2,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
    )
    return identity, pem


def agent_config(amphora_id: AmphoraId, management_address: str, heartbeat_key: str, settings: AgentSettings) -> bytes:
    """The agent's configuration file. Same input, same bytes."""
    # Agents of before know not all of these, and refuse to start with a key that they don't know: only what is not as an
    # agent has it anyway is said.
    beyond = {
        "network": (settings.network, "none"),
        "nginx_cmd": (settings.nginx_command, "/usr/sbin/nginx"),
        "keepalived_cmd": (settings.keepalived_command, "/usr/sbin/keepalived"),
    }
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    parser.read_dict(
        {
            "haproxy_amphora": {
                "base_path": "{place}",
                "base_cert_dir": "{memory}",
                "bind_host": management_address,
                "bind_port": str(settings.port),
                "haproxy_cmd": settings.haproxy_command,
            },
            "health_manager": {
                "controller_ip_port_list": ", ".join(settings.heartbeat_destinations),
                "heartbeat_interval": f"{settings.heartbeat_interval.total_seconds():g}",
                "heartbeat_key": heartbeat_key,
                "heartbeat_format": "envelope",
            },
            "amphora_agent": {
                "amphora_id": amphora_id,
                "agent_server_cert": f"{{place}}/{SERVER_CERTIFICATE}",
                "agent_server_ca": f"{{place}}/{CLIENT_CA}",
                "agent_tls_protocol": "TLSv1.2",
            },
            "controller_worker": {"loadbalancer_topology": "SINGLE"},
            "frontinus": {
                "controller_identity": settings.controller_identity,
                **{key: value for key, (value, default) in beyond.items() if value != default},
            },
        }
    )
    text = io.StringIO()
    parser.write(text)
    return text.getvalue().encode()
