"""The compute driver: gives an amphora a place to be.

Names are derived from our ids, so that a place is found again after a crash between making and recording it. Errors:
Retry (with what to do), and Bug for what should not happen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

import msgspec

from frontinus.model.belongings import Belonging, BelongingKind
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Bug
from frontinus.model.findings import Finding
from frontinus.model.ids import AmphoraId, LoadBalancerId, PortId
from frontinus.model.placement import UNSPECIFIED, Placement
from frontinus.model.ports import Port

INTERFACE_VERSION = 1
INTERFACE_MATURITY = "experimental"

ATTACH = "attach"
"""The feature of a driver whose places get their interfaces by ports, at their build and while they run. It needs a
network driver that makes ports; one without it needs one that does not."""

APART = "apart"
"""The feature of a driver that has hosts, and puts the amphorae of one load balancer on different ones while it can (with
Nova, a server group named after the load balancer). Without it a pair may die with one host; where all is one machine,
as for `process` and `netns`, it always does."""


LVS = "lvs"
"""The feature of a driver whose places have a kernel of their own, with ip_vs, and keepalived."""

LOSES_SIGHT = "loses_sight"
"""The feature of a driver that asks a service which may not show a place that goes on running (Nova, while a part of it is away,
or in another project): ABSENT is a reason to ask the agent, and an agent that answers or beats is believed more."""

ADOPTS = "adopts"
"""The feature of a driver that finds the servers of an Octavia whose amphorae were taken over, by the amphora's id: with
Nova both are named `amphora-ID`. Without it they would be taken for vanished, and be replaced."""


class PlaceState(StrEnum):
    ABSENT = "absent"
    """There is nothing under this name."""
    BUILDING = "building"
    RUNNING = "running"
    STOPPED = "stopped"
    """The place is there and what should run in it does not; `start` may bring it back."""
    STOPPED_ON_PURPOSE = "stopped_on_purpose"
    """Somebody stopped it: not a failure."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where an amphora is. `balancing` is True when the balancer process is seen running in it, None when compute
    cannot see inside. `attached` are the ports whose link is there and up; None for a driver that attaches nothing, or
    cannot tell. `host` names the machine, for marks of maintenance; None when compute does not tell. `compute_flavor`,
    `image_id` and `zone` tell of what the place was made, and where, by names or ids of compute; None where it has no such
    thing, or does not tell. `started_at` is when it was last started again after a stop, by compute's clock, and now
    while somebody reboots it; None if it never was, or compute does not tell: until an agent that was not heard since
    answers, it has the time of a boot."""

    amphora_id: AmphoraId
    state: PlaceState
    compute_id: str | None = None
    management_address: str | None = None
    host: str | None = None
    balancing: bool | None = None
    attached: frozenset[PortId] | None = None
    compute_flavor: str | None = None
    image_id: str | None = None
    zone: str | None = None
    started_at: datetime | None = None


class ComputeDriver(ABC):
    """All methods may be repeated, and may be called for many amphorae at once."""

    name: ClassVar[str]
    interface: ClassVar[int] = INTERFACE_VERSION
    """The version of this interface that it was written for; a driver of another distribution says it itself."""
    features: ClassVar[frozenset[str]] = frozenset()
    """Of ATTACH, APART, LVS, LOSES_SIGHT and ADOPTS."""
    attaches: ClassVar[str | None] = None
    """With ATTACH: the word of those network drivers whose ports it can attach (NetworkDriver.hangs_on), `bridge` or
    `neutron`; another pair is refused at the start. None: not said, and not looked at."""
    starts_slowly: ClassVar[bool] = False
    """Whether from build to the agent's answer takes so long that spare amphorae are worth their memory."""

    looks_per_second: ClassVar[float | None] = None
    """About how many amphorae that are heard all controllers together may ask `get` in a second, whether they still hang on
    their networks. None: as many as there are, since it costs nobody else anything."""

    @property
    def placement_words(self) -> frozenset[str]:
        """Which words of a placement `build` honours, as the driver's settings are; management_network is the network
        driver's. What it lacks is refused before it is called."""
        return frozenset()

    @property
    def keeps_apart(self) -> bool:
        """Whether it puts those of one load balancer on different hosts as it is set up (APART). What was built as a spare
        was built for no load balancer, so a pair takes none then."""
        return APART in self.features

    @property
    def boot_timeout(self) -> timedelta:
        """From build to the agent's first answer, at worst: what takes longer has failed. On a machine that does much other
        work too."""
        return timedelta(seconds=20)

    @abstractmethod
    def management_address(self, amphora_id: AmphoraId) -> str | None:
        """The address that the agent will have, if it is known before the build; boot files may need it. Pure. For
        places that are built with a management port its address counts instead."""

    @abstractmethod
    async def build(
        self,
        amphora_id: AmphoraId,
        load_balancer_id: LoadBalancerId,
        boot: BootFiles,
        ports: tuple[Port, ...] = (),
        placement: Placement = UNSPECIFIED,
    ) -> Place:
        """Make the place and start what should run in it. If the place exists, it is brought to the same end with the
        new boot files; what already runs in it goes on running. Returns when the start was given, not when it is up.
        A crash in the middle leaves something that build, destroy and list_owned find. With APART, what is built for one
        load balancer is on different hosts while there are any; rather on one than not at all.

        `ports` (with ATTACH; one is for management) are attached when it returns, and the management port's address is
        configured: the agent listens there. The others are left to the agent.

        A place that is made is made as `placement` says, in each word that it says and that is among `placement_words`;
        what is not said, by the settings. One that is there already keeps what it is. Raises Retry, and makes
        nothing, while there is no such thing (`no-flavor`, `no-image`, `no-zone`)."""

    @abstractmethod
    async def get(self, amphora_id: AmphoraId) -> Place:
        """What is there now. Never raises for an unknown id: that is ABSENT. Raises Retry when compute cannot be asked."""

    async def get_known(self, amphora_id: AmphoraId, compute_id: str | None) -> Place:
        """As `get`, of a place that was recorded with this `compute_id`: with LOSES_SIGHT it is asked for by that too, before
        it is called ABSENT. One of which nobody can tell is RUNNING."""
        return await self.get(amphora_id)

    @abstractmethod
    async def destroy(self, amphora_id: AmphoraId) -> None:
        """When it returns nothing of the amphora runs any more and its place is gone. Unknown ids are done already."""

    async def destroy_known(self, amphora_id: AmphoraId, compute_id: str | None) -> None:
        """As `destroy`, of a place that was recorded with this `compute_id`, however `get_known` finds it. Raises Retry while
        nobody can tell whether it is gone."""
        await self.destroy(amphora_id)

    @abstractmethod
    async def list_owned(self) -> tuple[AmphoraId, ...]:
        """Every place that is ours, also half-made ones and stray processes. Feeds the sweeper, which destroys those that
        nobody knows: what is only named alike (of another installation; of an Octavia, whose servers have the names of ours)
        is not in it. So the proof is a name and a tag: with processes the environment, with servers metadata."""

    async def list_running(self) -> frozenset[AmphoraId] | None:
        """Those of `list_owned` that run or start, all in one answer, for whoever doubts many at once; None where `get` of
        each costs no more. Raises Retry."""
        return None

    async def list_belongings(self) -> tuple[Belonging, ...]:
        """Every single thing outside of the amphorae of `list_owned`, at least one for each; `destroy` takes all of an
        amphora's away. People read it (`frontinus sweep list`). Raises Retry."""
        owned = await self.list_owned()
        return tuple(Belonging(kind=BelongingKind.PLACE, name=x, proof="the driver", amphora_id=x) for x in owned)

    async def watch(self, tell: Callable[[AmphoraId], None]) -> None:  # noqa: B027 - seeing nothing is allowed
        """Tell of an amphora as soon as it is seen that something in its place may have ended, or a link of it, until
        cancelled. A hint and no word: whoever is told asks `get`. What is not told is found by silence, later; a driver
        that sees nothing by itself returns at once. `tell` does not block, and is called in the caller's event loop."""

    async def attach(self, amphora_id: AmphoraId, port: Port) -> None:
        """Give the running place a link with the port's MAC and MTU on the network of its attachment, unless it has it;
        addresses are the agent's matter. When it returns the agent finds the link, or will in a moment. Raises Retry,
        also when there is no place."""
        raise Bug(f"compute driver {self.name} attaches no ports")

    async def detach(self, amphora_id: AmphoraId, port: Port) -> None:
        """The place has no such link any more. One that it never had, or without a place, is done already."""
        raise Bug(f"compute driver {self.name} attaches no ports")

    async def examine(self) -> tuple[Finding, ...]:
        """What on this machine stands in the driver's way, or will, and what does not; `frontinus doctor` asks. Changes
        nothing, and raises nothing that a finding could say."""
        return ()

    async def close(self) -> None:  # noqa: B027 - nothing to let go of by default
        """Let go of handles. The places are not touched."""
