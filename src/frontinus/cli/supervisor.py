"""Tell systemd how a process of ours stands: sd_notify(3), a datagram to the socket that $NOTIFY_SOCKET names.

Without that variable nothing is told; and a supervisor that does not hear us ends nothing of what we serve."""

from __future__ import annotations

import os
import socket

READY = "READY=1"
STOPPING = "STOPPING=1"


def tell(state: str) -> None:
    """Never raises: what cannot be told is not told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # of the abstract namespace, unix(7)
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.settimeout(1)
            to.sendto(state.encode(), address)
    except OSError:
        return
