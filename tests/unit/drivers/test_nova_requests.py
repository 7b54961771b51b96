"""What Nova is asked for when a server is made: by the settings, and by the flavor and zone of the load balancer.

The words are those of the Compute API (POST /servers, microversion 2.69) and the Image API. Boot from a volume is looked at
here only: the lab has no Cinder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from frontinus.drivers.compute.interface import PlaceState
from frontinus.drivers.compute.nova.driver import NovaCompute
from frontinus.drivers.compute.nova.settings import NovaSettings
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.placement import UNSPECIFIED, Placement

from tests.unit.drivers.little_cloud import LittleCloud, answer

pytestmark = pytest.mark.unit

AMPHORA = AmphoraId("0b9b34a6-1f3d-4d2e-8d2b-9a6f3f1c7a11")
LOAD_BALANCER = LoadBalancerId("9d0c8a58-3d9c-4f2b-8b52-f1a6a9f4a001")
IMAGES = {"amphora-image": "image-1", "next": "image-2"}
FLAVORS = {"lb.tiny": "f1", "lb.huge": "f2"}


class LittleNova(LittleCloud):
    """As much of a Nova and a Glance as one build needs. `asked` are the bodies of POST /servers and of actions."""

    def __init__(self) -> None:
        super().__init__()
        self.server: dict[str, Any] | None = None
        self.actions: list[Mapping[str, Any]] = []

    def request(self, path: str, method: str, **words: Any) -> requests.Response:
        match method, path:
            case "GET", "/images":
                found = IMAGES.get(words["params"]["tag"])
                return answer({"images": [] if found is None else [{"id": found}]})
            case "GET", "/servers/detail":
                return answer({"servers": [] if self.server is None else [self.server]})
            case "GET", "/flavors":
                return answer({"flavors": [{"id": x, "name": name} for name, x in FLAVORS.items()]})
            case "GET", "/os-availability-zone":
                zones = [{"zoneName": x, "zoneState": {"available": x != "closed"}} for x in ("nova", "east", "closed")]
                return answer({"availabilityZoneInfo": zones})
            case "POST", "/servers":
                self.asked.append(words["json"]["server"])
                self.server = {
                    "id": "s",
                    "name": f"amphora-{AMPHORA}",
                    "status": "ACTIVE",
                    "tags": ["frontinus-frontinus"],
                }
                return answer({"server": {"id": "s"}}, 202)
            case "POST", "/servers/s/action":
                self.asked.append(words["json"])
                assert self.server is not None
                self.server["status"] = "ACTIVE"
                return answer(None, 202)
            case "GET", "/servers/s":
                return answer({"server": self.server}) if self.server is not None else answer(None, 404)
            case "DELETE", "/servers/s":
                self.asked.append({"delete": "s"})
                self.server = None
                return answer(None, 204)
            case "GET", "/servers/s/os-interface":
                return answer({"interfaceAttachments": []})
            case "GET", "/servers/s/os-instance-actions":
                return answer({"instanceActions": self.actions})
            case _:
                return super().request(path, method, **words)


@pytest.fixture
def cloud() -> LittleNova:
    return LittleNova()


def driver_for(cloud: LittleNova, **settings: Any) -> NovaCompute:
    words = {"flavor": "lb.tiny", "server_groups": "none", **settings}
    connect: Callable[[OpenStackSettings], Any] = lambda _: cloud  # noqa: E731
    return NovaCompute(NovaSettings(**words), connect)


async def build(cloud: LittleNova, placement: Placement = UNSPECIFIED, **settings: Any) -> Mapping[str, Any]:
    driver = driver_for(cloud, **settings)
    try:
        await driver.build(AMPHORA, LOAD_BALANCER, BootFiles(files={"agent.conf": b"id = 1\n"}), (), placement)
    finally:
        await driver.close()
    asked: Mapping[str, Any] = cloud.asked[-1]
    return asked


async def test_the_settings_say_what_nobody_asks_for(cloud: LittleNova) -> None:
    body = await build(cloud, availability_zone="nova", key_name="operator")
    assert body == {
        "name": f"amphora-{AMPHORA}",
        "tags": ["frontinus-frontinus"],
        "metadata": {"frontinus_load_balancer": LOAD_BALANCER},
        "flavorRef": "f1",
        "imageRef": "image-1",
        "networks": "none",
        "config_drive": True,
        "user_data": body["user_data"],
        "key_name": "operator",
        "availability_zone": "nova",
    }


@pytest.mark.parametrize(
    "key,value,placement",
    [
        pytest.param("flavorRef", "f2", Placement(compute_flavor="lb.huge"), id="flavor by name"),
        pytest.param("flavorRef", "f2", Placement(compute_flavor="f2"), id="flavor by id"),
        pytest.param("imageRef", "image-2", Placement(amp_image_tag="next"), id="image tag"),
        pytest.param("availability_zone", "east", Placement(compute_zone="east"), id="zone"),
    ],
)
async def test_flavor_and_zone_go_before_the_settings(
    cloud: LittleNova, key: str, value: str, placement: Placement
) -> None:
    plain = await build(LittleNova(), availability_zone="nova")
    body = await build(cloud, placement, availability_zone="nova")
    assert {x: body[x] for x in body if body[x] != plain[x]} == {key: value}


async def test_a_volume_is_made_from_the_image_and_goes_with_its_server(cloud: LittleNova) -> None:
    body = await build(cloud, Placement(amp_image_tag="next"), volume_size_gib=3, volume_type="fast")
    assert "imageRef" not in body
    assert body["block_device_mapping_v2"] == [
        {
            "boot_index": 0,
            "source_type": "image",
            "uuid": "image-2",
            "destination_type": "volume",
            "volume_size": 3,
            "delete_on_termination": True,
            "volume_type": "fast",
        }
    ]
    (without_type,) = (await build(LittleNova(), volume_size_gib=3))["block_device_mapping_v2"]
    assert "volume_type" not in without_type, "Nova takes null for no type of that name"


@pytest.mark.parametrize(
    "code,told,placement",
    [
        pytest.param("no-flavor", "'lb.none'", Placement(compute_flavor="lb.none"), id="flavor"),
        pytest.param("no-image", "'none'", Placement(amp_image_tag="none"), id="image"),
        pytest.param("no-zone", "'west'", Placement(compute_zone="west"), id="zone"),
        pytest.param("no-zone", "'closed'", Placement(compute_zone="closed"), id="zone without hosts"),
    ],
)
async def test_what_is_not_there_is_said_and_nothing_is_made(
    cloud: LittleNova, code: str, told: str, placement: Placement
) -> None:
    with pytest.raises(Retry, match=f"{told}.* the load balancer") as caught:
        await build(cloud, placement)
    assert (caught.value.code, cloud.asked) == (code, [])


async def test_a_server_that_stopped_is_rebuilt_from_the_image_of_its_load_balancer(cloud: LittleNova) -> None:
    await build(cloud, Placement(amp_image_tag="next"))
    assert cloud.server is not None
    cloud.server |= {"status": "ERROR", "OS-SRV-USG:launched_at": "2026-11-27T10:00:00.0"}
    body = await build(cloud, Placement(amp_image_tag="next"))
    assert body["rebuild"]["imageRef"] == "image-2"


async def test_a_server_that_is_off_is_made_anew(cloud: LittleNova) -> None:
    """Nova rebuilds it too, and then turns it off again."""
    await build(cloud)
    assert cloud.server is not None
    cloud.server |= {"status": "SHUTOFF", "OS-SRV-USG:launched_at": "2026-11-27T10:00:00"}
    await build(cloud)
    assert [next(iter(x)) for x in cloud.asked] == ["name", "delete", "name"]
    assert cloud.server["status"] == "ACTIVE"


async def test_a_place_tells_of_what_and_where_it_was_made(cloud: LittleNova) -> None:
    await build(cloud)
    assert cloud.server is not None
    cloud.server |= {
        "flavor": {"original_name": "lb.huge", "vcpus": 2},
        "image": {"id": "image-2", "links": []},
        "OS-EXT-AZ:availability_zone": "east",
    }
    driver = driver_for(cloud)
    place = await driver.get(AMPHORA)
    cloud.server |= {"image": "", "OS-EXT-AZ:availability_zone": ""}
    by_volume = await driver.get(AMPHORA)
    await driver.close()
    assert (place.compute_flavor, place.image_id, place.zone) == ("lb.huge", "image-2", "east")
    assert (by_volume.image_id, by_volume.zone) == (None, None)


@pytest.mark.parametrize("status", ["REBOOT", "HARD_REBOOT"])
@pytest.mark.parametrize(
    "expected,ago",
    [
        pytest.param(True, timedelta(minutes=2), id="as long as its system may shut down"),
        pytest.param(False, timedelta(minutes=6), id="without end"),
    ],
)
async def test_a_server_that_somebody_reboots_is_about_to_boot(
    cloud: LittleNova, status: str, expected: bool, ago: timedelta
) -> None:
    await build(cloud)
    assert cloud.server is not None
    before = datetime.now(UTC)
    cloud.server |= {"status": status, "OS-EXT-STS:task_state": "reboot_started"}
    cloud.actions = [{"action": "reboot", "start_time": f"{before - ago:%Y-%m-%dT%H:%M:%S.%f}", "user_id": "operator"}]
    driver = driver_for(cloud)
    place = await driver.get(AMPHORA)
    await driver.close()
    assert place.state is PlaceState.BUILDING
    assert (place.started_at is not None and place.started_at >= before) is expected


@pytest.mark.parametrize("policy,expected", [("soft-anti-affinity", True), ("anti-affinity", True), ("none", False)])
async def test_pairs_are_kept_apart_by_groups(cloud: LittleNova, policy: str, expected: bool) -> None:
    driver = driver_for(cloud, server_groups=policy)
    assert driver.keeps_apart is expected
    await driver.close()


@pytest.mark.parametrize(
    "expected,status", [(True, "ACTIVE"), (True, "BUILD"), (False, "ERROR"), (False, "SHUTOFF"), (False, "PAUSED")]
)
async def test_those_that_run_are_told_at_once(cloud: LittleNova, expected: bool, status: str) -> None:
    await build(cloud)
    assert cloud.server is not None
    cloud.server["status"] = status
    driver = driver_for(cloud)
    assert await driver.list_running() == (frozenset({AMPHORA}) if expected else frozenset())
    await driver.close()
