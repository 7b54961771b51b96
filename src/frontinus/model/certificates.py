"""Certificates and what goes with them, as the secret store gives them and the amphora needs them; and which object of a
tree refers to what. Nothing here shows a key when it is printed.

Only references that have an effect are listed: a broken one that nothing uses is nobody's trouble."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import assert_never

import msgspec

from frontinus.model.compatibility import TLS_LISTENERS
from frontinus.model.enums import ClientAuthentication, Kind
from frontinus.model.ids import LoadBalancerId, ProjectId
from frontinus.model.tree import Listener, LoadBalancerTree, Pool

UNREADABLE = "secret-unreadable"
"""The code of the fault of what refers to a secret that cannot be used."""


class SecretKind(StrEnum):
    """What is expected behind a reference."""

    CERTIFICATE = "certificate"
    AUTHORITIES = "authorities"
    REVOCATIONS = "revocations"


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed and checked certificate. PEM texts; the key is unencrypted and matches the certificate. `expires_at` is
    when the first of certificate and intermediates does; None where the driver does not say."""

    certificate: bytes
    private_key: bytes
    intermediates: tuple[bytes, ...] = ()
    expires_at: datetime | None = None

    def __repr__(self) -> str:  # keeps private keys out of logs and tracebacks
        return "Certificate(...)"


class Authorities(msgspec.Struct, frozen=True, kw_only=True):
    """Certificates of authorities that are trusted, each a PEM text."""

    certificates: tuple[bytes, ...]


class Revocations(msgspec.Struct, frozen=True, kw_only=True):
    """Certificate revocation lists, each a PEM text."""

    lists: tuple[bytes, ...]


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """What is behind the references of a tree, by reference."""

    certificates: Mapping[str, Certificate] = {}
    authorities: Mapping[str, Authorities] = {}
    revocations: Mapping[str, Revocations] = {}

    def of(self, use: SecretUse) -> Certificate | Authorities | Revocations | None:
        """What this use leads to; None when that was not resolved."""
        match use.kind:
            case SecretKind.CERTIFICATE:
                return self.certificates.get(use.reference)
            case SecretKind.AUTHORITIES:
                return self.authorities.get(use.reference)
            case SecretKind.REVOCATIONS:
                return self.revocations.get(use.reference)
            case _:
                assert_never(use.kind)


NO_SECRETS = Secrets()


class SecretUse(msgspec.Struct, frozen=True):
    """One reference, and who makes it by which field."""

    kind: SecretKind
    reference: str
    object_kind: Kind
    object_id: str
    field: str


class SecretConsumer(msgspec.Struct, frozen=True, kw_only=True):
    """A load balancer that uses a secret, as a secret store that keeps account of its users records it."""

    reference: str
    project_id: ProjectId
    load_balancer_id: LoadBalancerId


def secret_uses(tree: LoadBalancerTree) -> tuple[SecretUse, ...]:
    """Every reference that the wanted tree's configuration depends on, listeners first."""
    wanted = tree.wanted()
    listeners = [use for listener in wanted.listeners for use in _uses_of_listener(listener)]
    return (*listeners, *(use for pool in wanted.pools for use in _uses_of_pool(pool)))


def _uses_of_listener(listener: Listener) -> Iterator[SecretUse]:
    if listener.protocol not in TLS_LISTENERS or not listener.admin_state_up:
        return
    rows: list[tuple[SecretKind, str | None, str]] = [
        (SecretKind.CERTIFICATE, listener.default_tls_container_ref, "default_tls_container_ref"),
        *((SecretKind.CERTIFICATE, reference, "sni_container_refs") for reference in listener.sni_container_refs),
    ]
    if listener.client_authentication is not ClientAuthentication.NONE:
        rows.append((SecretKind.AUTHORITIES, listener.client_ca_tls_container_ref, "client_ca_tls_container_ref"))
        rows.append((SecretKind.REVOCATIONS, listener.client_crl_container_ref, "client_crl_container_ref"))
    yield from (SecretUse(kind, ref, Kind.LISTENER, listener.id, field) for kind, ref, field in rows if ref)


def _uses_of_pool(pool: Pool) -> Iterator[SecretUse]:
    if not pool.tls_enabled or not pool.admin_state_up:
        return
    rows = (
        (SecretKind.CERTIFICATE, pool.tls_container_ref, "tls_container_ref"),
        (SecretKind.AUTHORITIES, pool.ca_tls_container_ref, "ca_tls_container_ref"),
        (SecretKind.REVOCATIONS, pool.crl_container_ref, "crl_container_ref"),
    )
    yield from (SecretUse(kind, ref, Kind.POOL, pool.id, field) for kind, ref, field in rows if ref)
