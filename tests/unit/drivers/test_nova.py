"""What the states of a Nova server mean, and which of several counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from frontinus.drivers.compute.interface import PlaceState
from frontinus.drivers.compute.nova.facts import (
    ActionFacts,
    GroupFacts,
    ServerFacts,
    choice,
    reboot_asked_at,
    started_at,
    state_of,
)
from frontinus.drivers.compute.nova.names import Names
from frontinus.drivers.compute.nova.settings import NovaSettings
from frontinus.model.errors import Invalid

pytestmark = pytest.mark.unit

ID = "0b9b34a6-1f3d-4d2e-8d2b-9a6f3f1c7a11"
BY_SOMEBODY = ActionFacts(action="stop", start_time="2026-11-27T10:00:00.0", user_id="ef85")
BY_NOVA = ActionFacts(action="stop", start_time="2026-11-27T11:00:00.0", user_id=None)
STARTED = ActionFacts(action="start", start_time="2026-11-27T12:00:00.0", user_id="ef85")


@pytest.mark.parametrize(
    "state,status,task,actions",
    [
        pytest.param(PlaceState.RUNNING, "ACTIVE", None, (), id="active"),
        pytest.param(PlaceState.RUNNING, "MIGRATING", "migrating", (), id="live migration"),
        pytest.param(PlaceState.BUILDING, "BUILD", "spawning", (), id="being built"),
        pytest.param(PlaceState.BUILDING, "HARD_REBOOT", "reboot_started_hard", (), id="rebooting"),
        pytest.param(PlaceState.STOPPED_ON_PURPOSE, "REBUILD", "rebuild_spawning", (), id="evacuating"),
        pytest.param(PlaceState.STOPPED_ON_PURPOSE, "ERROR", "rebuild_spawning", (), id="evacuating from error"),
        pytest.param(PlaceState.STOPPED_ON_PURPOSE, "RESIZE", "resize_migrating", (), id="cold migration"),
        pytest.param(PlaceState.STOPPED_ON_PURPOSE, "PAUSED", None, (), id="paused"),
        pytest.param(PlaceState.STOPPED_ON_PURPOSE, "SHELVED_OFFLOADED", None, (), id="shelved"),
        pytest.param(PlaceState.STOPPED_ON_PURPOSE, "ACTIVE", "powering-off", (BY_SOMEBODY,), id="being stopped"),
        pytest.param(PlaceState.STOPPED, "ACTIVE", "powering-off", (BY_NOVA,), id="Nova sees that its machine ended"),
        pytest.param(PlaceState.STOPPED_ON_PURPOSE, "SHUTOFF", None, (BY_SOMEBODY,), id="stopped by somebody"),
        pytest.param(PlaceState.STOPPED_ON_PURPOSE, "SHUTOFF", None, (), id="shut off, nobody knows why"),
        pytest.param(
            PlaceState.STOPPED, "SHUTOFF", None, (STARTED, BY_SOMEBODY, BY_NOVA), id="its machine ended by itself"
        ),
        pytest.param(PlaceState.STOPPED, "ERROR", None, (), id="error"),
        pytest.param(PlaceState.STOPPED, "ACTIVE", "deleting", (), id="being deleted"),
        pytest.param(PlaceState.STOPPED, "NEWS", None, (), id="a status that nobody knows"),
    ],
)
def test_a_planned_state_is_told_from_a_failure(
    state: PlaceState, status: str, task: str | None, actions: tuple[ActionFacts, ...]
) -> None:
    assert state == state_of(ServerFacts(id=ID, status=status, task=task), actions)


AT_NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def over(action: str, at: str) -> dict[str, object]:
    return {"action": action, "start_time": "2026-11-27T08:00:00.000000", "updated_at": at, "user_id": "ef85"}


@pytest.mark.parametrize(
    "expected,told",
    [
        pytest.param(None, [], id="nothing was done"),
        pytest.param(None, [over("create", "2026-11-27T12:00:00.000000")], id="its first start is a build's"),
        pytest.param(None, [over("unpause", "2026-11-27T12:00:00.000000")], id="what goes on where it was"),
        pytest.param(AT_NOON, [over("start", "2026-11-27T12:00:00.000000")], id="started"),
        pytest.param(
            AT_NOON,
            [over("reboot", "2026-11-27T12:00:00.000000"), over("start", "2026-11-27T11:00:00.000000")],
            id="the last counts",
        ),
        pytest.param(
            None, [{"action": "start", "start_time": "2026-11-27T12:00:00.000000", "user_id": "ef85"}], id="under way"
        ),
    ],
)
def test_a_start_is_told_from_a_first_one(expected: datetime | None, told: list[dict[str, object]]) -> None:
    assert expected == started_at(msgspec.convert(told, list[ActionFacts], strict=False))


def test_the_last_reboot_is_told_by_when_it_was_asked_for() -> None:
    told = [
        {"action": "start", "start_time": "2026-11-27T13:00:00.000000", "user_id": "ef85"},
        {"action": "reboot", "start_time": "2026-11-27T12:00:00.000000", "user_id": "ef85"},
        over("reboot", "2026-11-27T08:00:09.000000"),
    ]
    assert reboot_asked_at(msgspec.convert(told, list[ActionFacts], strict=False)) == AT_NOON
    assert reboot_asked_at(()) is None


def test_a_server_is_read_as_nova_tells_it() -> None:
    told = {
        "id": ID,
        "name": f"amphora-{ID}",
        "status": "ERROR",
        "tags": ["frontinus-blue"],
        "hostId": "hash",
        "OS-EXT-SRV-ATTR:host": "fake1",
        "OS-EXT-STS:task_state": "deleting",
        "OS-SRV-USG:launched_at": None,
        "fault": {"message": "No valid host was found.", "code": 500, "created": "2026-11-27T10:00:00Z"},
        "os-extended-volumes:volumes_attached": [{"id": "v", "delete_on_termination": True}],
    }
    server = msgspec.convert(told, ServerFacts, strict=False)
    assert (server.host, server.host_id, server.is_going, server.launched) == ("fake1", "hash", True, None)
    assert (server.why, len(server.volumes)) == ("No valid host was found.", 1)


def of_age(created: str, server_id: str, **words: Any) -> ServerFacts:
    return ServerFacts(id=server_id, created=created, **{"status": "ACTIVE", **words})


@pytest.mark.parametrize(
    "chosen,servers",
    [
        pytest.param(None, [], id="there is none"),
        pytest.param("b", [of_age("2", "a"), of_age("1", "b")], id="the first made"),
        pytest.param("a", [of_age("1", "b"), of_age("1", "a")], id="made in one second"),
        pytest.param("a", [of_age("2", "a"), of_age("1", "b", status="ERROR")], id="one failed"),
        pytest.param("a", [of_age("2", "a"), of_age("1", "b", task="deleting")], id="one is going"),
    ],
)
def test_all_choose_the_same_of_several(chosen: str | None, servers: list[ServerFacts]) -> None:
    for order in (servers, servers[::-1]):
        found = choice(order)
        assert chosen == (None if found is None else found.id)


@pytest.mark.parametrize(
    "owner,server",
    [
        pytest.param(ID, ServerFacts(id="s", name=f"amphora-{ID}", tags=("x", "frontinus-blue")), id="ours"),
        pytest.param(None, ServerFacts(id="s", name=f"amphora-{ID}"), id="an Octavia's"),
        pytest.param(None, ServerFacts(id="s", name=f"amphora-{ID}", tags=("frontinus-green",)), id="another's"),
        pytest.param(None, ServerFacts(id="s", name="amphora-one", tags=("frontinus-blue",)), id="no amphora's name"),
    ],
)
def test_only_what_is_named_and_tagged_is_ours(owner: str | None, server: ServerFacts) -> None:
    assert owner == Names("blue").read_server(server)


def test_a_group_is_of_one_installation() -> None:
    of_another = GroupFacts(id="g", name=f"frontinus-blue-lb-2-lb-{ID}")
    owners = [x for x in ("blue", "blue-lb-2") if Names(x).is_our_group(of_another)]
    assert owners == ["blue-lb-2"]


@pytest.mark.parametrize(
    "field,words",
    [
        pytest.param("flavor", {"flavor": ""}, id="no flavor"),
        pytest.param("image_tag", {"image_tag": ""}, id="any image"),
        pytest.param("server_groups", {"server_groups": "affinity"}, id="a policy that does not part"),
        pytest.param("volume_size_gib", {"volume_size_gib": 0}, id="no volume"),
        pytest.param("volume_type", {"volume_type": "fast"}, id="a type of no volume"),
        pytest.param("build_retries", {"build_retries": 11}, id="for ever"),
        pytest.param("delete_timeout", {"delete_timeout": timedelta(0)}, id="no time"),
    ],
)
def test_a_setting_that_cannot_be_is_named(field: str, words: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as raised:
        NovaSettings(**{"flavor": "lb.tiny", **words}).check()
    assert field == raised.value.field
