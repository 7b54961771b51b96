"""TLS of listeners and of pools: the words of `bind` and `server` lines, and the files that they name. Pure.

A file's name comes from the reference of its secret and not from its content, so that a certificate that is replaced
behind its reference keeps its name, and HAProxy can be given the new one while it runs (diff.py). Sources: HAProxy
configuration manual 5.1 (bind: crt-list, ca-file, verify, ssl-min-ver), 5.2 (server: ssl, sni, verify); OpenSSL
ciphers(1) and SSL_CTX_set_ciphersuites(3). Next: server.py, render.py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from frontinus.drivers.amphora.agent.files import path_of
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.haproxy.text import checked
from frontinus.drivers.amphora.haproxy.versions import Version, says
from frontinus.drivers.amphora.interface import RenderedFile
from frontinus.model.certificates import Authorities, Certificate, Revocations, Secrets
from frontinus.model.compatibility import TLS_CIPHERS_DEFAULT, TLS_VERSIONS
from frontinus.model.enums import ClientAuthentication
from frontinus.model.errors import Rejected
from frontinus.model.tree import Listener, Pool

CERTIFICATE, AUTHORITIES, REVOCATIONS, LIST = "crt-", "ca-", "crl-", "list-"
"""How the names of files begin: what is in them."""

HAPROXY_VERSIONS = {"TLSv1": "TLSv1.0"}
"""Where HAProxy spells a version otherwise than the API."""

OLD_VERSIONS = frozenset({"TLSv1", "TLSv1.1"})
"""OpenSSL 3 has no handshake of these above security level 0, because they sign by SHA-1."""

OLD_CIPHERS = (
    *("ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA", "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA"),
    *("AES256-SHA", "AES128-SHA"),
)
"""The API's default names no cipher that the old versions have: who asks for them and says nothing of ciphers gets these
at the end of it. A list that a tenant wrote is never made longer."""

_T = TypeVar("_T", Certificate, Authorities, Revocations)

_VERIFY = {ClientAuthentication.OPTIONAL: "optional", ClientAuthentication.MANDATORY: "required"}


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """How TLS is spoken to a member. Files are paths as HAProxy gets them; what is None is not said."""

    verify: str
    ca_file: str | None = None
    crl_file: str | None = None
    certificate: str | None = None
    sni: str | None = None
    ciphers: str | None = None
    suites: str | None = None
    oldest: str | None = None
    newest: str | None = None
    alpn: str | None = None

    def words(self) -> list[str]:
        words = ["ssl", "verify", self.verify]
        for keyword, field in KEYWORDS.items():
            value = getattr(self, field)
            if value is not None:
                words += [keyword, value]
        return words


KEYWORDS: dict[str, str] = {
    "ca-file": "ca_file",
    "crl-file": "crl_file",
    "crt": "certificate",
    "sni": "sni",
    "ciphers": "ciphers",
    "ciphersuites": "suites",
    "ssl-min-ver": "oldest",
    "ssl-max-ver": "newest",
    "alpn": "alpn",
}
"""HAProxy's keyword on a `server` line -> the field of Tls."""


class Files:
    """The files of one configuration, and the paths by which its text names them."""

    def __init__(self, load_balancer_id: str, secrets: Secrets, settings: HaproxySettings) -> None:
        self._load_balancer_id = load_balancer_id
        self._secrets = secrets
        self._base = f"{settings.base_path.rstrip('/')}/" if settings.base_path else ""
        self._files: dict[str, RenderedFile] = {}

    def all(self) -> tuple[RenderedFile, ...]:
        return tuple(self._files.values())

    def certificate(self, reference: str, field: str) -> str:
        """The path of a certificate with its key. Raises Rejected, as all of these, when it was not resolved."""
        found = _resolved(self._secrets.certificates.get(reference), reference, field)
        return self._keep(CERTIFICATE, reference, _joined((found.certificate, found.private_key, *found.intermediates)))

    def authorities(self, reference: str, field: str) -> str:
        found = _resolved(self._secrets.authorities.get(reference), reference, field)
        return self._keep(AUTHORITIES, reference, _joined(found.certificates))

    def revocations(self, reference: str, field: str) -> str:
        found = _resolved(self._secrets.revocations.get(reference), reference, field)
        return self._keep(REVOCATIONS, reference, _joined(found.lists))

    def listing(self, listener_id: str, paths: Iterable[str]) -> str:
        """The path of a list of certificates; the first is for clients that ask for no name that any of them has."""
        content = "".join(f"{path}\n" for path in dict.fromkeys(paths)).encode()
        return self._store(f"{LIST}{listener_id}.pem", content)

    def patterns(self, name: str, content: bytes) -> str | None:
        """The path of a file of patterns, which is on disk and no secret; None where there are no such files: genuine
        Octavia agents, for which paths are absolute, take certificates only."""
        if self._base:
            return None
        self._files[name] = RenderedFile(name=name, content=content, private=False)
        return path_of(name, self._load_balancer_id, private=False)

    def _keep(self, prefix: str, reference: str, content: bytes) -> str:
        return self._store(f"{prefix}{hashlib.sha256(reference.encode()).hexdigest()[:32]}.pem", content)

    def _store(self, name: str, content: bytes) -> str:
        self._files[name] = RenderedFile(name=name, content=content)
        return f"{self._base}{path_of(name, self._load_balancer_id, private=True)}"


