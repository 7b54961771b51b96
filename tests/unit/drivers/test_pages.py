"""A service of OpenStack gives as much of a list at once as its operator lets it: all of it is read, whoever reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from frontinus.cli.openstack.looking import Look
from frontinus.drivers.compute.nova.nova import Nova
from frontinus.drivers.network.neutron.neutron import Neutron
from frontinus.drivers.openstack.cloud import Cloud, in_this_thread
from frontinus.drivers.openstack.settings import OpenStackSettings

from tests.unit.drivers.little_cloud import LittleCloud, answer, refusal

pytestmark = pytest.mark.unit

IDS = ["1", "2", "3"]
THING = {
    "name": "n",
    "status": "ACTIVE",
    "created_at": "2026-11-27T10:00:00Z",
    "vcpus": 1,
    "ram": 1,
    "disk": 1,
    "admin_state_up": True,
    "network_id": "1",
    "cidr": "192.0.2.0/24",
    "ip_version": 4,
}
"""As much as is read of any of them."""
KEYS = ("flavors", "images", "networks", "servers", "subnets")


class OneAtATime(LittleCloud):
    """Every list has three things, and each answer one; the link to the next is as the service sees itself. What is asked for
    anywhere else is an error."""

    def request(self, path: str, method: str, **words: Any) -> Any:
        key = next(x for x in KEYS if x in path)
        assert path in (f"/{key}", f"/{key}/detail"), "the answer's link is not for us"
        at = IDS.index(words["params"]["marker"]) + 1 if "marker" in words["params"] else 0
        thing = {"id": IDS[at], **THING}
        link = f"http://10.0.0.1:9696/v2.0/{key}?limit=1&marker={IDS[at]}"
        last = at + 1 == len(IDS)
        links = {"next": link} if key == "images" else {f"{key}_links": [{"rel": "next", "href": link}]}
        return answer({key: [thing], **({} if last else links)})


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda cloud: Nova(cloud).servers(), id="servers"),
        pytest.param(lambda cloud: Nova(cloud).flavors(), id="flavors"),
        pytest.param(lambda cloud: Neutron(cloud).networks(), id="networks"),
        pytest.param(lambda cloud: Look(cloud).flavors(), id="flavors that are judged"),
        pytest.param(lambda cloud: Look(cloud).images("amphora-image"), id="images that are judged"),
        pytest.param(lambda cloud: Look(cloud).networks("n")[0].subnets, id="subnets that are judged"),
    ],
)
def test_a_list_is_read_to_its_end(read: Callable[[Cloud], Any]) -> None:
    little: Any = OneAtATime()
    with in_this_thread():
        assert [x.id for x in read(Cloud(OpenStackSettings(), lambda _: little))] == IDS


@pytest.mark.parametrize("name,expected", [("operator", True), ("a/b", True), ("nobody's", False)])
def test_a_key_pair_is_asked_for_by_its_name(name: str, expected: bool) -> None:
    class Keys(LittleCloud):
        def request(self, path: str, method: str, **words: Any) -> Any:
            if path in ("/os-keypairs/operator", "/os-keypairs/a%2Fb"):
                return answer({"keypair": {"name": name}})
            return refusal({"itemNotFound": {"message": f"Keypair {name} not found"}}, 404, path, method)

    little: Any = Keys()
    with in_this_thread():
        assert Look(Cloud(OpenStackSettings(), lambda _: little)).has_key(name) is expected
