"""Load balancers with listeners in TLS, and what is seen of their secrets."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from frontinus.drivers.amphora.interface import Rendered
from frontinus.model.edits import apply
from frontinus.model.enums import ListenerProtocol
from frontinus.model.ids import LoadBalancerId
from frontinus.model.tree import Listener, LoadBalancerTree

from tests.integration.controller.world import World

REFERENCE = "fake:one"


def tls(listener: Listener, reference: str = REFERENCE) -> Listener:
    return replace(listener, protocol=ListenerProtocol.TERMINATED_HTTPS, default_tls_container_ref=reference)


def refer(world: World, reference: str) -> Callable[[LoadBalancerTree], LoadBalancerTree]:
    """The edit by which the TLS listener refers to another secret."""

    def edit(tree: LoadBalancerTree) -> LoadBalancerTree:
        listener = next(x for x in tree.listeners if x.protocol_port == 443)
        return apply(tree, world.now, update=[tls(listener, reference)])

    return edit


async def with_tls_listener(world: World) -> LoadBalancerId:
    """A load balancer with a listener in clear that is served, and one in TLS that has just been asked for."""
    load_balancer_id = await world.create(80)
    await world.converge()
    tree = await world.assert_served(load_balancer_id)
    await world.add(load_balancer_id, tls(world.listener(load_balancer_id, 443, tree.pools[0].id)))
    return load_balancer_id


def runs(world: World) -> Rendered:
    (place,) = world.places.values()
    assert place.runs is not None
    return place.runs


async def listener_of(world: World, load_balancer_id: LoadBalancerId, port: int) -> Listener:
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    return next(x for x in tree.listeners if x.protocol_port == port)


async def shown(world: World, load_balancer_id: LoadBalancerId) -> dict[int, tuple[str, str | None, bool]]:
    """Of each listener's port: its provisioning status, the code of its fault, whether it is left out."""
    tree = await world.tree(load_balancer_id)
    assert tree is not None
    return {
        x.protocol_port: (
            x.provisioning_status.value,
            None if x.fault is None else x.fault.code,
            x.fault is not None and x.fault.left_out,
        )
        for x in tree.listeners
    }
