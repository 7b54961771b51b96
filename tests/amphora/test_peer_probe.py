"""Who answers is there, however it answers; who says nothing is not."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from frontinus_amphora.peer_probe import Sides, sides, somebody_answers

from tests.amphora.world import free_port

NOBODY = "192.0.2.1"  # RFC 5737: nobody has it
TEXT = """vrrp_instance pair {
    unicast_src_ip 10.0.0.1
    unicast_peer {
        10.0.0.2 min_ttl 255
        10.0.0.3
    }
}
"""


@pytest.mark.parametrize(
    "text, expected",
    [
        pytest.param(TEXT, Sides("10.0.0.1", ("10.0.0.2", "10.0.0.3")), id="two peers"),
        pytest.param(
            TEXT.replace("        10.0.0.2 min_ttl 255\n        10.0.0.3\n", ""), Sides("10.0.0.1", ()), id="no peer"
        ),
        pytest.param(TEXT.replace("unicast_src_ip", "# "), None, id="adverts to everybody"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_the_sides_of_a_configuration(text: str, expected: Sides | None) -> None:
    assert sides(text) == expected


@pytest.mark.parametrize(
    "peers, listens, expected",
    [
        pytest.param(("127.0.0.1",), True, True, id="it listens"),
        pytest.param(("127.0.0.1",), False, True, id="it refuses"),
        pytest.param((), False, False, id="there is none"),
        pytest.param((NOBODY,), False, False, id="it says nothing"),
        pytest.param((NOBODY, "127.0.0.1"), False, True, id="one of two"),
    ],
)
def test_who_answers(peers: tuple[str, ...], listens: bool, expected: bool) -> None:
    port = free_port()
    with contextlib.ExitStack() as stack:
        if listens:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        began = time.monotonic()
        assert somebody_answers(Sides("127.0.0.1", peers), 0.05, port) is expected
        assert time.monotonic() - began < 5.0
