"""Something else in the lab for amphorae to be made of: a flavor, an image and an availability zone that no settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from openstack.connection import Connection
from openstack.exceptions import ConflictException

from frontinus.model.placement import Placement

from tests.acceptance.support import until

EMPTY_WITHIN_S = 300


@contextmanager
def another_make(admin: Connection, word: str, like_tag: str) -> Iterator[Placement]:
    """All of them are called `word`; the image is like the one with the tag `like_tag`, and its owner's. One of the lab's fake hosts
    is in the zone meanwhile, and in no other; servers of others that ask for no zone may get there, and are waited for."""
    compute, image = admin.compute, admin.image
    like = next(iter(image.images(tag=like_tag)))
    with ExitStack() as gone:
        flavor = compute.create_flavor(name=word, ram=256, vcpus=1, disk=2)
        gone.callback(compute.delete_flavor, flavor.id)
        made = image.create_image(
            name=word,
            data=b"nothing",
            disk_format=like.disk_format,
            container_format=like.container_format,
            tags=[word],
            owner=like.owner,
            visibility="public",
            img_hv_type="fake",
        )
        gone.callback(image.delete_image, made.id)
        zone = compute.create_aggregate(name=word, availability_zone=word)
        gone.callback(compute.delete_aggregate, zone.id)
        host = _take_in(admin, zone.id)
        gone.callback(_take_out, admin, zone.id, host)
        yield Placement(compute_flavor=word, amp_image_tag=word, compute_zone=word)


def _take_out(admin: Connection, zone_id: str, host: str) -> None:
    def taken_out() -> bool:
        try:
            admin.compute.remove_host_from_aggregate(zone_id, host)
        except ConflictException:  # a server is in it
            return False
        return True

    until(taken_out, EMPTY_WITHIN_S, f"somebody's servers stay on {host}", pause=2)


def _take_in(admin: Connection, zone_id: str) -> str:
    """Which host it became. Nova moves none with servers from zone to zone, so one is waited for that has none."""
    fakes = sorted(x.name for x in admin.compute.hypervisors() if x.name.startswith("fake"))

    def taken_in() -> str | None:
        for host in reversed(fakes):
            with suppress(ConflictException):
                admin.compute.add_host_to_aggregate(zone_id, host)
                return str(host)
        return None

    return str(until(taken_in, EMPTY_WITHIN_S, "there is no fake host without servers", pause=1))
