"""The driver `nova` keeps every promise of its interface, with the real Nova of the lab."""

from __future__ import annotations

import pytest

from frontinus.model.ids import AmphoraId
from frontinus.model.placement import Placement
from frontinus.model.ports import Port, PortPurpose
from frontinus.testing import attach_conformance, compute_conformance, placement_conformance
from frontinus.testing.compute_conformance import ComputeBench
from frontinus.testing.exam import Check, NotExaminable

from tests.integration.drivers.compute.conftest import NovaSite

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(900),
    # Between parts of openstacksdk, when the tests themselves look.
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

UNSEEN = frozenset({"an end is told", "a lost link is told"})
"""Nova tells nobody by itself."""


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("check", [*compute_conformance.CHECKS, *attach_conformance.CHECKS], ids=str)
async def test_nova(check: Check[ComputeBench], nova_site: NovaSite) -> None:
    async def stop(amphora_id: AmphoraId) -> None:
        for server in nova_site.servers(amphora_id):
            nova_site.admin.compute.reset_server_state(server.id, "error")

    async def port(amphora_id: AmphoraId, purpose: PortPurpose) -> Port:
        return nova_site.port(amphora_id, purpose)

    async def unplug(amphora_id: AmphoraId, gone: Port) -> None:
        (server,) = nova_site.servers(amphora_id)
        nova_site.look.compute.delete_server_interface(gone.id, server=server.id)
        while any(x.port_id == gone.id for x in nova_site.look.compute.server_interfaces(server.id)):
            pass

    async def hide(amphora_id: AmphoraId) -> None:
        """It is asked for by its name, and has another."""
        (server,) = nova_site.servers(amphora_id)
        nova_site.look.compute.update_server(server.id, name=f"hidden-{amphora_id}")

    bench = ComputeBench(factory=nova_site.driver, patience=120.0, port=port, stop=stop, unplug=unplug, hide=hide)
    if check.name in UNSEEN:
        with pytest.raises(NotExaminable, match="sees nothing by itself"):
            await check.run(bench)
    else:
        await check.run(bench)


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("check", placement_conformance.CHECKS, ids=str)
async def test_nova_makes_servers_as_they_are_asked_for(
    check: Check[ComputeBench], nova_site: NovaSite, other_make: Placement
) -> None:
    """Looked up with openstacksdk: which flavor, of which tag the image, in which zone."""

    async def stop(amphora_id: AmphoraId) -> None:
        for server in nova_site.servers(amphora_id):
            nova_site.admin.compute.reset_server_state(server.id, "error")

    async def port(amphora_id: AmphoraId, purpose: PortPurpose) -> Port:
        return nova_site.port(amphora_id, purpose)

    async def made_as(amphora_id: AmphoraId) -> Placement:
        (server,) = nova_site.servers(amphora_id)
        tags = nova_site.look.image.get_image(server.image.id).tags
        return Placement(
            compute_flavor=server.flavor.original_name,
            amp_image_tag=tags[0],
            compute_zone=server.availability_zone,
        )

    await check.run(
        ComputeBench(
            # Without a zone in the settings Nova would take any where none is asked for.
            factory=lambda: nova_site.driver(availability_zone="nova"),
            patience=120.0,
            port=port,
            stop=stop,
            placement=other_make,
            made_as=made_as,
        )
    )
