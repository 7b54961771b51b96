"""Where the doctor finds a receiver of this machine."""

from __future__ import annotations

import socket

import pytest

from frontinus.cli.doctor import udp_path
from frontinus.model.findings import Grade


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.7", "0.0.0.0", "::1", "::"])
def test_a_receiver_is_found_wherever_it_listens(address: str) -> None:
    """On networks of this machine it listens only where amphorae are."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        receiver.bind((address, 0))
        port = receiver.getsockname()[1]
        assert udp_path("here", socket.gethostname(), port).grade is Grade.OK
    assert udp_path("here", socket.gethostname(), port).grade is Grade.TROUBLE