def bind_words(listener: Listener, files: Files, version: Version) -> tuple[str, ...]:
    """What a `bind` line of a listener has behind the address; nothing where it has no certificate."""
    if not listener.default_tls_container_ref and not listener.sni_container_refs:
        return ()
    default = [files.certificate(x, "default_tls_container_ref") for x in (listener.default_tls_container_ref,) if x]
    others = [files.certificate(reference, "sni_container_refs") for reference in listener.sni_container_refs]
    words = ["ssl", "crt-list", files.listing(listener.id, [*default, *others])]
    verify = _VERIFY.get(listener.client_authentication)
    if verify is not None and listener.client_ca_tls_container_ref:
        words += ["ca-file", files.authorities(listener.client_ca_tls_container_ref, "client_ca_tls_container_ref")]
        words += ["verify", verify]
        if listener.client_crl_container_ref:
            words += ["crl-file", files.revocations(listener.client_crl_container_ref, "client_crl_container_ref")]
    choice = _choose(listener.tls_ciphers, listener.tls_versions)
    named = {
        "ciphers": choice.ciphers,
        "ciphersuites": choice.suites,
        "ssl-min-ver": choice.oldest,
        "ssl-max-ver": choice.newest,
        "alpn": ",".join(listener.alpn_protocols) if listener.alpn_protocols else None,
    }
    for keyword, value in named.items():
        if value is not None:
            words += [keyword, value]
    if not listener.alpn_protocols and says(version, "no-alpn"):
        words.append("no-alpn")
    return tuple(words)


def server_tls(pool: Pool, mode: str, files: Files) -> Tls | None:
    """How the members of a pool are spoken to; None where in clear.

    As Octavia has it: the name that a client asked for is asked of the member too, and with an authority a member must
    show a certificate that it signed, for that name where there is one; without an authority any will do."""
    if not pool.tls_enabled:
        return None
    choice = _choose(pool.tls_ciphers, pool.tls_versions)
    authority, revoked, own = pool.ca_tls_container_ref, pool.crl_container_ref, pool.tls_container_ref
    return Tls(
        verify="required" if authority else "none",
        ca_file=files.authorities(authority, "ca_tls_container_ref") if authority else None,
        crl_file=files.revocations(revoked, "crl_container_ref") if authority and revoked else None,
        certificate=files.certificate(own, "tls_container_ref") if own else None,
        sni="ssl_fc_sni",
        ciphers=choice.ciphers,
        suites=choice.suites,
        oldest=choice.oldest,
        newest=choice.newest,
        # A TCP listener hands on whatever its client speaks, so there is nothing to agree upon with the member.
        alpn=",".join(pool.alpn_protocols) if pool.alpn_protocols and mode == "http" else None,
    )


def hsts_lines(listener: Listener) -> list[tuple[str, ...]]:
    """Strict-Transport-Security (RFC 6797 6.1), on every response, also on those that HAProxy itself makes."""
    if listener.hsts_max_age is None:
        return []
    directives = [f"max-age={listener.hsts_max_age}"]
    if listener.hsts_include_subdomains:
        directives.append("includeSubDomains")
    if listener.hsts_preload:
        directives.append("preload")
    return [("http-after-response", "set-header", "Strict-Transport-Security", "; ".join(directives))]


class _Choice(msgspec.Struct, frozen=True):
    ciphers: str | None
    suites: str | None
    oldest: str | None
    newest: str | None


def _choose(ciphers: str | None, versions: tuple[str, ...] | None) -> _Choice:
    """Ciphers and versions as HAProxy and OpenSSL take them.

    The suites of TLS 1.3 are named TLS_… and are chosen apart from the ciphers of the versions before. A list that
    names none of them leaves them at their default, as OpenSSL and Octavia do; one that names nothing else leaves the
    older versions without any cipher, so they are off."""
    suites = [x for x in (ciphers or "").split(":") if x.startswith("TLS_")]
    older = [x for x in (ciphers or "").split(":") if x and not x.startswith("TLS_")]
    wanted = [x for x in TLS_VERSIONS if versions is None or x in versions]
    if suites and not older:
        wanted = [x for x in wanted if x == "TLSv1.3"]
        if not wanted:
            raise Rejected("tls_ciphers", "names ciphers of TLSv1.3 only, which is not among tls_versions")
    if versions is not None and any(x in OLD_VERSIONS for x in wanted):
        older += OLD_CIPHERS if ciphers == TLS_CIPHERS_DEFAULT else ()
        older = [*(older or ["DEFAULT"]), "@SECLEVEL=0"]
    first_and_last = (wanted[0], wanted[-1]) if versions is not None or (suites and not older) else None
    return _Choice(
        ciphers=checked(":".join(older), "tls_ciphers") if older else None,
        suites=checked(":".join(suites), "tls_ciphers") if suites else None,
        oldest=None if first_and_last is None else HAPROXY_VERSIONS.get(first_and_last[0], first_and_last[0]),
        newest=None if first_and_last is None else HAPROXY_VERSIONS.get(first_and_last[1], first_and_last[1]),
    )


def _joined(texts: Iterable[bytes]) -> bytes:
    """PEM texts one after the other, without empty lines: those would end the payload of a runtime command."""
    lines = (line.strip() for text in texts for line in text.splitlines())
    return b"".join(line + b"\n" for line in lines if line)


def _resolved(found: _T | None, reference: str, field: str) -> _T:
    if found is None:
        raise Rejected(field, f"{reference} was not resolved")
    return found
