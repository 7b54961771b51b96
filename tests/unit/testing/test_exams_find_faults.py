"""A kit that passes everybody examines nothing: each of these drivers breaks one promise, and the exam says which."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from frontinus.drivers.compute.interface import Place, PlaceState
from frontinus.model.belongings import Belonging
from frontinus.model.boot import BootFiles
from frontinus.model.errors import Bug, Invalid
from frontinus.model.ids import AmphoraId, LoadBalancerId, ProjectId, SubnetId, new_id
from frontinus.model.network import AllocatedVip, Subnet, VipRequest
from frontinus.model.placement import UNSPECIFIED, Placement
from frontinus.model.ports import Port
from frontinus.model.tree import AdditionalVip, Vip
from frontinus.testing import compute_conformance, network_conformance, placement_conformance
from frontinus.testing.compute_conformance import ComputeBench
from frontinus.testing.exam import Check, Outcome, hold, require
from frontinus.testing.fake_compute import FakeCompute, FakePlace, ShortSightedCompute
from frontinus.testing.fake_network import FakeNetwork
from frontinus.testing.network_conformance import NetworkBench

from tests.unit.testing.test_fakes_sit_the_exam import short_sighted_bench

# Compute


class RaisesForUnknown(FakeCompute):
    async def get(self, amphora_id: AmphoraId) -> Place:
        if amphora_id not in self.places:
            raise Bug("no such place")
        return await super().get(amphora_id)


class BuildsAnew(FakeCompute):
    """Replaces a place instead of finding it."""

    async def build(
        self,
        amphora_id: AmphoraId,
        load_balancer_id: LoadBalancerId,
        boot: BootFiles,
        ports: tuple[Port, ...] = (),
        placement: Placement = UNSPECIFIED,
    ) -> Place:
        place = await super().build(amphora_id, load_balancer_id, boot)
        return replace(place, compute_id=new_id())


class ForgetsOnRestart(FakeCompute):
    """Knows only what it built itself."""

    def __init__(self, places: dict[AmphoraId, FakePlace]) -> None:
        super().__init__({})


class LeavesOwned(FakeCompute):
    """Destroying stops what runs and leaves the place."""

    async def destroy(self, amphora_id: AmphoraId) -> None:
        place = self.places.get(amphora_id)
        if place is not None:
            place.kill()


class RefusesUnknownDestroy(FakeCompute):
    async def destroy(self, amphora_id: AmphoraId) -> None:
        del self.places[amphora_id]


class HidesStopped(FakeCompute):
    async def list_owned(self) -> tuple[AmphoraId, ...]:
        return tuple(key for key, place in self.places.items() if place.agent_running)


class TellsOfNoBelongings(FakeCompute):
    async def list_belongings(self) -> tuple[Belonging, ...]:
        return ()


class SaysRunningForStopped(FakeCompute):
    async def get(self, amphora_id: AmphoraId) -> Place:
        place = await super().get(amphora_id)
        return place if place.state is PlaceState.ABSENT else replace(place, state=PlaceState.RUNNING)


class MovesOnRestart(FakeCompute):
    """Its addresses depend on the driver's own memory."""

    def management_address(self, amphora_id: AmphoraId) -> str | None:
        return f"127.1.0.{len(self.places)}"


class BelievesItsRecords(ShortSightedCompute):
    """What has a compute id runs."""

    async def get_known(self, amphora_id: AmphoraId, compute_id: str | None) -> Place:
        known = await super().get_known(amphora_id, compute_id)
        return known if compute_id is None else replace(known, state=PlaceState.RUNNING, compute_id=compute_id)


class LooksByNameOnly(ShortSightedCompute):
    async def get_known(self, amphora_id: AmphoraId, compute_id: str | None) -> Place:
        return await super().get_known(amphora_id, None)


class DestroysByNameOnly(ShortSightedCompute):
    async def destroy_known(self, amphora_id: AmphoraId, compute_id: str | None) -> None:
        await super().destroy_known(amphora_id, None)


class DestroysTooMuch(ShortSightedCompute):
    async def destroy_known(self, amphora_id: AmphoraId, compute_id: str | None) -> None:
        self.places.clear()


class SaysThatAllRun(ShortSightedCompute):
    async def list_running(self) -> frozenset[AmphoraId] | None:
        return frozenset(await self.list_owned())


class ForgetsWhatRuns(ShortSightedCompute):
    async def list_running(self) -> frozenset[AmphoraId] | None:
        return frozenset()


