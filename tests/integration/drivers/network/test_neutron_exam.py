"""The driver `neutron` keeps every promise of its interface, with the real Neutron of the lab."""

from __future__ import annotations

import pytest

from frontinus.model.ids import PortId
from frontinus.testing import network_conformance, port_conformance
from frontinus.testing.exam import Check
from frontinus.testing.network_conformance import NetworkBench

from tests.integration.drivers.network.conftest import Site

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(600),
    # Between parts of openstacksdk, when the tests themselves look.
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("family", [pytest.param(0, id="IPv4"), pytest.param(2, id="IPv6")])
@pytest.mark.parametrize(
    "check",
    [*network_conformance.CHECKS, *network_conformance.WHERE_OTHERS_SEE_PORTS, *port_conformance.CHECKS],
    ids=str,
)
async def test_network(check: Check[NetworkBench], family: int, site: Site) -> None:
    subnet_id = site.subnet_ids[family]
    further = tuple(x for x in site.subnet_ids if x != subnet_id)

    async def vanish(port_id: PortId) -> None:
        site.look.network.delete_port(port_id, ignore_missing=False)

    bench = NetworkBench(
        factory=site.driver,
        subnet_id=subnet_id,
        further_subnet_ids=further,
        project_id=site.project_id,
        management_network=site.network_id,
        vanish=vanish,
    )
    await check.run(bench)
