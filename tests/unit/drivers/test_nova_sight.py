"""Servers that Nova does not list, or does not take away: the driver goes by the id that was recorded, and asks again.

What Nova answers for a cell that is away: Compute API guide, "Handling Down Cells"."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import requests

from frontinus.drivers.compute.interface import PlaceState
from frontinus.drivers.compute.nova import driver as nova_driver
from frontinus.drivers.compute.nova.driver import NovaCompute
from frontinus.model.errors import Retry

from tests.unit.drivers.little_cloud import answer, refusal
from tests.unit.drivers.test_nova_requests import AMPHORA, LittleNova, driver_for

pytestmark = pytest.mark.unit


class Hiding(LittleNova):
    """`by_id` is what is told of server `s` by its id; no list has it."""

    def __init__(self) -> None:
        super().__init__()
        self.by_id: dict[str, Any] | None = None
        self.deletes = 0
        self.goes_at = 1
        """At which DELETE it goes; 0: those are answered 500."""

    def request(self, path: str, method: str, **words: Any) -> requests.Response:
        match method, path:
            case "GET", "/servers/s" if self.by_id is not None:
                return answer({"server": self.by_id})
            case "GET", "/servers/s":
                return self._refusal(path, method, 404)
            case "DELETE", "/servers/s":
                self.deletes += 1
                if not self.goes_at:
                    return self._refusal(path, method, 500)
                if self.deletes >= self.goes_at:
                    self.by_id = None
                elif self.by_id is not None:
                    self.by_id |= {"OS-EXT-STS:task_state": "deleting"}
                return answer(None, 204)
            case _:
                return super().request(path, method, **words)

    def _refusal(self, path: str, method: str, status: int) -> requests.Response:
        return refusal({"fault": {"message": "so it is", "code": status}}, status, path, method)


@pytest.fixture
def cloud() -> Hiding:
    return Hiding()


@pytest.fixture
async def driver(cloud: Hiding) -> AsyncIterator[NovaCompute]:
    made = driver_for(cloud)
    yield made
    await made.close()


@pytest.mark.parametrize(
    "state,by_id",
    [
        pytest.param(PlaceState.RUNNING, {"id": "s", "status": "UNKNOWN"}, id="its cell is away"),
        pytest.param(PlaceState.RUNNING, {"id": "s", "status": "ACTIVE", "name": "web"}, id="it has another name"),
        pytest.param(PlaceState.ABSENT, None, id="gone"),
    ],
)
async def test_who_is_in_no_list_is_asked_for_by_id(
    cloud: Hiding, driver: NovaCompute, state: PlaceState, by_id: dict[str, Any] | None
) -> None:
    cloud.by_id = by_id
    place = await driver.get_known(AMPHORA, "s")
    assert (place.state, place.compute_id) == (state, None if by_id is None else "s")
    assert (await driver.get_known(AMPHORA, None)).state is PlaceState.ABSENT


async def test_who_is_in_no_list_is_taken_away_by_id(cloud: Hiding, driver: NovaCompute) -> None:
    cloud.by_id = {"id": "s", "status": "ACTIVE", "name": "web"}
    await driver.destroy_known(AMPHORA, "s")
    assert cloud.deletes == 1
    assert (await driver.get_known(AMPHORA, "s")).state is PlaceState.ABSENT


async def test_a_server_whose_cell_is_away_is_not_called_gone(cloud: Hiding, driver: NovaCompute) -> None:
    cloud.by_id, cloud.goes_at = {"id": "s", "status": "UNKNOWN"}, 0
    with pytest.raises(Retry, match="nova"):
        await driver.destroy_known(AMPHORA, "s")


async def test_a_server_on_a_dead_host_is_deleted_again(
    cloud: Hiding, driver: NovaCompute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nova hands the first DELETE to the host; after it has noticed that this is dead, a repeated one is done without it."""
    monkeypatch.setattr(nova_driver, "_ASK_AGAIN_S", 0.0)
    monkeypatch.setattr(nova_driver, "_POLL_S", 0.0)
    cloud.by_id, cloud.goes_at = {"id": "s", "status": "ACTIVE"}, 3
    await driver.destroy_known(AMPHORA, "s")
    assert cloud.deletes == 3


async def test_a_server_that_goes_is_not_asked_each_time(
    cloud: Hiding, driver: NovaCompute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nova_driver, "_POLL_S", 0.0)
    cloud.by_id, cloud.goes_at = {"id": "s", "status": "ACTIVE"}, 2
    driver._settings = dataclasses.replace(driver._settings, delete_timeout=timedelta(milliseconds=100))
    with pytest.raises(Retry) as stuck:
        await driver.destroy_known(AMPHORA, "s")
    assert (stuck.value.code, cloud.deletes) == ("nova-delete-stuck", 1)
    await driver.destroy_known(AMPHORA, "s")
    assert cloud.deletes == 2, "the next try asks at once"
