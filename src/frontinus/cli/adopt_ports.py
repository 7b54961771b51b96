"""By which ports the amphorae of an Octavia hang on networks, asked of the network driver: for `frontinus adopt octavia`.

Recorded with the amphora, so that its first change finds them as they are and makes no others. Nothing outside is changed."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from frontinus.adoption.octavia import LeftAlone
from frontinus.cli.output import in_words
from frontinus.controller import plugging
from frontinus.drivers.network.interface import NetworkDriver
from frontinus.model.errors import CallerError, Retry
from frontinus.model.ids import NetworkId, SubnetId
from frontinus.model.ports import PORTS, Adoptee, Port, PortPurpose
from frontinus.model.tree import Amphora, LoadBalancerTree


async def hang(
    trees: Sequence[LoadBalancerTree], network: NetworkDriver
) -> tuple[list[LoadBalancerTree], list[LeftAlone]]:
    """The trees with the ports of their amphorae, where the driver makes ports; and those of which one was not found."""
    if PORTS not in network.features:
        return list(trees), []
    hung: list[LoadBalancerTree] = []
    left: list[LeftAlone] = []
    for tree in trees:
        try:
            hung.append(await _hung(tree, network))
        except (CallerError, Retry) as error:
            load_balancer = tree.load_balancer
            reason = f"its ports are not as they must be, says network driver {network.name}: {in_words(error)}"
            left.append(LeftAlone(kind="load balancer", id=tree.id, name=load_balancer.name, reason=reason))
    return hung, left


async def _hung(tree: LoadBalancerTree, network: NetworkDriver) -> LoadBalancerTree:
    network_of = {x: (await network.get_subnet(x)).network_id for x in plugging.member_subnets(tree)}
    found = [replace(x, ports=await _ports(tree, x, network_of, network)) for x in tree.amphorae]
    with_ports = replace(tree, amphorae=tuple(found))
    # Octavia's security group lets in just what ours would; of a pair that takes the addresses of both.
    return replace(with_ports, amphorae=tuple(_let_in(with_ports, x) for x in found))


async def _ports(
    tree: LoadBalancerTree, amphora: Amphora, network_of: dict[SubnetId, NetworkId], network: NetworkDriver
) -> tuple[Port, ...]:
    requests = plugging.port_requests(tree, amphora, network_of, exact=True)
    adoptee = Adoptee(
        amphora_id=amphora.id,
        compute_id=amphora.compute_id,
        management_address=amphora.management_address or "",
        vip_port_id=amphora.vrrp_port_id or tree.load_balancer.vip.port_id,
        subnets=tuple((x.network_id, x.subnet_ids) for x in requests if x.network_id is not None),
    )
    return await network.find_ports(adoptee)


def _let_in(tree: LoadBalancerTree, amphora: Amphora) -> Amphora:
    seen = {
        "allowed": plugging.wanted_traffic(tree, amphora),
        "security_group_ids": tree.load_balancer.vip_sg_ids,
        "interface": amphora.vrrp_interface,
    }
    ports = tuple(replace(x, **seen) if x.purpose is PortPurpose.VIP else x for x in amphora.ports)
    return replace(amphora, ports=ports)