@pytest.mark.parametrize(
    "driver, check",
    [
        pytest.param(BelievesItsRecords, "known place is told"),
        pytest.param(LooksByNameOnly, "unseen place is known by its id"),
        pytest.param(DestroysByNameOnly, "unseen place is known by its id"),
        pytest.param(DestroysTooMuch, "destroy known leaves nothing"),
        pytest.param(SaysThatAllRun, "list running names what runs"),
        pytest.param(ForgetsWhatRuns, "list running names what runs"),
    ],
)
async def test_short_sighted_compute_driver_fails(driver: type[ShortSightedCompute], check: str) -> None:
    assert check in (await compute_conformance.examine(short_sighted_bench(driver))).failed


class IgnoresPlacements(FakeCompute):
    """Claims to honour them."""

    async def build(
        self,
        amphora_id: AmphoraId,
        load_balancer_id: LoadBalancerId,
        boot: BootFiles,
        ports: tuple[Port, ...] = (),
        placement: Placement = UNSPECIFIED,
    ) -> Place:
        return await super().build(amphora_id, load_balancer_id, boot, ports)


class ForgetsOnRevival(FakeCompute):
    """Starts again what stopped, and takes the usual flavor for it."""

    async def build(
        self,
        amphora_id: AmphoraId,
        load_balancer_id: LoadBalancerId,
        boot: BootFiles,
        ports: tuple[Port, ...] = (),
        placement: Placement = UNSPECIFIED,
    ) -> Place:
        stopped = self.places.get(amphora_id)
        place = await super().build(amphora_id, load_balancer_id, boot, ports, placement)
        if stopped is not None:
            stopped.placement = UNSPECIFIED
        return place


class PromisesTheNetworks(FakeCompute):
    @property
    def placement_words(self) -> frozenset[str]:
        return frozenset({"management_network"})


@pytest.mark.parametrize(
    "driver, check",
    [
        pytest.param(IgnoresPlacements, "place is made as asked"),
        pytest.param(IgnoresPlacements, "what is not there is waited for"),
        pytest.param(ForgetsOnRevival, "revived place is as asked"),
        pytest.param(PromisesTheNetworks, "placement words are known"),
    ],
)
async def test_driver_that_breaks_placements_fails(driver: type[FakeCompute], check: str) -> None:
    places: dict[AmphoraId, FakePlace] = {}

    async def stop(amphora_id: AmphoraId) -> None:
        places[amphora_id].kill()

    async def made_as(amphora_id: AmphoraId) -> Placement:
        return places[amphora_id].placement

    placement = Placement(compute_flavor="large", amp_image_tag="tested", compute_zone="east")
    bench = ComputeBench(factory=lambda: driver(places), stop=stop, patience=0.2, placement=placement, made_as=made_as)
    assert check in (await placement_conformance.examine(bench)).failed


@pytest.mark.parametrize(
    "driver, check",
    [
        pytest.param(RaisesForUnknown, "unknown is absent"),
        pytest.param(BuildsAnew, "build makes a running place"),
        pytest.param(BuildsAnew, "build repeats"),
        pytest.param(ForgetsOnRestart, "places outlive the driver"),
        pytest.param(LeavesOwned, "destroy leaves nothing"),
        pytest.param(LeavesOwned, "list owned names places"),
        pytest.param(RefusesUnknownDestroy, "destroy leaves nothing"),
        pytest.param(HidesStopped, "stopped place is seen and revived"),
        pytest.param(SaysRunningForStopped, "stopped place is seen and revived"),
        pytest.param(TellsOfNoBelongings, "belongings are of owned places"),
        pytest.param(MovesOnRestart, "management address is known or none"),
    ],
)
async def test_broken_compute_driver_fails(driver: type[FakeCompute], check: str) -> None:
    places: dict[AmphoraId, FakePlace] = {}

    async def stop(amphora_id: AmphoraId) -> None:
        places[amphora_id].kill()

    bench = ComputeBench(factory=lambda: driver(places), stop=stop, patience=0.2)
    assert check in (await compute_conformance.examine(bench)).failed


# Network


class AlwaysAnother(FakeNetwork):
    """Forgets whom it gave an address."""

    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        return await super().allocate_vip(LoadBalancerId(new_id()), project_id, request)


class SharesAddresses(FakeNetwork):
    """Does not know what it gave to others."""

    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        return await FakeNetwork().allocate_vip(load_balancer_id, project_id, request)


class IgnoresWhatIsAsked(FakeNetwork):
    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        return await super().allocate_vip(load_balancer_id, project_id, replace(request, address=None))


