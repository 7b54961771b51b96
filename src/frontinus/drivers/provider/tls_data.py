"""What a provider driver is handed of TLS: references, what is behind them, versions, ciphers, and what HTTP says of it.

A driver asks no secret store: it is handed the content (contract/driver-lib.yaml, TLS dict). Nothing of this is logged or
kept by us; the trees that we keep have references only."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha1
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from frontinus.model.certificates import Certificate, Secrets
from frontinus.model.compatibility import TLS_LISTENERS
from frontinus.model.tree import Listener, Pool


def listener_tls(listener: Listener, secrets: Secrets) -> dict[str, Any]:
    """Attributes of a listener that ends TLS; nothing, so that they are Unset, for another."""
    if listener.protocol not in TLS_LISTENERS:
        return {}
    sni = [x for x in listener.sni_container_refs if x in secrets.certificates]
    return {
        "default_tls_container_ref": listener.default_tls_container_ref,
        "default_tls_container_data": _container(listener.default_tls_container_ref, secrets),
        "sni_container_refs": list(listener.sni_container_refs),
        "sni_container_data": [_tls(secrets.certificates[x]) for x in sni],
        "client_ca_tls_container_ref": listener.client_ca_tls_container_ref,
        "client_ca_tls_container_data": _authorities(listener.client_ca_tls_container_ref, secrets),
        "client_crl_container_ref": listener.client_crl_container_ref,
        "client_crl_container_data": _revocations(listener.client_crl_container_ref, secrets),
        "client_authentication": listener.client_authentication.value,
        "tls_versions": _list(listener.tls_versions),
        "tls_ciphers": listener.tls_ciphers,
        "alpn_protocols": _list(listener.alpn_protocols),
        "hsts_max_age": listener.hsts_max_age,
        "hsts_include_subdomains": bool(listener.hsts_include_subdomains),
        "hsts_preload": bool(listener.hsts_preload),
    }


def pool_tls(pool: Pool, secrets: Secrets) -> dict[str, Any]:
    """Whether a pool speaks TLS to its members, and with what."""
    if not pool.tls_enabled:
        return {"tls_enabled": False}
    return {
        "tls_enabled": True,
        "tls_container_ref": pool.tls_container_ref,
        "tls_container_data": _container(pool.tls_container_ref, secrets),
        "ca_tls_container_ref": pool.ca_tls_container_ref,
        "ca_tls_container_data": _authorities(pool.ca_tls_container_ref, secrets),
        "crl_container_ref": pool.crl_container_ref,
        "crl_container_data": _revocations(pool.crl_container_ref, secrets),
        "tls_versions": _list(pool.tls_versions),
        "tls_ciphers": pool.tls_ciphers,
        "alpn_protocols": _list(pool.alpn_protocols),
    }


def _container(reference: str | None, secrets: Secrets) -> dict[str, Any] | None:
    found = None if reference is None else secrets.certificates.get(reference)
    return None if found is None else _tls(found)


def _tls(certificate: Certificate) -> dict[str, Any]:
    parsed = x509.load_pem_x509_certificate(certificate.certificate)
    names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return {
        "id": sha1(certificate.certificate, usedforsecurity=False).hexdigest(),  # a name, as Octavia makes it
        "primary_cn": str(names[0].value) if names else None,
        "certificate": certificate.certificate.decode(),
        "private_key": certificate.private_key.decode(),
        "passphrase": None,
        "intermediates": [x.decode() for x in certificate.intermediates],
    }


def _authorities(reference: str | None, secrets: Secrets) -> str | None:
    found = None if reference is None else secrets.authorities.get(reference)
    return None if found is None else _joined(found.certificates)


def _revocations(reference: str | None, secrets: Secrets) -> str | None:
    found = None if reference is None else secrets.revocations.get(reference)
    return None if found is None else _joined(found.lists)


def _joined(parts: Iterable[bytes]) -> str:
    return "".join(x.decode() for x in parts)


def _list(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)
