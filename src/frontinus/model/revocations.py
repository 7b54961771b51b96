"""Do revocation lists belong to the authorities beside them? Signatures are verified; nothing is opened. Pure.

A list of another authority would be loaded all the same, and then every certificate would be refused, or, worse, the
revoked ones let in (contract/resources.yaml, tls: "PEM CRL signed by that CA, else 400")."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from frontinus.model.certificates import Authorities, Revocations


def foreign_issuer(revocations: Revocations, authorities: Authorities) -> str | None:
    """The issuer of the first list that none of the authorities has signed; None when all belong together."""
    known = [x509.load_pem_x509_certificate(each) for each in authorities.certificates]
    for text in revocations.lists:
        found = x509.load_pem_x509_crl(text)
        if not any(_has_signed(authority, found) for authority in known):
            return found.issuer.rfc4514_string()
    return None


def _has_signed(authority: x509.Certificate, found: x509.CertificateRevocationList) -> bool:
    """By name and by signature: authorities may share a name, as one whose key was renewed does with itself."""
    if authority.subject != found.issuer:
        return False
    try:
        return found.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # other keys are a TypeError
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False
