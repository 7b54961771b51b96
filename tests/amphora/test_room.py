"""For how much traffic a machine has room. That there is room is seen in tests/integration/places."""

import pytest

from frontinus_amphora.room import files, settings


@pytest.mark.parametrize(
    "memory_mib, most",
    [
        pytest.param(64, 4_096, id="not less than by itself"),
        pytest.param(256, 6_752, id="a small machine: 3,276 connections"),
        pytest.param(4_096, 105_056, id="a large one: as many as a load balancer has by default"),
        pytest.param(1 << 20, 1 << 20, id="not more than the kernel lets a process have"),
    ],
)
def test_files_go_by_memory(memory_mib: int, most: int) -> None:
    assert files(memory_mib * 1024) == most


def test_tcp_may_have_a_quarter_of_the_memory_and_is_sparing_from_an_eighth_on() -> None:
    pages = 256 * 1024 // 4
    assert settings(256 * 1024)["net/ipv4/tcp_mem"] == f"{pages // 12} {pages // 8} {pages // 4}"


def test_neighbours_of_both_families_are_many() -> None:
    found = settings(256 * 1024)
    thresholds = [found[f"net/{family}/neigh/default/gc_thresh{n}"] for family in ("ipv4", "ipv6") for n in (1, 2, 3)]
    assert thresholds == ["4096", "8192", "16384"] * 2
