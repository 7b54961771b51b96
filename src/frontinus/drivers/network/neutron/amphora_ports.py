"""Ports of amphorae: one of a purpose on a network, in our own project, each with a security group of its own.

The group says what the request lets in, and goes with its port; between the making of one and of the other nothing is let
in. The port comes first and goes last, so whatever is left by a crash hangs on a port that is found by its name. By allowed
address pairs the amphora may send and be reached under the VIPs; what else it sends, Neutron drops (port security), which is
asked for here whatever the network's own setting. Ports that are not marked as ours are never changed, but for those taken
over from an Octavia.
Next: rules.py, neutron.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address

from frontinus.drivers.network.neutron import choice, names, rules
from frontinus.drivers.network.neutron.facts import NetworkFacts, PortFacts, RuleFacts, SecurityGroupFacts, SubnetFacts
from frontinus.drivers.network.neutron.names import Names
from frontinus.drivers.network.neutron.neutron import Neutron
from frontinus.drivers.network.neutron.vips import NONE_LEFT
from frontinus.drivers.openstack.trouble import Refused
from frontinus.model.errors import FrontinusError, Invalid, Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, PortId, SubnetId
from frontinus.model.ports import Adoptee, AllowedTraffic, Port, PortPurpose, PortRequest, TrafficProtocol

_ATTEMPTS = 4
_MAC_TAKEN = "MacAddressInUse"
_RULE_EXISTS = "SecurityGroupRuleExists"


@dataclass(frozen=True)
class Management:
    """How amphorae are managed: on which network, by its name or id; let in by which groups, or, where none is named, on
    which TCP ports by a group of their own."""

    network: str
    security_groups: tuple[str, ...]
    ports: tuple[int, ...]


class NoManagementNetwork(Retry):
    """Amphorae cannot be managed on the network that is asked for, or that of the settings; it can be mended in Neutron."""

    def __init__(self, lack: str, asked: NetworkId | None) -> None:
        advice = (
            "mend it, or set driver_options.neutron.management_network"
            if asked is None
            else "an availability zone asks for it (management_network)"
        )
        super().__init__(f"{lack}; {advice}", after=30.0, code="management-network")


@dataclass(frozen=True)
class _Wish:
    """A request, with what Neutron says of its network and subnets, in the request's order."""

    request: PortRequest
    network: NetworkFacts
    subnets: tuple[SubnetFacts, ...]
    allowed: tuple[AllowedTraffic, ...]
    groups: tuple[str, ...]
    """Groups that are others' than the port's own."""
    has_own_group: bool


