"""How boot files travel to an amphora that is a machine of its own: as the user data of a config drive.

Read by the image's boot service (frontinus_amphora.boot). JSON with every file in base64: Nova hands user data on as it
is, and some 10 kB of it are far below its limit of 65,535. Pure."""

from __future__ import annotations

import base64

import msgspec

from frontinus.model.boot import BootFiles

FORMAT = "frontinus-boot-files"


def user_data(boot: BootFiles) -> bytes:
    """Same files, same bytes."""
    files = {name: base64.b64encode(content).decode() for name, content in boot.files.items()}
    return msgspec.json.encode({"format": FORMAT, "files": files}, order="deterministic")
