"""Have compute make an amphora's place, and wait for the agent in it: for an amphora of a load balancer, or a spare.

Returns what is to be recorded, and records nothing: who calls does, with his own proof that he may. Repeating it brings
what is half made to the same end. Next: act.py, spares.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from msgspec.structs import replace

from frontinus.controller import plugging
from frontinus.controller.hands import Hands
from frontinus.model.boot import Identity
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId
from frontinus.model.placement import MANAGEMENT_NETWORK, UNSPECIFIED, Placement, field_of
from frontinus.model.ports import Port, PortPurpose
from frontinus.model.tree import Amphora, LoadBalancerTree

LATER_S = 30.0
AGENT_POLL_S = 0.02
"""Pause between two questions to an agent that starts. Short, since a `process` amphora is up in a tenth of a second."""


async def build(amphora: Amphora, tree: LoadBalancerTree, hands: Hands) -> Amphora:
    """Make its place, with its ports, and give the start: the amphora as it is then. Raises what drivers raise."""
    placement = tree.load_balancer.placement or UNSPECIFIED
    _require_honoured(placement, hands)
    ports: tuple[Port, ...] = ()
    address = hands.compute.management_address(amphora.id)
    if hands.has_ports:
        management = await hands.network.create_port(plugging.management_request(tree, amphora))
        address = management.addresses[0].address
        # What is new knows nothing of what was configured.
        others = [replace(x, interface=None) for x in amphora.ports if x.purpose is not PortPurpose.MANAGEMENT]
        ports = (management, *others)
    boot = hands.amphora_driver.boot_files(amphora.id, address or "")
    place = await hands.compute.build(amphora.id, tree.id, boot, ports, placement)
    return replace(
        amphora,
        compute_id=place.compute_id,
        management_address=place.management_address or address,
        host=place.host,
        compute_flavor=place.compute_flavor,
        image_id=place.image_id,
        compute_zone=place.zone,
        **recorded_identity(boot.identity),
        birth_fingerprint=None if boot.identity is None else boot.identity.fingerprint or None,
        **plugging.recorded(ports),
    )


def recorded_identity(identity: Identity | None) -> dict[str, object]:
    """The fields of an amphora that tell of it; none without one."""
    if identity is None:
        return {}
    return {
        "identity_digest": identity.digest,
        "certificate_expires_at": identity.expires_at,
        "certificate_renew_at": identity.renew_at,
    }


def _require_honoured(placement: Placement, hands: Hands) -> None:
    """What was promised by other drivers than are here now is waited for: never is something else built. Raises Retry."""
    honoured = hands.compute.placement_words | (hands.network.features & {MANAGEMENT_NETWORK})
    for word in sorted(placement.asked - honoured):
        raise Retry(
            f"by its {field_of(word).removesuffix('_id').replace('_', ' ')} the load balancer asks for {word} "
            f"{getattr(placement, word)!r}, which compute driver {hands.compute.name} with network driver "
            f"{hands.network.name} cannot give; run controllers with the drivers that it was made with",
            after=LATER_S,
            code="placement-refused",
        )


async def first_answer(amphora: Amphora, tree: LoadBalancerTree, hands: Hands) -> Amphora:
    """Wait until the agent answers: the amphora with what it said of itself. Raises Retry when the time for a start is
    over."""
    limit = hands.boot_timeout.total_seconds()
    deadline = asyncio.get_running_loop().time() + limit
    while True:
        try:
            info = await hands.amphora_driver.info(amphora, tree)
        except Retry as not_yet:
            if asyncio.get_running_loop().time() > deadline:
                raise Retry(
                    f"the agent of amphora {amphora.id} did not answer within {limit:.0f} s of its start ({not_yet.reason})",
                    after=1.0,
                    code="agent-did-not-start",
                ) from not_yet
            await asyncio.sleep(AGENT_POLL_S)
        else:
            return replace(amphora, speaks_plain=info.extension is None, balancer_version=info.balancer_version or None)


async def delete_ports(amphora_id: AmphoraId, hands: Hands, recorded: Iterable[Port] = ()) -> None:
    """Whatever ports the amphora has are gone; also what is left of those on record that somebody else removed. Its place is
    gone."""
    if hands.has_ports:
        listed = await hands.network.list_ports(amphora_id)
        for port_id in dict.fromkeys(x.id for x in (*listed, *recorded)):
            await hands.network.delete_port(amphora_id, port_id)