class AmphoraPorts:
    """Every method blocks, and raises what the methods of the interface raise that are called like it. `project_id` of each
    is the project that our account works in."""

    def __init__(self, neutron: Neutron, marks: Names, management: Management) -> None:
        self._neutron = neutron
        self._names = marks
        self._management = management

    def create(self, request: PortRequest, project_id: str) -> Port:
        wish = self._wish(request)
        port = self._find(wish, project_id) or self._take_over(wish, project_id) or self._make(wish, project_id)
        tags = self._names.port_tags(request.amphora_id, request.load_balancer_id)
        if not set(tags) <= set(port.tags):
            self._neutron.set_port_tags(port.id, (*port.tags, *tags))
        groups = wish.groups
        if wish.has_own_group:
            groups = (self._own_group(wish, port, project_id), *groups)
        port = self._brought_to(wish, port, groups)
        return _as_port(
            port, request.amphora_id, request.purpose, wish.network, wish.subnets, wish.allowed, wish.groups
        )

    def delete(self, amphora_id: AmphoraId, port_id: PortId, project_id: str) -> None:
        port = self._neutron.port(port_id)
        if port is not None:
            if port.project_id != project_id:
                return
            if self._names.read_port(port) is None and port.name != names.octavias_port(amphora_id):
                return
        groups = self._neutron.groups(name=names.group_name(port_id), project_id=project_id)
        if port is None:
            # Somebody removed it; its group stayed.
            groups = [x for x in groups if self._names.read_group(x) == port_id]
        elif groups and port.security_groups:
            self._neutron.update_port(port_id, {"security_groups": []})
        for group in groups:
            self._neutron.delete_group(group.id)
        if port is not None:
            self._neutron.delete_port(port_id)

    def of_amphora(self, amphora_id: AmphoraId, project_id: str) -> tuple[Port, ...]:
        called = [names.port_name(amphora_id), names.octavias_port(amphora_id)]
        found = self._neutron.ports(name=called, project_id=project_id)
        ours = [(port, read) for port in found if (read := self._read(port, amphora_id)) is not None]
        if not ours:
            return ()
        ids = sorted({port.network_id for port, _ in ours})
        networks = {x.id: x for x in self._neutron.networks(id=ids)}
        subnets = self._neutron.subnets(network_id=ids)
        own = {names.group_name(port.id) for port, _ in ours}
        groups = {x.id for x in self._neutron.groups(name=sorted(own), project_id=project_id)}
        by_group: dict[str, list[RuleFacts]] = {x: [] for x in groups}
        for rule in self._neutron.rules(security_group_id=sorted(groups)) if groups else ():
            by_group[rule.security_group_id].append(rule)
        return tuple(
            _as_port(
                port,
                read[0],
                read[1],
                networks.get(port.network_id, NetworkFacts(id=port.network_id)),
                [x for x in subnets if x.network_id == port.network_id],
                self._shown(port, read[1], by_group),
                tuple(x for x in port.security_groups if x not in groups),
            )
            for port, read in sorted(ours, key=lambda x: (list(PortPurpose).index(x[1][1]), x[0].id))
        )

    def of_octavia(self, adoptee: Adoptee, project_id: str) -> tuple[Port, ...]:
        """The ports of somebody else's amphora: that for management, then one for each network. Changes nothing. Raises
        Invalid naming what is not there, or what could not become ours."""
        server = self._neutron.ports(device_id=adoptee.compute_id or "")
        if adoptee.compute_id is None or not server:
            raise Invalid("compute_id", f"Neutron knows no port of server {adoptee.compute_id}")
        foreign = next((x for x in server if x.project_id != project_id), None)
        if foreign is not None:
            raise Invalid("port", _foreign(foreign, project_id))
        subnets = self._neutron.subnets(network_id=sorted({x.network_id for x in server}))
        networks = {x.id: x for x in self._neutron.networks(id=sorted({x.network_id for x in server}))}

        def as_found(port: PortFacts, purpose: PortPurpose) -> Port:
            on_network = [x for x in subnets if x.network_id == port.network_id]
            facts = networks.get(port.network_id, NetworkFacts(id=port.network_id))
            return _as_port(port, adoptee.amphora_id, purpose, facts, on_network, (), ())

        management = _only(
            [x for x in server if any(f.ip_address == adoptee.management_address for f in x.fixed_ips)],
            "management_address",
            f"no port of server {adoptee.compute_id} has the address {adoptee.management_address}",
        )
        found = [as_found(management, PortPurpose.MANAGEMENT)]
        for number, (network_id, subnet_ids) in enumerate(adoptee.subnets):
            on_network = [x for x in server if x.network_id == network_id and x.id != management.id]
            if not number:
                on_network = [x for x in on_network if x.id == adoptee.vip_port_id]
            port = _only(on_network, "port", f"server {adoptee.compute_id} has no port on network {network_id}")
            missing = set(subnet_ids) - {x.subnet_id for x in port.fixed_ips}
            if missing:
                raise Invalid("subnet_id", f"port {port.id} has no address on subnet {min(missing)}")
            found.append(as_found(port, PortPurpose.MEMBER if number else PortPurpose.VIP))
        return tuple(found)

    def of_load_balancer(self, load_balancer_id: LoadBalancerId, project_id: str) -> list[tuple[AmphoraId, PortId]]:
        marks = list(self._names.port_marks(load_balancer_id))
        found = self._neutron.ports(description=marks, project_id=project_id)
        return [(read[0], x.id) for x in found if (read := self._names.read_port(x)) is not None]

    def groups_of_load_balancer(self, load_balancer_id: LoadBalancerId, project_id: str) -> list[SecurityGroupFacts]:
        mark = self._names.group_mark(load_balancer_id)
        return [
            x
            for x in self._neutron.groups(description=mark, project_id=project_id)
            if self._names.read_group(x) is not None
        ]

    def owned(self, project_id: str) -> list[tuple[PortFacts, AmphoraId, LoadBalancerId]]:
        """Every port of an amphora, and whose."""
        return self._owned(self._neutron.ports(project_id=project_id))

    def surveyed(
        self, project_id: str
    ) -> tuple[list[tuple[PortFacts, AmphoraId, LoadBalancerId]], list[SecurityGroupFacts]]:
        """The same, and groups whose port is not there: somebody else removed it, since with us it goes after its group."""
        # Groups first: each was made after its port.
        groups = [(x, self._names.read_group(x)) for x in self._neutron.groups(project_id=project_id)]
        ports = self._neutron.ports(project_id=project_id)
        there = {x.id for x in ports}
        left = [group for group, port_id in groups if port_id is not None and port_id not in there]
        return self._owned(ports), left

    def discard_group(self, group_id: str, project_id: str) -> None:
        """The group is gone, if it is ours and its port is not there."""
        for group in self._neutron.groups(id=group_id, project_id=project_id):
            port_id = self._names.read_group(group)
            if port_id is not None and self._neutron.port(port_id) is None:
                self._neutron.delete_group(group.id)

    def _owned(self, ports: Iterable[PortFacts]) -> list[tuple[PortFacts, AmphoraId, LoadBalancerId]]:
        found = ((x, self._names.read_port(x)) for x in ports)
        return [(port, read[0], read[2]) for port, read in found if read is not None]

    def _read(self, port: PortFacts, amphora_id: AmphoraId) -> tuple[AmphoraId, PortPurpose] | None:
        """Whose it is and what for; also of one that an Octavia made, and nobody has taken over yet."""
        read = self._names.read_port(port)
        if read is not None:
            return read[:2]
        return (amphora_id, PortPurpose.VIP) if port.name == names.octavias_port(amphora_id) else None

    # What is asked for

    def _wish(self, request: PortRequest) -> _Wish:
        """Raises Invalid naming what does not exist."""
        if request.purpose is PortPurpose.MANAGEMENT:
            network, subnet = self.management_subnet(request.network_id)
            allowed = tuple(AllowedTraffic(TrafficProtocol.TCP, x) for x in self._management.ports)
            groups = self._management.security_groups
            return _Wish(request, network, (subnet,), () if groups else allowed, groups, not groups)
        found = None if request.network_id is None else self._neutron.network(request.network_id)
        if found is None:
            raise Invalid("network_id", f"network {request.network_id} does not exist")
        on_network = {x.id: x for x in self._neutron.subnets(network_id=found.id)}
        for subnet_id in request.subnet_ids:
            if subnet_id not in on_network:
                is_elsewhere = self._neutron.subnet(subnet_id) is not None
                told = f"is not on network {found.id}" if is_elsewhere else "does not exist"
                raise Invalid("subnet_id", f"subnet {subnet_id} {told}")
        wanted = tuple(on_network[x] for x in request.subnet_ids)
        return _Wish(request, found, wanted, request.allowed, request.security_group_ids, has_own_group=True)

    def management_subnet(self, asked: NetworkId | None = None) -> tuple[NetworkFacts, SubnetFacts]:
        """Of the network that an availability zone asks for by its id or name, or that of the settings. Raises
        NoManagementNetwork while there is not just one of that name, with a subnet."""
        wanted = asked or self._management.network
        found = self._neutron.networks_called(wanted)
        if len(found) != 1:
            count = "no network" if not found else f"{len(found)} networks"
            raise NoManagementNetwork(f"Neutron knows {count} {wanted!r}", asked)
        subnet = choice.for_management(self._neutron.subnets(network_id=found[0].id))
        if subnet is None:
            raise NoManagementNetwork(f"network {wanted!r} has no subnet in Neutron", asked)
        return found[0], subnet

    # The port

    def _find(self, wish: _Wish, project_id: str) -> PortFacts | None:
        amphora_id, purpose = wish.request.amphora_id, wish.request.purpose
        found = self._neutron.ports(name=names.port_name(amphora_id), project_id=project_id, network_id=wish.network.id)
        ours = [x for x in found if (read := self._names.read_port(x)) is not None and read[1] is purpose]
        return min(ours, key=lambda x: x.id, default=None)

    def _take_over(self, wish: _Wish, project_id: str) -> PortFacts | None:
        """The port that is on record as this one, and that another program made: ours from now on, in one step."""
        request = wish.request
        port = None if request.port_id is None else self._neutron.port(request.port_id)
        if port is None or port.network_id != wish.network.id or self._names.read_port(port) is not None:
            return None
        if port.project_id != project_id:
            raise Invalid("port", _foreign(port, project_id))
        mark = self._names.port_mark(request.purpose, request.load_balancer_id)
        body = {"name": names.port_name(request.amphora_id), "description": mark}
        return self._neutron.update_port(port.id, body)

    def _make(self, wish: _Wish, project_id: str) -> PortFacts:
        request = wish.request
        for attempt in range(_ATTEMPTS):
            mac = names.port_mac(request.amphora_id, request.purpose, wish.network.id, attempt)
            try:
                return self._neutron.create_port(
                    name=names.port_name(request.amphora_id),
                    description=self._names.port_mark(request.purpose, request.load_balancer_id),
                    network_id=wish.network.id,
                    project_id=project_id,
                    mac_address=mac,
                    fixed_ips=[{"subnet_id": x.id} for x in wish.subnets],
                    security_groups=[],
                    port_security_enabled=True,
                    admin_state_up=True,
                )
            except Refused as refused:
                if refused.kind != _MAC_TAKEN:
                    raise _meaning(refused, wish) from refused
                found = self._find(wish, project_id)  # whoever was quicker may have been asked the same
                if found is not None:
                    return found
        raise Retry(
            f"Neutron has given every MAC that a port of amphora {request.amphora_id} may have to others",
            after=30.0,
            code="neutron-refused",
        )

    def _brought_to(self, wish: _Wish, port: PortFacts, groups: Sequence[str]) -> PortFacts:
        request = wish.request
        wanted = [x.id for x in wish.subnets]
        changes: dict[str, object] = {}
        if {x.subnet_id for x in port.fixed_ips} != set(wanted):
            kept = {x.subnet_id: x.ip_address for x in port.fixed_ips}
            changes["fixed_ips"] = [{"subnet_id": x} | ({"ip_address": kept[x]} if x in kept else {}) for x in wanted]
        if set(port.security_groups) != set(groups):
            changes["security_groups"] = list(groups)
        if {ip_address(x.ip_address.partition("/")[0]) for x in port.allowed_address_pairs} != set(
            map(ip_address, request.vips)
        ):
            changes["allowed_address_pairs"] = [{"ip_address": x} for x in request.vips]
        if port.qos_policy_id != request.qos_policy_id:
            changes["qos_policy_id"] = request.qos_policy_id
        if not port.port_security_enabled:
            changes["port_security_enabled"] = True
        if not changes:
            return port
        try:
            return self._neutron.update_port(port.id, changes)
        except Refused as refused:
            raise _meaning(refused, wish) from refused

    # Its group

    def _own_group(self, wish: _Wish, port: PortFacts, project_id: str) -> str:
        """The group of the port, letting in what is asked for and nothing else."""
        name = names.group_name(port.id)
        found = self._neutron.groups(name=name, project_id=project_id)
        group = min(found, key=lambda x: x.id, default=None)
        if group is None:
            mark = self._names.group_mark(wish.request.load_balancer_id)
            group = self._neutron.create_group(name=name, description=mark, project_id=project_id)
        have = rules.read(self._neutron.rules(security_group_id=group.id))
        # Where a user's groups decide, they decide about ICMP too.
        is_reached = wish.request.purpose is not PortPurpose.MEMBER and not wish.request.security_group_ids
        wanted = rules.wanted(wish.allowed, ping=is_reached)
        missing = sorted(wanted - have.keys(), key=repr)
        if missing:
            self._add_rules(group.id, missing)
        for rule in sorted(have.keys() - wanted, key=repr):
            self._neutron.delete_rule(have[rule])
        return group.id

    def _add_rules(self, group_id: str, missing: Iterable[rules.Rule]) -> None:
        bodies = [x.as_body(group_id) for x in missing]
        try:
            self._neutron.create_rules(bodies)
        except Refused as refused:
            if refused.kind != _RULE_EXISTS:
                raise
            # Somebody does the same at this moment; Neutron takes all of them or none.
            for body in bodies:
                try:
                    self._neutron.create_rules([body])
                except Refused as one:
                    if one.kind != _RULE_EXISTS:
                        raise

    def _shown(
        self, port: PortFacts, purpose: PortPurpose, by_group: Mapping[str, Sequence[RuleFacts]]
    ) -> tuple[AllowedTraffic, ...]:
        return rules.allowed(rules.read(x for group in port.security_groups for x in by_group.get(group, ())))


