"""Two controllers at one load balancer, as when a lease was lost amid a request: whatever comes between two requests, the servers
of a pair end in one group, which is there, and no other group is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from frontinus.drivers.compute.nova.facts import FlavorFacts, GroupFacts, ImageFacts, ServerFacts
from frontinus.drivers.compute.nova.groups import Groups
from frontinus.drivers.compute.nova.names import Names
from frontinus.drivers.compute.nova.servers import Servers, Wish
from frontinus.drivers.compute.nova.settings import NovaSettings
from frontinus.drivers.openstack.trouble import Refused
from frontinus.model.boot import BootFiles
from frontinus.model.ids import AmphoraId, LoadBalancerId, new_id

pytestmark = pytest.mark.unit

LOAD_BALANCER = LoadBalancerId(new_id())
ONE, OTHER = AmphoraId(new_id()), AmphoraId(new_id())
NAMES = Names("blue")
MOST_ROUNDS = 5


@dataclass
class SharedNova:
    """One Nova for several controllers. `before` and `after` have something happen once around a request of this name."""

    servers_there: dict[str, tuple[ServerFacts, str]] = field(default_factory=dict)
    """With the id of the group that each was made in."""
    groups_there: dict[str, GroupFacts] = field(default_factory=dict)
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    after: dict[str, Callable[[], object]] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: count(900, -1))
    """Later ones have smaller ids: it is not the id that tells which was first."""

    def _happen(self, when: dict[str, Callable[[], object]], request: str) -> None:
        if request in when:
            when.pop(request)()

    def servers(self, name: str) -> list[ServerFacts]:
        return [x for x, _ in self.servers_there.values() if name in x.name]

    def create_server(self, body: Mapping[str, Any], hints: Mapping[str, str]) -> str:
        self._happen(self.before, "create_server")
        if hints["group"] not in self.groups_there:
            raise Refused("compute", 400, "", f"Instance group {hints['group']} could not be found.")
        made = ServerFacts(
            id=f"s{next(self._numbers)}", name=body["name"], status="ACTIVE", created="2026-11-27T20:00:00Z"
        )
        self.servers_there[made.id] = (made, hints["group"])
        self._happen(self.after, "create_server")
        return made.id

    def delete_server(self, server_id: str) -> None:
        self.servers_there.pop(server_id, None)

    def groups(self) -> list[GroupFacts]:
        found = [x for x in (self.group(y) for y in self.groups_there) if x is not None]
        self._happen(self.after, "groups")
        return found

    def group(self, group_id: str) -> GroupFacts | None:
        group = self.groups_there.get(group_id)
        members = tuple(x for x, (_, of) in self.servers_there.items() if of == group_id)
        return None if group is None else GroupFacts(id=group.id, name=group.name, members=members)

    def create_group(self, name: str, policy: str) -> GroupFacts:
        self._happen(self.before, "create_group")
        made = GroupFacts(id=f"g{next(self._numbers)}", name=name, policy=policy)
        self.groups_there[made.id] = made
        return made

    def delete_group(self, group_id: str) -> None:
        del self.groups_there[group_id]

    def newest_image(self, tag: str, owner: str) -> ImageFacts:
        return ImageFacts(id="image")

    def flavors(self) -> list[FlavorFacts]:
        return [FlavorFacts(id="f", name="lb.tiny")]


class Controller:
    """One process: it builds and destroys as driver.py has it, without the waiting."""

    def __init__(self, nova: Any) -> None:
        self.nova: SharedNova = nova
        self.groups = Groups(nova, NAMES, "anti-affinity")
        settings = NovaSettings(flavor="lb.tiny", server_groups="anti-affinity")
        self.servers = Servers(nova, NAMES, self.groups, settings, lambda: "ours")

    def build(self, amphora_id: AmphoraId) -> str:
        wish = Wish(amphora_id, LOAD_BALANCER, BootFiles(files={}), ())
        for _ in range(MOST_ROUNDS):
            begun = self.servers.begin(wish, afresh=False)
            if isinstance(begun, str):
                return begun
            for server_id in begun:
                self.nova.delete_server(server_id)
        raise AssertionError("it does not end")


@pytest.fixture
def nova() -> SharedNova:
    return SharedNova()


def assert_in_one_group(nova: SharedNova) -> None:
    """Each of the pair has one server, both are in the group that is there, and dropping what is empty leaves that one only."""
    Controller(nova).groups.drop_empty()
    assert sorted(x.name for x, _ in nova.servers_there.values()) == sorted([f"amphora-{ONE}", f"amphora-{OTHER}"])
    assert {of for _, of in nova.servers_there.values()} == set(nova.groups_there)
    assert len(nova.groups_there) == 1


@pytest.mark.parametrize("moment", ["create_group", "create_server"])
@pytest.mark.parametrize("theirs", [[ONE], [OTHER], [ONE, OTHER]], ids=["the same one", "the other one", "both"])
def test_two_who_build_at_once_make_one_pair(nova: SharedNova, moment: str, theirs: list[AmphoraId]) -> None:
    mine, another = Controller(nova), Controller(nova)
    nova.before[moment] = lambda: [another.build(x) for x in theirs]
    mine.build(ONE)
    mine.build(OTHER)
    assert_in_one_group(nova)


class Killed(BaseException):
    """Of a controller."""


@pytest.mark.parametrize("has_server", [False, True], ids=["the group is made", "its server is made"])
def test_one_that_is_killed_leaves_a_group_that_serves(nova: SharedNova, has_server: bool) -> None:
    def die() -> None:
        raise Killed

    (nova.after if has_server else nova.before)["create_server"] = die
    with pytest.raises(Killed):
        Controller(nova).build(ONE)
    mine = Controller(nova)
    mine.build(ONE)
    mine.build(OTHER)
    assert_in_one_group(nova)


def test_a_group_that_got_its_first_server_since_the_list_is_not_dropped(nova: SharedNova) -> None:
    mine, destroying = Controller(nova), Controller(nova)
    nova.create_group(NAMES.group_name(LOAD_BALANCER), "anti-affinity")
    nova.after["groups"] = lambda: mine.build(ONE)
    destroying.groups.drop_empty()
    mine.build(OTHER)
    assert_in_one_group(nova)


def test_a_server_whose_group_was_dropped_behind_it_is_made_anew(nova: SharedNova) -> None:
    """Nova drops a group that is not empty, too."""
    mine = Controller(nova)

    def dropped_late() -> None:
        (group_id,) = nova.groups_there
        nova.delete_group(group_id)

    nova.after["create_server"] = dropped_late
    mine.build(ONE)
    mine.build(OTHER)
    assert_in_one_group(nova)
