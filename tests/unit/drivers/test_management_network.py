"""By which network amphorae are managed, and by which subnet of it: of an id or a name, for the driver and the check alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import requests

from frontinus.cli.openstack import trying
from frontinus.drivers.network.neutron.driver import NeutronNetwork, NeutronSettings
from frontinus.drivers.openstack.cloud import Cloud, in_this_thread
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.model.errors import Invalid, Retry
from frontinus.model.findings import Grade
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, ProjectId
from frontinus.model.ports import PortPurpose, PortRequest

from tests.unit.drivers.little_cloud import LittleCloud, answer

pytestmark = pytest.mark.unit

NETWORKS = {"1": "management", "2": "1", "3": "twice", "4": "twice"}
"""Names by id: that of the second is the id of the first."""

SUBNETS = [
    {"id": "v6", "network_id": "1", "name": "", "cidr": "2001:db8::/64", "ip_version": 6},
    {"id": "v4", "network_id": "1", "name": "", "cidr": "192.0.2.0/24", "ip_version": 4},
]


class LittleNeutron(LittleCloud):
    """Has networks and subnets, no port yet, and gives every port the address that it is not asked for. `asked` are ports."""

    def __init__(self) -> None:
        super().__init__()
        self.port: dict[str, Any] = {}

    def request(self, path: str, method: str, **words: Any) -> Any:
        wanted = words.get("params") or {}
        match method, path:
            case "GET", "/networks":
                found = [{"id": x, "name": name, "admin_state_up": True} for x, name in NETWORKS.items()]
                return answer(
                    {"networks": [x for x in found if all(wanted.get(k, x[k]) == x[k] for k in ("id", "name"))]}
                )
            case "GET", "/subnets":
                return answer({"subnets": [x for x in SUBNETS if x["network_id"] == wanted["network_id"]]})
            case "POST", "/ports":
                self.asked.append(words["json"]["port"])
                fixed = [{"ip_address": "192.0.2.7", **x} for x in self.asked[-1]["fixed_ips"]]
                self.port = {**self.asked[-1], "id": "p", "fixed_ips": fixed}
                return answer({"port": self.port}, 201)
            case "PUT", "/ports/p":
                return answer({"port": {**self.port, **words["json"]["port"]}})
            case "POST", "/security-groups":
                return answer({"security_group": {"id": "g"}}, 201)
            case ("PUT", "/ports/p/tags") | ("POST", "/security-group-rules") | ("DELETE", _):
                return answer(None, 204)
            case "GET", _:
                return answer({path.removeprefix("/").replace("-", "_"): []})
            case _:
                raise AssertionError(f"{method} {path} was not expected")


SETTINGS = NeutronSettings(management_network="management", management_security_groups=("g",))


async def made(little: LittleNeutron, network: str | None = None) -> Mapping[str, Any]:
    """The management port of an amphora, on the network that its load balancer asks for or that of the settings."""
    connection: Any = little
    driver = NeutronNetwork(SETTINGS, lambda _: connection)
    request = PortRequest(
        amphora_id=AmphoraId("0b9b34a6-1f3d-4d2e-8d2b-9a6f3f1c7a11"),
        load_balancer_id=LoadBalancerId("9d0c8a58-3d9c-4f2b-8b52-f1a6a9f4a001"),
        project_id=ProjectId("theirs"),
        purpose=PortPurpose.MANAGEMENT,
        network_id=None if network is None else NetworkId(network),
    )
    try:
        await driver.create_port(request)
    finally:
        await driver.close()
    asked: Mapping[str, Any] = little.asked[-1]
    return asked


@pytest.mark.parametrize("asked", [None, "1", "management"])
async def test_it_is_found_by_its_id_before_another_of_that_name(asked: str | None) -> None:
    port = await made(LittleNeutron(), asked)
    assert (port["network_id"], port["fixed_ips"]) == ("1", [{"subnet_id": "v4"}])


LACKING = pytest.mark.parametrize(
    "asked,told",
    [
        pytest.param("none", "Neutron knows no network 'none'", id="none"),
        pytest.param("twice", "Neutron knows 2 networks 'twice'", id="two"),
        pytest.param("3", "network '3' has no subnet in Neutron", id="without a subnet"),
    ],
)


@LACKING
async def test_one_that_cannot_be_used_is_a_fault_that_heals_and_nothing_is_made(asked: str, told: str) -> None:
    little = LittleNeutron()
    with pytest.raises(Retry, match=f"{told}; an availability zone asks for it") as caught:
        await made(little, asked)
    assert (caught.value.code, little.asked) == ("management-network", [])


@pytest.mark.parametrize("status", [400, 404])
async def test_what_neutron_refuses_of_it_is_a_fault_that_heals(status: int) -> None:
    """As when a group of the settings is deleted: no tenant can mend that, nor need touch anything when it is mended."""

    class WithoutTheGroup(LittleNeutron):
        def request(self, path: str, method: str, **words: Any) -> Any:
            if method == "PUT" and "security_groups" in (words.get("json") or {}).get("port", {}):
                refused = answer({"NeutronError": {"type": "SecurityGroupNotFound", "message": "no group g"}}, status)
                refused.request = requests.Request(method, f"http://neutron.example{path}").prepare()
                return refused
            return super().request(path, method, **words)

    with pytest.raises(Retry, match="no group g; see management_network and management_security_groups") as caught:
        await made(WithoutTheGroup())
    assert caught.value.code == "management-network"


@LACKING
async def test_before_a_zone_promises_it_it_is_refused_by_its_field(asked: str, told: str) -> None:
    connection: Any = LittleNeutron()
    driver = NeutronNetwork(SETTINGS, lambda _: connection)
    await driver.require_management_network("management", "the.field")
    with pytest.raises(Invalid, match=f"the.field: {told}"):
        await driver.require_management_network(asked, "the.field")
    await driver.close()


async def test_the_check_looks_at_the_subnet_that_amphorae_get() -> None:
    little = LittleNeutron()
    port = await made(little)
    connection: Any = little
    with in_this_thread():
        findings = trying.tried(Cloud(OpenStackSettings(), lambda _: connection), None, SETTINGS, None)
    assert [x["fixed_ips"][0]["subnet_id"] for x in little.asked] == ["v4"] * 3
    assert port["network_id"] == little.asked[-1]["network_id"]
    assert Grade.TROUBLE not in [x.grade for x in findings]