def _as_port(
    port: PortFacts,
    amphora_id: AmphoraId,
    purpose: PortPurpose,
    network: NetworkFacts,
    subnets: Iterable[SubnetFacts],
    allowed: tuple[AllowedTraffic, ...],
    groups: tuple[str, ...],
) -> Port:
    """In the order of `subnets`; of a port that is only listed, in Neutron's."""
    by_id: dict[SubnetId, SubnetFacts] = {x.id: x for x in subnets}
    order = {x: number for number, x in enumerate(by_id)}
    addresses = sorted((x for x in port.fixed_ips if x.subnet_id in by_id), key=lambda x: order[x.subnet_id])
    return Port(
        id=port.id,
        amphora_id=amphora_id,
        purpose=purpose,
        network_id=NetworkId(port.network_id),
        mac=port.mac_address,
        mtu=network.mtu,
        addresses=tuple(by_id[x.subnet_id].as_address(x.ip_address) for x in addresses),
        attachment=names.ATTACHMENT,
        allowed=allowed,
        security_group_ids=tuple(sorted(groups)) if purpose is not PortPurpose.MANAGEMENT else (),
        qos_policy_id=port.qos_policy_id if purpose is PortPurpose.VIP else None,
    )


def _only(found: Sequence[PortFacts], field: str, otherwise: str) -> PortFacts:
    if len(found) != 1:
        raise Invalid(field, otherwise if not found else f"there are {len(found)} such ports: {found[0].id} …")
    return found[0]


def _foreign(port: PortFacts, project_id: str) -> str:
    return (
        f"port {port.id} is of project {port.project_id}, and our account works in {project_id}; let it work in the project "
        "in which the port was made"
    )


def _meaning(refused: Refused, wish: _Wish) -> FrontinusError:
    """Of a refusal to make or to widen a port."""
    if refused.kind in NONE_LEFT and wish.subnets:
        named = next((x for x in wish.subnets if x.id in refused.detail), wish.subnets[0])
        return choice.no_free_address(named)
    if wish.request.purpose is PortPurpose.MANAGEMENT:
        if refused.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
            return refused
        # Nothing of it is the tenant's: whoever runs the cloud mends it, and it goes on.
        return Retry(
            f"Neutron refuses a port for management: {refused.detail}; see management_network and "
            "management_security_groups of driver_options.neutron",
            after=refused.after,
            code="management-network",
        )
    if refused.status == HTTPStatus.BAD_REQUEST:
        return Invalid("port", refused.detail)
    if refused.status == HTTPStatus.NOT_FOUND:
        return Invalid("port", f"{refused.detail}; it may have been removed since it was named")
    return refused
