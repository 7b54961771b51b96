"""Ports of VIPs: made for a load balancer in its tenant's project, or a user's own that he brings, and given back.

A port that we make has one MAC per load balancer, so two who make it at once get one (names.py). A port that is brought is
claimed by its device, on condition that nobody has changed it meanwhile. Nothing is remembered here: each call looks first.

Neutron's VIP port is never bound to a host: the address is a port's so that nobody else has it and a floating IP can be put on it.
Amphorae answer for it by allowed address pairs (amphora_ports.py), so it and its floating IP outlive any amphora.
Next: choice.py for what is decided, neutron.py for what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address

from frontinus.drivers.network.neutron import choice, names
from frontinus.drivers.network.neutron.facts import FixedIp, PortFacts, SubnetFacts
from frontinus.drivers.network.neutron.names import Names
from frontinus.drivers.network.neutron.neutron import Neutron
from frontinus.drivers.openstack.trouble import Refused
from frontinus.model.errors import Conflict, FrontinusError, Invalid, OverQuota, Retry, WorldError
from frontinus.model.ids import LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId
from frontinus.model.network import AllocatedVip, VipRequest, check_additional_subnets
from frontinus.model.tree import AdditionalVip, Vip

_ATTEMPTS = 4
_TAKEN = frozenset({"IpAddressAlreadyAllocated", "IpAddressInUse"})
_MAC_TAKEN = "MacAddressInUse"
NONE_LEFT = frozenset({"IpAddressGenerationFailure", "IpAddressGenerationFailureAllSubnets"})
OVER_QUOTA = "OverQuota"


@dataclass(frozen=True)
class _Wish:
    """One VIP: where it shall be, and as what. `brought` is the port of a user; `field` is that of the address."""

    is_first: bool
    subnet: SubnetFacts
    address: str | None
    field: str
    brought: PortFacts | None = None


class Vips:
    """Every method blocks, and raises what the methods of the interface raise that are called like it."""

    def __init__(self, neutron: Neutron, marks: Names) -> None:
        self._neutron = neutron
        self._names = marks

    def allocate(self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest) -> AllocatedVip:
        held = self._held(load_balancer_id, project_id)
        wishes = self._wishes(load_balancer_id, project_id, request, held)
        given: list[PortFacts] = []
        fresh: list[PortFacts] = []
        try:
            for wish in wishes:
                if wish.brought is not None:
                    port, is_new = self._claim(load_balancer_id, wish.brought, wish)
                else:
                    port, is_new = self._take(load_balancer_id, project_id, wish, held)
                given.append(port)
                fresh += [port] if is_new else []
        except FrontinusError:
            for port in fresh:
                try:
                    self._give_back(load_balancer_id, port)
                except WorldError:
                    break  # the sweeper finds it by its mark
            raise
        return _allocated(wishes, given)

    def preview(self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest) -> AllocatedVip:
        held = self._held(load_balancer_id, project_id)
        wishes = self._wishes(load_balancer_id, project_id, request, held)
        return _allocated(wishes, [self._foreseen(x, held) for x in wishes])

    def release(
        self, load_balancer_id: LoadBalancerId, vip: Vip, additional: Sequence[AdditionalVip], *, port_owned: bool
    ) -> None:
        for port_id, is_owned in ((vip.port_id, port_owned), *((x.port_id, x.port_owned) for x in additional)):
            port = None if port_id is None else self._neutron.port(port_id)
            if port is None or names.holder(port) != load_balancer_id:
                continue
            if is_owned:
                self._neutron.delete_port(port.id)
                if not self._names.is_our_vip(port):
                    self._drop_octavias_group(load_balancer_id)
            else:
                self._let_go(load_balancer_id, port)

    def release_all(self, load_balancer_id: LoadBalancerId) -> None:
        """Those too that were never recorded."""
        device = names.device_of(load_balancer_id)
        tagged = self._neutron.ports(tags=f"{self._names.tag},{device}")
        found = {x.id: x for x in (*self._neutron.ports(device_id=device), *tagged)}
        for port in found.values():
            if self._names.read_port(port) is None:
                self._give_back(load_balancer_id, port)

    def held(self) -> list[tuple[PortFacts, LoadBalancerId]]:
        """Every port that is a VIP, or was about to become one, and whose."""
        made = self._neutron.ports(description=list(self._names.vip_marks))
        brought = [x for x in self._neutron.ports(tags=self._names.tag) if self._names.read_port(x) is None]
        by_id = {x.id: x for x in (*made, *brought)}
        found = [(x, names.holder(x) or names.tagged_holder(x)) for x in by_id.values()]
        return [(port, holder) for port, holder in found if holder is not None]

    # What is asked for

    def _wishes(
        self,
        load_balancer_id: LoadBalancerId,
        project_id: ProjectId,
        request: VipRequest,
        held: Sequence[PortFacts],
    ) -> list[_Wish]:
        first = self._first(load_balancer_id, project_id, request, held)
        wishes = [first]
        for number, further in enumerate(request.additional):
            field = f"load_balancer.additional_vips[{number}]"
            if further.port_id is not None:
                port = self._user_port(load_balancer_id, project_id, further.port_id, f"{field}.port_id")
                fixed = choice.address_of_port(port, further.subnet_id, further.address or None, f"{field}.port_id")
                subnet = self._subnet(fixed.subnet_id, f"{field}.subnet_id")
                wishes.append(_Wish(False, subnet, fixed.ip_address, f"{field}.ip_address", port))
                continue
            subnet = self._subnet(further.subnet_id, f"{field}.subnet_id")
            wishes.append(
                _Wish(False, subnet, _usable(further.address, subnet, f"{field}.ip_address"), f"{field}.ip_address")
            )
        place = Vip(address="", subnet_id=first.subnet.id, network_id=first.subnet.network_id, port_id=PortId(""))
        check_additional_subnets(place, [(x.subnet.id, x.subnet.network_id) for x in wishes[1:]])
        return wishes

    def _first(
        self,
        load_balancer_id: LoadBalancerId,
        project_id: ProjectId,
        request: VipRequest,
        held: Sequence[PortFacts],
    ) -> _Wish:
        if request.port_id is not None:
            port = self._user_port(load_balancer_id, project_id, request.port_id, "vip_port_id")
            fixed = choice.address_of_port(port, request.subnet_id, request.address, "vip_port_id")
            return _Wish(True, self._subnet(fixed.subnet_id, "vip_subnet_id"), fixed.ip_address, "vip_address", port)
        if request.network_id is not None:
            subnet = self._subnet_on(request.network_id, request, held)
        elif request.subnet_id is not None:
            subnet = self._subnet(request.subnet_id, "vip_subnet_id")
        else:
            raise Invalid("vip_subnet_id", "name a port, a network or a subnet")
        return _Wish(True, subnet, _usable(request.address, subnet, "vip_address"), "vip_address")

    def _subnet_on(self, network_id: NetworkId, request: VipRequest, held: Sequence[PortFacts]) -> SubnetFacts:
        if self._neutron.network(network_id) is None:
            raise Invalid("vip_network_id", f"network {network_id} does not exist")
        subnets = self._neutron.subnets(network_id=network_id)
        if request.subnet_id is None and request.address is None:
            # What was chosen stays, however full the subnets are by now.
            before = {fixed.subnet_id for x in held if self._is_first(x) for fixed in x.fixed_ips}
            kept = next((x for x in subnets if x.id in before), None)
            if kept is not None:
                return kept
        return choice.subnet_on_network(network_id, subnets, request, self._neutron.free_addresses(network_id))

    def _subnet(self, subnet_id: SubnetId, field: str) -> SubnetFacts:
        found = self._neutron.subnet(subnet_id)
        if found is None:
            raise Invalid(field, f"subnet {subnet_id} does not exist")
        return found

    def _user_port(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, port_id: PortId, field: str
    ) -> PortFacts:
        port = self._neutron.port(port_id)
        if port is None or port.project_id != project_id:
            raise Invalid(field, f"port {port_id} does not exist in the load balancer's project")
        if port.device_id and names.holder(port) != load_balancer_id:
            raise Invalid(field, f"port {port_id} is in use: its device is {port.device_id}")
        return port

    # Ports that we make

    def _held(self, load_balancer_id: LoadBalancerId, project_id: ProjectId) -> list[PortFacts]:
        """The ports that were made for the load balancer, by us or by an Octavia that it comes from."""
        name = names.vip_name(load_balancer_id)
        return [
            x
            for x in self._neutron.ports(device_id=names.device_of(load_balancer_id), project_id=project_id)
            if names.holder(x) == load_balancer_id and (x.name == name or x.description in self._names.vip_marks)
        ]

    def _take(
        self,
        load_balancer_id: LoadBalancerId,
        project_id: ProjectId,
        wish: _Wish,
        held: Sequence[PortFacts],
    ) -> tuple[PortFacts, bool]:
        """The port, and whether it was made just now."""
        found = self._fitting(load_balancer_id, wish, held)
        is_new = found is None
        if found is None:
            found, is_new = self._make(load_balancer_id, project_id, wish)
        if not set(self._names.vip_tags(load_balancer_id)) <= set(found.tags):
            self._neutron.set_port_tags(found.id, (*found.tags, *self._names.vip_tags(load_balancer_id)))
        return found, is_new

    def _make(self, load_balancer_id: LoadBalancerId, project_id: ProjectId, wish: _Wish) -> tuple[PortFacts, bool]:
        fixed = {"subnet_id": wish.subnet.id} | ({} if wish.address is None else {"ip_address": wish.address})
        for attempt in range(_ATTEMPTS):
            try:
                made = self._neutron.create_port(
                    name=names.vip_name(load_balancer_id),
                    description=self._names.vip_mark(is_first=wish.is_first),
                    network_id=wish.subnet.network_id,
                    project_id=project_id,
                    device_id=names.device_of(load_balancer_id),
                    device_owner=names.DEVICE_OWNER,
                    mac_address=names.vip_mac(load_balancer_id, wish.subnet.id, attempt, is_first=wish.is_first),
                    fixed_ips=[fixed],
                    # Nothing hangs on it, so nothing is filtered at it; nor does the tenant's default group show on it.
                    security_groups=[],
                    admin_state_up=False,
                )
            except Refused as refused:
                if refused.kind != _MAC_TAKEN and refused.kind not in _TAKEN:
                    raise _meaning(refused, wish) from refused
                # Whoever was quicker may have been asked the same.
                found = self._fitting(load_balancer_id, wish, self._held(load_balancer_id, project_id))
                if found is not None:
                    return found, False
                if refused.kind in _TAKEN:
                    raise Conflict(wish.field, f"{wish.address} is in use") from refused
            else:
                return made, True
        raise Retry(
            f"Neutron has given every MAC that the VIP of load balancer {load_balancer_id} may have to others",
            after=30.0,
            code="neutron-refused",
        )

    def _fitting(self, load_balancer_id: LoadBalancerId, wish: _Wish, held: Sequence[PortFacts]) -> PortFacts | None:
        """The port that was made for this VIP. Raises Conflict when it has another address."""
        for port in held:
            if not self._is_for(wish, port):
                continue
            address = port.address_on(wish.subnet.id)
            if address is None or (wish.address is not None and ip_address(address) != ip_address(wish.address)):
                had = ", ".join(x.ip_address for x in port.fixed_ips)
                raise Conflict(wish.field, f"load balancer {load_balancer_id} has address {had} already")
            return port
        return None

    def _is_for(self, wish: _Wish, port: PortFacts) -> bool:
        """Whether a port that was made for the load balancer is that of this VIP. An Octavia has all of them on one."""
        if wish.is_first:
            return self._is_first(port)
        is_octavias = port.description not in self._names.vip_marks
        return (is_octavias or not self._is_first(port)) and port.address_on(wish.subnet.id) is not None

    def _is_first(self, port: PortFacts) -> bool:
        return port.description != self._names.vip_mark(is_first=False)

    def _foreseen(self, wish: _Wish, held: Sequence[PortFacts]) -> PortFacts:
        """The port as it would be. Raises Conflict, NoFreeAddress."""
        if wish.brought is not None:
            return wish.brought
        for port in held:
            if self._is_for(wish, port) and port.address_on(wish.subnet.id) is not None:
                return port
        if wish.address is not None:
            taken = self._neutron.ports(
                network_id=wish.subnet.network_id,
                fixed_ips=[f"subnet_id={wish.subnet.id}", f"ip_address={wish.address}"],
            )
            if taken:
                raise Conflict(wish.field, f"{wish.address} is in use")
            address = wish.address
        else:
            ports = self._neutron.ports(fixed_ips=f"subnet_id={wish.subnet.id}")
            address = choice.some_free_address(wish.subnet, [x.ip_address for p in ports for x in p.fixed_ips])
        return _imagined(wish, address)

    # Ports that users bring

    def _claim(self, load_balancer_id: LoadBalancerId, port: PortFacts, wish: _Wish) -> tuple[PortFacts, bool]:
        """The port, ours as long as the load balancer is there, and whether it was not before. Raises Conflict when another
        was quicker."""
        if names.holder(port) == load_balancer_id:
            return port, False
        # Tags first: a port that has them and is nobody's is found, one that is claimed and has none would not be.
        for tag in self._names.vip_tags(load_balancer_id):
            self._neutron.add_port_tag(port.id, tag)
        seen = self._neutron.port(port.id)
        if seen is not None and not seen.device_id:
            try:
                claimed = self._neutron.update_port(
                    port.id,
                    {"device_id": names.device_of(load_balancer_id), "device_owner": names.DEVICE_OWNER},
                    revision=seen.revision_number,
                )
            except Refused as refused:
                if refused.status != HTTPStatus.PRECONDITION_FAILED:
                    raise
            else:
                return claimed, True
        elif seen is not None and names.holder(seen) == load_balancer_id:
            return seen, False
        self._neutron.remove_port_tag(port.id, names.device_of(load_balancer_id))
        raise Conflict(wish.field, f"port {port.id} has just been taken by another")

    def _let_go(self, load_balancer_id: LoadBalancerId, port: PortFacts) -> None:
        """The port is its user's alone. By the load balancer's tag it is found until the last of it that matters is gone."""
        if names.holder(port) == load_balancer_id:
            self._neutron.update_port(port.id, {"device_id": "", "device_owner": ""})
        self._neutron.remove_port_tag(port.id, names.device_of(load_balancer_id))
        left = self._neutron.port(port.id)
        if left is not None and not left.device_id and names.tagged_holder(left) is None:
            self._neutron.remove_port_tag(port.id, self._names.tag)

    def _drop_octavias_group(self, load_balancer_id: LoadBalancerId) -> None:
        """Of a load balancer that was taken over. None of ours is called so."""
        for group in self._neutron.groups(name=names.octavias_group(load_balancer_id)):
            try:
                self._neutron.delete_group(group.id)
            except Refused as refused:
                if refused.status != HTTPStatus.CONFLICT:  # somebody else has it on a port of his
                    raise

    def _give_back(self, load_balancer_id: LoadBalancerId, port: PortFacts) -> None:
        if self._names.is_our_vip(port):
            self._neutron.delete_port(port.id)
        else:
            self._let_go(load_balancer_id, port)


def _usable(text: str | None, subnet: SubnetFacts, field: str) -> str | None:
    """The address in its one form. An empty one is one that nobody asks for only where it cannot be said otherwise."""
    if text is None or (not text and field != "vip_address"):
        return None
    address = choice.parsed(text, field)
    choice.require_usable(address, subnet, field)
    return str(address)


def _meaning(refused: Refused, wish: _Wish) -> FrontinusError:
    """Of a refusal to make a port."""
    if refused.kind in NONE_LEFT:
        return choice.no_free_address(wish.subnet)
    if refused.kind == OVER_QUOTA:
        return OverQuota("port", f"the project may have no more ports in Neutron: {refused.detail}")
    if refused.status == HTTPStatus.BAD_REQUEST:
        return Invalid(wish.field, refused.detail)
    return refused


def _imagined(wish: _Wish, address: str) -> PortFacts:
    return PortFacts(
        id=PortId("00000000-0000-0000-0000-000000000000"),
        network_id=wish.subnet.network_id,
        fixed_ips=(FixedIp(subnet_id=wish.subnet.id, ip_address=address),),
    )


def _allocated(wishes: Sequence[_Wish], ports: Sequence[PortFacts]) -> AllocatedVip:
    def address(wish: _Wish, port: PortFacts) -> str:
        return wish.address or port.address_on(wish.subnet.id) or ""

    further = zip(wishes[1:], ports[1:], strict=True)
    return AllocatedVip(
        vip=Vip(
            address=address(wishes[0], ports[0]),
            subnet_id=wishes[0].subnet.id,
            network_id=wishes[0].subnet.network_id,
            port_id=ports[0].id,
        ),
        port_owned=wishes[0].brought is None,
        qos_policy_id=None if wishes[0].brought is None else wishes[0].brought.qos_policy_id,
        additional=tuple(
            AdditionalVip(
                address=address(wish, port),
                subnet_id=wish.subnet.id,
                port_id=port.id,
                port_owned=wish.brought is None,
            )
            for wish, port in further
        ),
    )
