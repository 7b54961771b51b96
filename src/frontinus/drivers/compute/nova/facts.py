"""What Nova and Glance say of servers, groups, interfaces and images, as far as we read it, and what the states of a server
mean. Values and pure functions: nothing is asked for here (nova.py does).

A stop that somebody planned is no failure. Nova's word for most of them is a status of its own; SHUTOFF it says both
of a server that was stopped and of one whose machine ended by itself (it notices, and stops it), so of that one its
actions tell: whoever stops it is named there, and Nova itself has no name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from frontinus.drivers.compute.interface import PlaceState
from frontinus.model.ids import PortId

_ON_PURPOSE = PlaceState.STOPPED_ON_PURPOSE
_STATES: dict[str, PlaceState] = {
    "ACTIVE": PlaceState.RUNNING,
    "PASSWORD": PlaceState.RUNNING,
    "MIGRATING": PlaceState.RUNNING,
    "VERIFY_RESIZE": PlaceState.RUNNING,
    "BUILD": PlaceState.BUILDING,
    "REBOOT": PlaceState.BUILDING,
    "HARD_REBOOT": PlaceState.BUILDING,
    "REBUILD": _ON_PURPOSE,
    "RESIZE": _ON_PURPOSE,
    "REVERT_RESIZE": _ON_PURPOSE,
    "PAUSED": _ON_PURPOSE,
    "SUSPENDED": _ON_PURPOSE,
    "SHELVED": _ON_PURPOSE,
    "SHELVED_OFFLOADED": _ON_PURPOSE,
    "RESCUE": _ON_PURPOSE,
    "SHUTOFF": _ON_PURPOSE,
    "SOFT_DELETED": PlaceState.ABSENT,
    "DELETED": PlaceState.ABSENT,
    "ERROR": PlaceState.STOPPED,
}
"""By status (Compute API, "Server concepts"). REBUILD is also that of a server which is being evacuated."""

SHUTOFF, SOFT_DELETED, UNKNOWN, ERROR = "SHUTOFF", "SOFT_DELETED", "UNKNOWN", "ERROR"
_REBOOTING = frozenset({"REBOOT", "HARD_REBOOT"})
_IN_MOTION = frozenset({"BUILD", "REBUILD", "RESIZE", "REVERT_RESIZE", *_REBOOTING})
_IMAGE_TASKS = "image_"
"""Tasks of a snapshot, which leaves the server as it is."""
_STOP, _REBOOT = "stop", "reboot"
_STARTS = frozenset(
    {"start", _REBOOT, "rebuild", "evacuate", "unshelve", "restore", "resize", "migrate", "revertResize"}
)
"""Actions after which the system in the server begins anew (Compute API, "Server concepts"; a resume or an unpause goes on
where it was, and a live migration is an action of another name). Its first start is none of them."""
_STOPPING, _REBUILDING = "powering-off", "rebuild"
_DELETING = frozenset({"deleting", "soft-deleting"})


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    message: str = ""


class FlavorOfServer(msgspec.Struct, frozen=True, kw_only=True):
    original_name: str | None = None


class ImageOfServer(msgspec.Struct, frozen=True, kw_only=True):
    id: str


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`host` is told to administrators only, `host_id` to everybody: a word of its own for each project. `status` UNKNOWN: the
    part of Nova that knows does not answer."""

    id: str
    name: str = ""
    status: str = UNKNOWN
    created: str = ""
    updated: datetime | None = None
    """When its state was last written: not before its last start."""

    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    fault: Fault | None = None
    volumes: tuple[object, ...] = msgspec.field(name="os-extended-volumes:volumes_attached", default=())
    host_id: str = msgspec.field(name="hostId", default="")
    host: str | None = msgspec.field(name="OS-EXT-SRV-ATTR:host", default=None)
    task: str | None = msgspec.field(name="OS-EXT-STS:task_state", default=None)
    launched: str | None = msgspec.field(name="OS-SRV-USG:launched_at", default=None)
    """When it first ran; None of one that never did."""

    flavor: FlavorOfServer = FlavorOfServer()
    image: ImageOfServer | str = ""
    """Empty of one that boots from a volume."""
    zone: str | None = msgspec.field(name="OS-EXT-AZ:availability_zone", default=None)

    @property
    def image_id(self) -> str | None:
        return self.image.id if isinstance(self.image, ImageOfServer) else None

    @property
    def is_going(self) -> bool:
        """Whether it is being deleted, or was and can be brought back still."""
        return self.task in _DELETING or self.status == SOFT_DELETED

    @property
    def is_stopped(self) -> bool:
        """Or being stopped, by somebody or by Nova itself, which does so when it sees that the machine has ended."""
        return self.status == SHUTOFF or self.task == _STOPPING

    @property
    def is_rebooting(self) -> bool:
        """As somebody asked for: its system is shut down, which it has two minutes for, and begins anew."""
        return self.status in _REBOOTING

    @property
    def is_in_motion(self) -> bool:
        """Whether Nova is about something after which it will be another: no use to ask for more until then."""
        has_task = self.task is not None and not self.task.startswith(_IMAGE_TASKS)
        return self.status in _IN_MOTION or (has_task and self.status not in (ERROR, "MIGRATING"))

    @property
    def why(self) -> str:
        return self.fault.message if self.fault is not None and self.fault.message else "Nova does not say why"


class ActionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Times are of UTC, without saying so."""

    action: str
    start_time: str
    updated_at: datetime | None = None
    """Of an action that is over, when it was."""

    user_id: str | None = None


class InterfaceFacts(msgspec.Struct, frozen=True, kw_only=True):
    port_id: PortId


class GroupFacts(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    policy: str = ""
    members: tuple[str, ...] = ()


class FlavorFacts(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str | None = None


def state_of(server: ServerFacts, actions: Sequence[ActionFacts] = ()) -> PlaceState:
    """`actions` are wanted of one that `is_stopped`."""
    if server.task in _DELETING:
        return PlaceState.STOPPED
    if (server.task or "").startswith(_REBUILDING):
        return _ON_PURPOSE
    if server.is_stopped and _ended_by_itself(actions):
        return PlaceState.STOPPED
    if server.task == _STOPPING:
        return _ON_PURPOSE
    return _STATES.get(server.status, PlaceState.STOPPED)


def _ended_by_itself(actions: Sequence[ActionFacts]) -> bool:
    stops = [x for x in actions if x.action == _STOP]
    return bool(stops) and max(stops, key=lambda x: x.start_time).user_id is None


def started_at(actions: Sequence[ActionFacts]) -> datetime | None:
    """When the server was last started again."""
    return max(
        (x.updated_at.replace(tzinfo=UTC) for x in actions if x.action in _STARTS and x.updated_at is not None),
        default=None,
    )


def reboot_asked_at(actions: Sequence[ActionFacts]) -> datetime | None:
    """When somebody asked for the last reboot, which may be under way."""
    asked = (datetime.fromisoformat(x.start_time).replace(tzinfo=UTC) for x in actions if x.action == _REBOOT)
    return max(asked, default=None)


def choice(servers: Sequence[ServerFacts]) -> ServerFacts | None:
    """Of several under one name the one that counts: all who look choose the same."""
    return min(servers, key=lambda x: (x.is_going, x.status == ERROR, x.created, x.id), default=None)
