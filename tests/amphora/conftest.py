"""Fixtures of the amphora's tests: an agent in a directory of its own, members, certificates."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.amphora.world import SOURCES, Amphora, Member, Pki, make_pki

if str(SOURCES) not in sys.path:
    sys.path.insert(0, str(SOURCES))  # the agent is a distribution of its own and need not be installed here


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def new_amphora(pki: Pki) -> Iterator[Callable[..., Amphora]]:
    made: list[Amphora] = []

    def make(**settings: Any) -> Amphora:
        made.append(Amphora(pki, **settings))
        return made[-1].start()

    yield make
    for amphora in made:
        amphora.close()


@pytest.fixture
def amphora(new_amphora: Callable[..., Amphora]) -> Amphora:
    return new_amphora()


@pytest.fixture
def members() -> Iterator[list[Member]]:
    made = [Member("one"), Member("two")]
    yield made
    for member in made:
        member.close()
