"""What our things are called in Nova, and how we know them again. Pure.

A create sets all of it at once, so a crash right after it leaves nothing that we would not know.

| | name | proof |
|---|---|---|
| server | amphora-ID, as Octavia's | the tag frontinus-INSTALLATION, in our project |
| server group | frontinus-INSTALLATION-lb-LB | its name, in our project |

An Octavia in the same project has servers of the same names and no such tag: they are asked for by the id of an amphora
that was taken over, and never listed. Nova lets several servers have one name; driver.py settles that."""

from __future__ import annotations

from frontinus.drivers.compute.nova.facts import GroupFacts, ServerFacts
from frontinus.model.ids import AmphoraId, LoadBalancerId

_SERVER, _LENGTH_OF_ID = "amphora-", 36
LOAD_BALANCER, MANAGEMENT = "frontinus_load_balancer", "frontinus_management_address"
"""Keys of a server's metadata."""


class Names:
    """Of one installation."""

    def __init__(self, installation: str) -> None:
        self.tag = f"frontinus-{installation}"
        self._group = f"{self.tag}-lb-"

    def read_server(self, server: ServerFacts) -> AmphoraId | None:
        """Whose it is; None for one that is not ours."""
        amphora_id = server.name.removeprefix(_SERVER)
        is_ours = server.name.startswith(_SERVER) and len(amphora_id) == _LENGTH_OF_ID and self.tag in server.tags
        return AmphoraId(amphora_id) if is_ours else None

    def group_name(self, load_balancer_id: LoadBalancerId) -> str:
        return self._group + load_balancer_id

    def is_our_group(self, group: GroupFacts) -> bool:
        return group.name.startswith(self._group) and len(group.name) == len(self._group) + _LENGTH_OF_ID


def server_name(amphora_id: AmphoraId) -> str:
    return _SERVER + amphora_id