class LeavesAfterFailing(FakeNetwork):
    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        try:
            return await super().allocate_vip(load_balancer_id, project_id, request)
        except Invalid:
            self.vips[f"198.51.100.{200 + len(self.vips)}"] = load_balancer_id
            raise


class ReleasesForAnybody(FakeNetwork):
    async def release_vip(
        self,
        load_balancer_id: LoadBalancerId,
        vip: Vip,
        *,
        port_owned: bool,
        additional: tuple[AdditionalVip, ...] = (),
    ) -> None:
        self.vips.pop(vip.address, None)


class NeverReleases(FakeNetwork):
    async def release_vip(
        self,
        load_balancer_id: LoadBalancerId,
        vip: Vip,
        *,
        port_owned: bool,
        additional: tuple[AdditionalVip, ...] = (),
    ) -> None:
        return


class ReleasesEverything(FakeNetwork):
    async def release_owned(self, load_balancer_id: LoadBalancerId) -> None:
        self.vips.clear()


class TakesWhatItPreviews(FakeNetwork):
    async def preview_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        return await self.allocate_vip(load_balancer_id, project_id, request)


class GivesOneOnly(FakeNetwork):
    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        return await super().allocate_vip(load_balancer_id, project_id, replace(request, additional=()))


class KeepsTheFirst(FakeNetwork):
    async def allocate_vip(
        self, load_balancer_id: LoadBalancerId, project_id: ProjectId, request: VipRequest
    ) -> AllocatedVip:
        await super().allocate_vip(load_balancer_id, project_id, replace(request, additional=()))
        return await super().allocate_vip(load_balancer_id, project_id, request)


class ReleasesOneOnly(FakeNetwork):
    async def release_vip(
        self,
        load_balancer_id: LoadBalancerId,
        vip: Vip,
        *,
        port_owned: bool,
        additional: tuple[AdditionalVip, ...] = (),
    ) -> None:
        await super().release_vip(load_balancer_id, vip, port_owned=port_owned)


class KnowsEverySubnet(FakeNetwork):
    async def get_subnet(self, subnet_id: SubnetId) -> Subnet:
        return replace(self.subnets[0], id=subnet_id)


@pytest.mark.parametrize(
    "driver, check",
    [
        pytest.param(AlwaysAnother, "allocation repeats"),
        pytest.param(AlwaysAnother, "racing calls get one address"),
        pytest.param(SharesAddresses, "addresses are never shared"),
        pytest.param(SharesAddresses, "taken address is a conflict"),
        pytest.param(SharesAddresses, "racing for one address"),
        pytest.param(IgnoresWhatIsAsked, "asked address is given"),
        pytest.param(IgnoresWhatIsAsked, "address outside is invalid"),
        pytest.param(LeavesAfterFailing, "unknown references are invalid"),
        pytest.param(ReleasesForAnybody, "released address is free"),
        pytest.param(NeverReleases, "released address is free"),
        pytest.param(ReleasesEverything, "release owned gives all back"),
        pytest.param(TakesWhatItPreviews, "a preview takes nothing"),
        pytest.param(GivesOneOnly, "additional vips are given"),
        pytest.param(KeepsTheFirst, "additional vips are all or none"),
        pytest.param(ReleasesOneOnly, "additional vips are released"),
        pytest.param(KnowsEverySubnet, "unknown subnet is invalid"),
    ],
)
async def test_broken_network_driver_fails(driver: type[FakeNetwork], check: str) -> None:
    world: dict[str, LoadBalancerId] = {}
    assert check in (await network_conformance.examine(NetworkBench(factory=lambda: driver(world)))).failed


# The exam itself


async def test_report_tells_what_failed_what_passed_and_what_was_not_examined() -> None:
    async def passes(bench: None) -> None:
        require(True, "never said")

    async def fails(bench: None) -> None:
        require(False, "a cow in the aqueduct")

    async def breaks(bench: None) -> None:
        raise KeyError("water")

    checks = [Check(run.__name__, "a promise", run) for run in (passes, fails, breaks)]
    report = await hold(checks, None, limit=1.0)
    assert [finding.outcome for finding in report.findings] == [Outcome.PASSED, Outcome.FAILED, Outcome.FAILED]
    assert report.failed == ("fails", "breaks")
    assert not report.passed
    assert "a cow in the aqueduct" in str(report)
    assert "KeyError('water')" in str(report)


async def test_what_the_bench_lacks_is_skipped_and_named() -> None:
    report = await compute_conformance.examine(ComputeBench(factory=FakeCompute, patience=0.2))
    assert "stopped place is destroyed" in report.skipped
    assert "no `stop`" in str(report)
