"""Server groups: all are read while others are deleted, and a crowd that builds or destroys reads them together."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from frontinus.drivers.compute.nova.facts import GroupFacts
from frontinus.drivers.compute.nova.groups import Groups
from frontinus.drivers.compute.nova.names import Names
from frontinus.drivers.compute.nova.nova import Nova
from frontinus.drivers.openstack.cloud import Cloud, in_this_thread
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.model.errors import Retry
from frontinus.model.ids import LoadBalancerId, new_id

from tests.unit.drivers.little_cloud import LittleCloud, answer

pytestmark = pytest.mark.unit

CROWD = 12


class Deleting(LittleCloud):
    """Somebody deletes `gone` groups, the oldest, after each of the first `pages` answers."""

    def __init__(self, groups: int, gone: int, pages: int, at_most: int) -> None:
        super().__init__()
        self.groups = [f"{x:04}" for x in range(groups)]
        self._gone, self._pages, self._at_most = gone, pages, at_most

    def request(self, path: str, method: str, **words: Any) -> requests.Response:
        assert (method, path) == ("GET", "/os-server-groups")
        first, most = words["params"]["offset"], min(words["params"]["limit"], self._at_most)
        page = self.groups[first : first + most]
        if self._pages:
            self._pages -= 1
            del self.groups[: self._gone]
        return answer({"server_groups": [{"id": x, "name": x} for x in page]})


@pytest.mark.parametrize(
    "groups,gone,pages,at_most",
    [
        pytest.param(0, 0, 0, 1000, id="none"),
        pytest.param(3, 0, 0, 1, id="one at a time"),
        pytest.param(700, 0, 0, 1000, id="nobody deletes"),
        pytest.param(700, 30, 1, 1000, id="some go"),
        pytest.param(1600, 30, 3, 1000, id="some go again and again"),
        pytest.param(1600, 200, 1, 1000, id="so many go that it is begun anew"),
        pytest.param(600, 590, 1, 1000, id="nearly all go"),
        pytest.param(60, 2, 9, 10, id="Nova gives few at once"),
    ],
)
def test_no_group_is_skipped_while_others_are_deleted(groups: int, gone: int, pages: int, at_most: int) -> None:
    little: Any = Deleting(groups, gone, pages, at_most)
    with in_this_thread():
        found = {x.id for x in Nova(Cloud(OpenStackSettings(), lambda _: little)).groups()}
    assert set(little.groups) <= found


def test_a_list_that_changes_without_end_is_given_up() -> None:
    little: Any = Deleting(50_000, 200, 10_000, 1000)
    with in_this_thread(), pytest.raises(Retry) as busy:
        Nova(Cloud(OpenStackSettings(), lambda _: little)).groups()
    assert busy.value.code == "nova-busy"


class CrowdedNova:
    """The first list waits until all have asked."""

    def __init__(self) -> None:
        self.there: dict[str, GroupFacts] = {}
        self.lists = 0
        self.all_have_asked: Callable[[], bool] = lambda: True

    def groups(self) -> list[GroupFacts]:
        self.lists += 1
        deadline = time.monotonic() + 10
        while not self.all_have_asked():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return list(self.there.values())

    def create_group(self, name: str, policy: str) -> GroupFacts:
        made = GroupFacts(id=new_id(), name=name, policy=policy)
        self.there[made.id] = made
        return made

    def group(self, group_id: str) -> GroupFacts | None:
        return self.there.get(group_id)

    def delete_group(self, group_id: str) -> None:
        del self.there[group_id]


@pytest.fixture
def nova() -> CrowdedNova:
    return CrowdedNova()


def groups_of(nova: Any) -> Groups:
    made = Groups(nova, Names("blue"), "anti-affinity")
    nova.all_have_asked = lambda: made._asked >= CROWD
    return made


def test_a_crowd_that_builds_reads_them_together(nova: CrowdedNova) -> None:
    groups = groups_of(nova)
    pairs = [LoadBalancerId(new_id()) for _ in range(CROWD // 2)]
    with ThreadPoolExecutor(CROWD) as crowd:
        ids = [x.id for x in crowd.map(groups.need, [*pairs, *pairs]) if x is not None]
    assert ids[: len(pairs)] == ids[len(pairs) :]
    assert len(nova.there) == len(set(ids)) == len(pairs)
    assert nova.lists <= 2


def test_a_crowd_that_destroys_reads_them_together(nova: CrowdedNova) -> None:
    groups = groups_of(nova)
    kept = GroupFacts(id="k", name=Names("blue").group_name(LoadBalancerId(new_id())), members=("s",))
    nova.there = {"k": kept}
    for _ in range(CROWD):
        nova.create_group(Names("blue").group_name(LoadBalancerId(new_id())), "anti-affinity")
    with ThreadPoolExecutor(CROWD) as crowd:
        list(crowd.map(lambda _: groups.drop_empty(), range(CROWD)))
    assert nova.there == {"k": kept}
    assert nova.lists <= 2


def test_a_group_that_got_its_first_server_is_not_dropped_by_what_was_read_before(nova: CrowdedNova) -> None:
    groups, load_balancer_id = Groups(nova, Names("blue"), "anti-affinity"), LoadBalancerId(new_id())  # type: ignore[arg-type]
    with groups.wanted(load_balancer_id):
        made = groups.need(load_balancer_id)
        assert made is not None
        nova.there[made.id] = GroupFacts(id=made.id, name=made.name, members=("s",))
    groups.drop_empty()
    assert set(nova.there) == {made.id}
