"""Where TLS ends in nginx: one server for each certificate, found by the names that it is for. Pure.

The first certificate answers whoever asks for another name, or for none."""

from __future__ import annotations

import hashlib
import re

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from frontinus.drivers.amphora.agent.files import path_of
from frontinus.drivers.amphora.agent.nginx_text import Directive, line, literal_pattern
from frontinus.drivers.amphora.interface import RenderedFile
from frontinus.model.certificates import Certificate, Secrets
from frontinus.model.compatibility import TLS_CIPHERS_DEFAULT, TLS_VERSIONS_DEFAULT
from frontinus.model.errors import Rejected
from frontinus.model.tree import Listener, LoadBalancerTree

_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*")


class TlsServer(msgspec.Struct, frozen=True, kw_only=True):
    listen_options: tuple[str, ...]
    directives: tuple[Directive, ...]
    file: RenderedFile


def tls_servers(tree: LoadBalancerTree, listener: Listener, secrets: Secrets) -> list[TlsServer]:
    """The servers of a TERMINATED_HTTPS listener, the default one first. Raises Rejected naming the reference."""
    references = [listener.default_tls_container_ref, *listener.sni_container_refs]
    servers: list[TlsServer] = []
    taken: set[str] = set()
    for reference in dict.fromkeys(x for x in references if x):
        certificate = secrets.certificates.get(reference)
        if certificate is None:
            raise Rejected("default_tls_container_ref", f"{reference} was not resolved")
        names = [name for name in names_of(certificate) if name not in taken]
        taken.update(names)
        if servers and not names:
            continue  # every name of it is answered with a certificate that was named before
        servers.append(_server(tree, listener, certificate, names))
    return servers


def names_of(certificate: Certificate) -> list[str]:
    """The DNS names that a certificate is for, in lower case: its alternative names, else its common name."""
    parsed = x509.load_pem_x509_certificate(certificate.certificate)
    try:
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = [str(each.value) for each in parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return [name.lower() for name in dict.fromkeys(names) if _NAME.fullmatch(name)]


def _server(tree: LoadBalancerTree, listener: Listener, certificate: Certificate, names: list[str]) -> TlsServer:
    content = b"".join(
        part.strip() + b"\n" for part in (certificate.certificate, *certificate.intermediates, certificate.private_key)
    )
    file = RenderedFile(name=f"{hashlib.sha256(content).hexdigest()}.pem", content=content)
    path = path_of(file.name, tree.id, private=True)
    listed = (listener.tls_ciphers or TLS_CIPHERS_DEFAULT).split(":")
    suites = [name for name in listed if name.startswith("TLS_")]
    ciphers = [name for name in listed if not name.startswith("TLS_")]
    directives = [
        *((line("server_name", *map(_server_name, names)),) if names else ()),
        line("ssl_certificate", path),
        line("ssl_certificate_key", path),
        line("ssl_protocols", *_versions(listener, only_newest=bool(suites) and not ciphers)),
        line("ssl_prefer_server_ciphers", "on"),
    ]
    if ciphers:
        directives.append(line("ssl_ciphers", ":".join(ciphers)))
    if suites:
        directives.append(line("ssl_conf_command", "Ciphersuites", ":".join(suites)))
    http2 = ("http2",) if "h2" in (listener.alpn_protocols or ()) else ()
    return TlsServer(listen_options=("ssl", *http2), directives=tuple(directives), file=file)


def _server_name(name: str) -> str:
    """A wildcard stands for one label (RFC 6125 6.4.3), as a client checks it; nginx's own would stand for any number,
    and show a certificate to whom it is not for."""
    if not name.startswith("*."):
        return name
    return f"~^[^.]+{literal_pattern(name[1:])}$"


def _versions(listener: Listener, *, only_newest: bool) -> list[str]:
    """Ciphers of TLS 1.3 alone leave the versions before without any, so they are off: nginx would give them its own."""
    versions = [x for x in listener.tls_versions or TLS_VERSIONS_DEFAULT if x == "TLSv1.3" or not only_newest]
    if not versions:
        raise Rejected("tls_ciphers", "names ciphers of TLSv1.3 only, which is not among tls_versions")
    return versions
