"""What our things are called in Neutron, and how we know them again. Pure.

What must be there from the first moment is in attributes that a create sets: a crash right after it leaves nothing that
we would not know. Tags cannot be among them (Neutron takes them in POST /ports and forgets them); they are put on afterwards,
for people who list ports.

The MAC is derived from what the port is for. Neutron never gives one MAC twice on a network, so of two who make the same
port at the same time one gets it, and the other finds it.

| | name | description | device |
|---|---|---|---|
| port of a VIP | octavia-lb-ID, as Octavia's | frontinus:INSTALLATION:vip | lb-ID, Octavia |
| of a further VIP | the same | frontinus:INSTALLATION:additional-vip | the same |
| a user's port that is a VIP | his | his | lb-ID, Octavia, while it is one |
| port of an amphora | frontinus-AMPHORA | frontinus:INSTALLATION:PURPOSE:LB | compute's, when it is attached |
| its security group | frontinus-PORT | frontinus:INSTALLATION:LB | |"""

from __future__ import annotations

from hashlib import sha256

from frontinus.drivers.network.neutron.facts import PortFacts, SecurityGroupFacts
from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, PortId, SubnetId
from frontinus.model.ports import PortPurpose

DEVICE_OWNER = "Octavia"
ATTACHMENT = "neutron"
"""What a port says to compute: it is attached by its id (Port.attachment)."""

_LB, _PREFIX, _PORT_NAME = "lb-", "frontinus", "frontinus-"
_VIP, _FURTHER = "vip", "additional-vip"
_LENGTH_OF_ID = 36


class Names:
    """Of one installation."""

    def __init__(self, installation: str) -> None:
        self.tag = f"{_PREFIX}-{installation}"
        self._mark = f"{_PREFIX}:{installation}:"

    # VIPs

    def vip_mark(self, *, is_first: bool) -> str:
        return self._mark + (_VIP if is_first else _FURTHER)

    @property
    def vip_marks(self) -> tuple[str, str]:
        return self.vip_mark(is_first=True), self.vip_mark(is_first=False)

    def is_our_vip(self, port: PortFacts) -> bool:
        """Whether the port was made by us for a VIP."""
        return port.description in self.vip_marks and port.device_owner == DEVICE_OWNER

    def vip_tags(self, load_balancer_id: LoadBalancerId) -> tuple[str, ...]:
        return tuple(sorted((self.tag, device_of(load_balancer_id))))

    # Ports of amphorae

    def port_mark(self, purpose: PortPurpose, load_balancer_id: LoadBalancerId) -> str:
        return f"{self._mark}{purpose.value}:{load_balancer_id}"

    def port_marks(self, load_balancer_id: LoadBalancerId) -> tuple[str, ...]:
        return tuple(self.port_mark(x, load_balancer_id) for x in PortPurpose)

    def read_port(self, port: PortFacts) -> tuple[AmphoraId, PortPurpose, LoadBalancerId] | None:
        """Whose port it is; None for one that is not ours. That it is in our project, callers have asked for."""
        words = port.description.removeprefix(self._mark).split(":")
        if not (port.description.startswith(self._mark) and port.name.startswith(_PORT_NAME) and len(words) == 2):
            return None
        amphora_id = port.name.removeprefix(_PORT_NAME)
        if words[0] not in set(PortPurpose) or len(amphora_id) != _LENGTH_OF_ID:
            return None
        return AmphoraId(amphora_id), PortPurpose(words[0]), LoadBalancerId(words[1])

    def port_tags(self, amphora_id: AmphoraId, load_balancer_id: LoadBalancerId) -> tuple[str, ...]:
        return tuple(sorted((self.tag, device_of(load_balancer_id), f"amphora-{amphora_id}")))

    def read_group(self, group: SecurityGroupFacts) -> PortId | None:
        """The port whose group it is; None for one that is not ours. That it is in our project, callers have asked for."""
        port_id, load_balancer_id = group.name.removeprefix(_PORT_NAME), group.description.removeprefix(self._mark)
        is_ours = group.name.startswith(_PORT_NAME) and group.description.startswith(self._mark)
        return PortId(port_id) if is_ours and len(port_id) == len(load_balancer_id) == _LENGTH_OF_ID else None

    def group_mark(self, load_balancer_id: LoadBalancerId) -> str:
        return f"{self._mark}{load_balancer_id}"


def vip_name(load_balancer_id: LoadBalancerId) -> str:
    return f"octavia-lb-{load_balancer_id}"


def device_of(load_balancer_id: LoadBalancerId) -> str:
    return _LB + load_balancer_id


def holder(port: PortFacts) -> LoadBalancerId | None:
    """The load balancer that a port is a VIP of; None where it is none's."""
    found = port.device_id.removeprefix(_LB)
    is_held = port.device_id.startswith(_LB) and port.device_owner == DEVICE_OWNER and len(found) == _LENGTH_OF_ID
    return LoadBalancerId(found) if is_held else None


def tagged_holder(port: PortFacts) -> LoadBalancerId | None:
    """The load balancer that a port was meant for, by its tags: the claim may not have come to it."""
    return next(
        (LoadBalancerId(x[len(_LB) :]) for x in port.tags if x.startswith(_LB) and len(x) == len(_LB) + _LENGTH_OF_ID),
        None,
    )


def octavias_port(amphora_id: AmphoraId) -> str:
    """What Octavia calls the port by which an amphora has its VIPs. Others it has Nova make, and they go with the server."""
    return f"octavia-lb-vrrp-{amphora_id}"


def octavias_group(load_balancer_id: LoadBalancerId) -> str:
    return _LB + load_balancer_id


def port_name(amphora_id: AmphoraId) -> str:
    return _PORT_NAME + amphora_id


def group_name(port_id: PortId) -> str:
    return _PORT_NAME + port_id


def vip_mac(load_balancer_id: LoadBalancerId, subnet_id: SubnetId, attempt: int, *, is_first: bool) -> str:
    """The first VIP's is the same whatever subnet is asked for: a load balancer has one."""
    return _mac(_VIP if is_first else f"{_FURTHER} {subnet_id}", load_balancer_id, str(attempt))


def port_mac(amphora_id: AmphoraId, purpose: PortPurpose, network_id: NetworkId, attempt: int) -> str:
    return _mac(purpose.value, amphora_id, network_id, str(attempt))


def _mac(*words: str) -> str:
    """Locally administered (the second hexadecimal digit)."""
    digest = sha256(" ".join(words).encode()).digest()
    return ":".join(f"{x:02x}" for x in (0x02, *digest[:5]))
