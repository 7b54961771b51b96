"""What is changed in a text that runs: the peers of one that is too old for another text, and that connections are not kept."""

from __future__ import annotations

import pytest

from frontinus.drivers.amphora.haproxy.mending import closing, introduced, learns

pytestmark = pytest.mark.unit

LIVE = """global
    log stdout local0

frontend one
    mode http
    bind 10.0.0.1:80

frontend two
    mode tcp
    bind 10.0.0.1:81

peers ab_peers
    bind 10.0.0.5:1025
    server own
    server gone 10.0.0.6:1025
    table pool:one type ipv6 size 100

backend pool:one
    mode http
    server m1 10.0.1.1:80
"""
NEWCOMER = "    server new 10.0.0.7:1025\n"


def rendered(peers: str) -> str:
    return f"global\n    setenv FRONTINUS_MAX_MEMORY 512\n\n{peers}\nbackend pool:one\n    mode http\n"


def test_only_the_other_peers_change() -> None:
    wanted = rendered(f"peers ab_peers\n    server own\n{NEWCOMER}    table pool:one type ipv6 size 900\n")
    assert introduced(LIVE, wanted) == LIVE.replace("    server gone 10.0.0.6:1025\n", NEWCOMER)
    assert introduced(introduced(LIVE, wanted), wanted) == introduced(LIVE, wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(rendered(""), id="nothing is learnt any more"),
        pytest.param(rendered(f"peers other_peers\n    server own\n{NEWCOMER}"), id="other tables"),
        pytest.param("not of ours", id="not written by us"),
    ],
)
def test_what_is_of_no_use_to_it_is_left_out(wanted: str) -> None:
    assert introduced(LIVE, wanted) == LIVE


def test_one_that_stands_alone_has_no_peers() -> None:
    wanted = rendered("peers ab_peers\n    server own\n    table pool:one type ipv6 size 100\n")
    assert introduced(LIVE, wanted) == LIVE.replace("    server gone 10.0.0.6:1025\n", "")


def test_answers_of_http_are_the_last_of_their_connections() -> None:
    expected = LIVE.replace("    bind 10.0.0.1:80\n", "    bind 10.0.0.1:80\n    option httpclose\n")
    assert closing(LIVE) == expected
    assert closing(expected) == expected
    assert closing("not of ours") == "not of ours"


def test_whether_clients_are_remembered() -> None:
    assert learns(LIVE)
    assert not learns(LIVE.replace("    table pool:one type ipv6 size 100\n", ""))
    assert not learns("not of ours")
