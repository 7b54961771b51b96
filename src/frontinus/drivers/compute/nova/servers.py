"""One step of a server's life at a time: found, made, rebuilt, taken away. Nothing is waited for here: what lies between two
steps is driver.py's matter, so that no thread is held by waiting.

Every method blocks, and raises Retry, whose code tells whether an image, a flavor or a zone is missing. Next: nova.py."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TypeAlias

from frontinus.drivers.compute.interface import PlaceState
from frontinus.drivers.compute.nova.facts import (
    SHUTOFF,
    SOFT_DELETED,
    GroupFacts,
    ServerFacts,
    choice,
    reboot_asked_at,
    started_at,
    state_of,
)
from frontinus.drivers.compute.nova.groups import Groups
from frontinus.drivers.compute.nova.names import LOAD_BALANCER, MANAGEMENT, Names, server_name
from frontinus.drivers.compute.nova.nova import Nova
from frontinus.drivers.compute.nova.settings import NovaSettings
from frontinus.drivers.compute.user_data import user_data
from frontinus.drivers.openstack.trouble import LATER_S, SOON_S, Refused
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Bug, Retry
from frontinus.model.ids import AmphoraId, LoadBalancerId
from frontinus.model.placement import UNSPECIFIED, Placement
from frontinus.model.ports import Port, PortPurpose, port_for

_MOST_USER_DATA = 65_535
_TRIES_WITH_GROUP = 3
_LONGEST_REBOOT = timedelta(minutes=5)
"""A system has two minutes to shut down before Nova ends it (libvirt.wait_soft_reboot_seconds). On a host that has died a reboot
never ends."""


@dataclass(frozen=True)
class Wish:
    """A place that is to be."""

    amphora_id: AmphoraId
    load_balancer_id: LoadBalancerId
    boot: BootFiles
    ports: tuple[Port, ...]
    placement: Placement = UNSPECIFIED

    @property
    def user_data(self) -> str:
        encoded = b64encode(user_data(self.boot)).decode()
        if len(encoded) > _MOST_USER_DATA:
            raise Bug(
                f"boot files of amphora {self.amphora_id} are {len(encoded)} bytes of user data; Nova takes 65,535"
            )
        return encoded


Doomed: TypeAlias = tuple[str, ...]
"""Ids of servers that must be gone before another can have their ports."""


class Servers:
    def __init__(
        self, nova: Nova, names: Names, groups: Groups, settings: NovaSettings, project: Callable[[], str]
    ) -> None:
        self._nova, self._names, self._groups, self._settings, self._project = nova, names, groups, settings, project

    def named(self, amphora_id: AmphoraId, server_id: str | None = None) -> list[ServerFacts]:
        """Every server of this name in our project: one, unless two made it at once or one died doing it. Without any, the one
        that was recorded under this id: whose cell is away is in no list of Nova's (Compute API guide, "Handling Down Cells"),
        and anybody may give a server another name."""
        name = server_name(amphora_id)
        # Nova takes the filter for a part of a name.
        found = [x for x in self._nova.servers(name=name) if x.name == name]
        if not found and server_id is not None:
            recorded = self._nova.server(server_id)
            return [] if recorded is None else [recorded]
        return found

    def found(self, amphora_id: AmphoraId, server_id: str | None = None) -> ServerFacts | None:
        return choice(self.named(amphora_id, server_id))

    def owned(self) -> list[tuple[ServerFacts, AmphoraId]]:
        found = ((x, self._names.read_server(x)) for x in self._nova.servers(tags=self._names.tag))
        return [(server, amphora_id) for server, amphora_id in found if amphora_id is not None]

    def state(self, server: ServerFacts) -> PlaceState:
        return state_of(server, self._nova.actions(server.id) if server.is_stopped else ())

    def started_at(self, server: ServerFacts) -> datetime | None:
        """When it was last started again; now, of one that is being rebooted, unless that takes too long. Not asked for of one of
        which Nova has written nothing for so long that it has booted since."""
        now = datetime.now(UTC)
        if server.is_rebooting:
            asked_at = reboot_asked_at(self._nova.actions(server.id))
            return None if asked_at is None or now - asked_at > _LONGEST_REBOOT else now
        if server.updated is None or now - server.updated > 2 * self._settings.boot_timeout:
            return None
        return started_at(self._nova.actions(server.id))

    def require_means(self) -> None:
        """Raises Retry telling what servers could not be made of."""
        self._image()
        self._flavor()

    def begin(self, wish: Wish, *, afresh: bool) -> str | Doomed:
        """The first step of a build, whatever is there: what is of use is kept, and rebuilt if it does not run. `afresh`:
        what failed is not tried again. The id of the server that will be the place; or what is to be removed before that."""
        found = self.named(wish.amphora_id)
        kept = choice([x for x in found if _is_of_use(x, afresh=afresh)])
        doomed = tuple(x.id for x in found if kept is None or x.id != kept.id)
        if doomed:
            return doomed
        if kept is None:
            return self._make(wish)
        if not kept.is_in_motion and self.state(kept) is not PlaceState.RUNNING:
            self._rebuild(wish, kept)
        return kept.id

    def remove(self, server_ids: Sequence[str], *, again: bool) -> tuple[str, ...]:
        """Asks that they go, `again` also of those that are going: the ones that are still there."""
        return tuple(x for x in server_ids if self._remove(x, again=again))

    def _remove(self, server_id: str, *, again: bool) -> bool:
        server = self._nova.server(server_id)
        if server is None:
            return False
        if server.status == SOFT_DELETED:
            # Where Nova keeps what was deleted for a while (reclaim_instance_interval), its ports stay taken.
            self._nova.act(server_id, "forceDelete")
        elif again or not server.is_going:
            self._nova.delete_server(server_id)
        return True

    def _make(self, wish: Wish) -> str | Doomed:
        body = self._body(wish)
        with self._groups.wanted(wish.load_balancer_id):
            made, group = self._make_in_group(wish, body)
            # Nova has no names that only one may have. Of two who made it at once the loser takes his away.
            there = [x for x in self.named(wish.amphora_id) if not x.is_going]
            first = choice(there)
            if first is not None and first.id != made:
                self._nova.delete_server(made)
                return first.id
            if group is not None and not group.members and not self._groups.is_chosen(wish.load_balancer_id, group):
                # Somebody dropped it, or has made another before. No server changes its group.
                self._nova.delete_server(made)
                return (made,)
            # A loser who looked before this one was there: of two that were made in one second the later may count.
            return tuple(x.id for x in there if x.id != made) or made

    def _make_in_group(self, wish: Wish, body: Mapping[str, object]) -> tuple[str, GroupFacts | None]:
        remaining = _TRIES_WITH_GROUP
        while True:
            group = self._groups.need(wish.load_balancer_id)
            remaining -= 1
            try:
                return self._nova.create_server(body, {} if group is None else {"group": group.id}), group
            except Refused as refused:
                is_about_group = (
                    group is not None and refused.status == HTTPStatus.BAD_REQUEST and group.id in refused.detail
                )
                if not (is_about_group and remaining):  # else another controller has dropped it, empty as it was
                    raise _meaning(refused) from refused

    def _body(self, wish: Wish) -> dict[str, object]:
        image = self._image(wish.placement)
        zone = self._zone(wish.placement)
        management = port_for(wish.ports, PortPurpose.MANAGEMENT)
        body: dict[str, object] = {
            "name": server_name(wish.amphora_id),
            "tags": [self._names.tag],
            "metadata": {LOAD_BALANCER: wish.load_balancer_id}
            | ({} if management is None else {MANAGEMENT: management.addresses[0].address}),
            "flavorRef": self._flavor(wish.placement),
            "networks": [{"port": x.id} for x in wish.ports] or "none",
            "config_drive": True,
            "user_data": wish.user_data,
        }
        if self._settings.volume_size_gib is None:
            body["imageRef"] = image
        else:
            body["block_device_mapping_v2"] = [self._volume(image, self._settings.volume_size_gib)]
        if self._settings.key_name is not None:
            body["key_name"] = self._settings.key_name
        if zone is not None:
            body["availability_zone"] = zone
        return body

    def _volume(self, image: str, size_gib: int) -> Mapping[str, object]:
        chosen = {} if self._settings.volume_type is None else {"volume_type": self._settings.volume_type}
        return {
            "boot_index": 0,
            "source_type": "image",
            "uuid": image,
            "destination_type": "volume",
            "volume_size": size_gib,
            "delete_on_termination": True,
            **chosen,
        }

    def _rebuild(self, wish: Wish, server: ServerFacts) -> None:
        """The same server, with its ports and addresses, from today's image and with these boot files."""
        self._nova.act(server.id, "rebuild", {"imageRef": self._image(wish.placement), "user_data": wish.user_data})

    def _image(self, placement: Placement = UNSPECIFIED) -> str:
        tag = placement.amp_image_tag or self._settings.image_tag
        owner = self._settings.image_owner or self._project()
        found = self._nova.newest_image(tag, owner)
        if found is None:
            raise Retry(
                f"Glance has no image with the tag {tag!r} of project {owner}, which {_whose(placement.amp_image_tag)} asks for; "
                "upload one, or set driver_options.nova.image_tag and image_owner",
                after=LATER_S,
                code="no-image",
            )
        return found.id

    def _flavor(self, placement: Placement = UNSPECIFIED) -> str:
        wanted, known = placement.compute_flavor or self._settings.flavor, self._nova.flavors()
        for flavor in known:
            if wanted in (flavor.id, flavor.name):
                return flavor.id
        raise Retry(
            f"Nova has no flavor {wanted!r} for our account, which {_whose(placement.compute_flavor)} asks for; make it, or set "
            "driver_options.nova.flavor",
            after=LATER_S,
            code="no-flavor",
        )

    def _zone(self, placement: Placement) -> str | None:
        """Nova's own, if none is asked for. That of the settings it refuses by itself."""
        wanted = placement.compute_zone
        if wanted is None:
            return self._settings.availability_zone
        if wanted not in self._nova.zones():
            raise Retry(
                f"Nova has no availability zone {wanted!r}, which {_whose(wanted)} asks for",
                after=LATER_S,
                code="no-zone",
            )
        return wanted


def _whose(asked: str | None) -> str:
    return "the configuration" if asked is None else "the load balancer, by its flavor or availability zone,"


def _is_of_use(server: ServerFacts, *, afresh: bool) -> bool:
    """Whether it is the place already, or can be made so and be the same one. Nova rebuilds what is in error after it ran; what is
    shut off it would shut off again after that, and a volume it would leave as it is."""
    if server.is_going:
        return False
    if server.is_in_motion or state_of(server) is PlaceState.RUNNING:
        return True
    rebuilds = server.status != SHUTOFF and server.launched is not None and state_of(server) is PlaceState.STOPPED
    return rebuilds and not server.volumes and not afresh


def _meaning(refused: Refused) -> Retry:
    if refused.status == HTTPStatus.CONFLICT:
        return Retry(f"Nova is busy: {refused.detail}", after=SOON_S, code="nova-busy")
    return refused
