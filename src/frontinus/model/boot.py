"""What a place must hold before the agent in it starts. Made by an amphora driver, laid down by a compute driver."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """By what an amphora is known and whom it knows, besides its configuration. `digest` says whom it trusts and who
    vouches for it (64 hexadecimal digits); what it shows is good until `expires_at` and due to be renewed at
    `renew_at`. `fingerprint` is of the certificate that it shows (SHA-256, hexadecimal); empty where there is none."""

    digest: str
    expires_at: datetime
    renew_at: datetime
    fingerprint: str = ""


class BootFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Relative path -> content; every file is private (0600).

    In a file that ends in .conf, `{place}` stands for the absolute directory where the compute driver puts them, and
    `{memory}` for one of the place's own whose files never reach a disk: it is there when the agent starts, for its
    owner's eyes only, and gone with the place. It may be empty after every start."""

    files: Mapping[str, bytes]
    identity: Identity | None = None
    """What the files make the amphora to be; None where a driver has no such thing."""
