"""Amphora drivers that break one promise each, and the requirement by which the exam finds them out.

A kit that passes everybody examines nothing. Each class here is a good driver with one defect, as vendors make them."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import ClassVar

import msgspec
import pytest
from msgspec.structs import replace

from frontinus.drivers.amphora.interface import AmphoraInfo, Applied, Refused, Rendered, RenderedFile
from frontinus.model.boot import BootFiles
from frontinus.model.capabilities import Capabilities
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.errors import Bug, Rejected, Retry
from frontinus.model.heartbeat import Heartbeat
from frontinus.model.ids import AmphoraId
from frontinus.model.previews import Preview
from frontinus.model.tree import Amphora, LoadBalancerTree
from frontinus.testing import amphora_conformance
from frontinus.testing.amphora_conformance import AmphoraBench
from frontinus.testing.exam import Check, NotExaminable, hold
from frontinus.testing.fake_amphora import FakeAmphoraDriver
from frontinus.testing.fake_compute import FakePlace

from tests.unit.testing.test_fakes_sit_the_exam import fake_amphora_bench


class Good(FakeAmphoraDriver):
    """Helps the bad ones: what they render otherwise has a digest of its own."""

    @staticmethod
    def with_text(rendered: Rendered, text: str) -> Rendered:
        whole = sha256(text.encode())
        for file in rendered.files:
            whole.update(f"{file.name} {file.private} {sha256(file.content).hexdigest()}\n".encode())
        return replace(rendered, text=text, digest=whole.hexdigest())


# What it says of itself


class IsForAnotherInterface(Good):
    interface: ClassVar[int] = 99


class OffersWhatNobodyKnows(Good):
    capabilities: ClassVar[Capabilities] = replace(
        FakeAmphoraDriver.capabilities, features=frozenset({"coffee", *FakeAmphoraDriver.capabilities.features})
    )


class HasNoVersion(Good):
    version: ClassVar[str] = "latest"


class ServesAnything(Good):
    amphora_versions: ClassVar[str] = "any"


class ChangesItsMind(Good):
    def offers(self) -> Capabilities:
        self.faults.calls["offers"] += 1
        return (
            self.capabilities if self.faults.calls["offers"] % 2 else replace(self.capabilities, features=frozenset())
        )


class HasShortPrefixes(Good):
    @property
    def heartbeat_prefixes(self) -> tuple[bytes, ...]:
        return (b"FH",)


class HasAnothersPrefix(Good):
    @property
    def heartbeat_prefixes(self) -> tuple[bytes, ...]:
        return (b"FRH1",)


# Rendering


class RendersItself(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        rendered = super().render(tree, amphora, secrets)
        return self.with_text(rendered, f"{rendered.text}{id(self)}")


class RendersTheTime(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        rendered = super().render(tree, amphora, secrets)
        return self.with_text(rendered, f"{rendered.text}generated at {int(time.time())}\n")


class RendersSetsAsTheyCome(Good):
    """The order of a set of strings is another in each process."""

    seed: ClassVar[bytes] = b"here"

    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        rendered = super().render(tree, amphora, secrets)
        lines = sorted(rendered.text.splitlines(), key=lambda line: sha256(self.seed + line.encode()).digest())
        return self.with_text(rendered, "\n".join(lines) + "\n")


class Elsewhere(RendersSetsAsTheyCome):
    seed: ClassVar[bytes] = b"elsewhere"


class ForgetsFilesInTheDigest(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        rendered = super().render(tree, amphora, secrets)
        return replace(rendered, digest=sha256(rendered.text.encode()).hexdigest())


class HasAShortDigest(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        rendered = super().render(tree, amphora, secrets)
        return replace(rendered, digest=rendered.digest[:32])


class RendersNoMembers(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        return super().render(replace(tree, members=()), amphora, secrets)


class IgnoresSourceRestrictions(Good):
    """Offers allowed_cidrs, and lets everybody in."""

    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        listeners = tuple(replace(x, allowed_cidrs=()) for x in tree.listeners)
        return super().render(replace(tree, listeners=listeners), amphora, secrets)


class IgnoresWeights(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        return super().render(
            replace(tree, members=tuple(replace(x, weight=1) for x in tree.members)), amphora, secrets
        )


class RejectsWhatItOffers(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        if any(rule.invert for rule in tree.l7_rules):
            raise Rejected("invert", "not built yet")
        return super().render(tree, amphora, secrets)


class RendersTheDeleted(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        listeners = tuple(replace(x, delete_requested=False) for x in tree.listeners)
        return super().render(replace(tree, listeners=listeners), amphora, secrets)


class StumblesOverNames(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        tree.load_balancer.name.encode("latin-1")
        return super().render(tree, amphora, secrets)


class RejectsNamesOfNobody(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        if not tree.load_balancer.name.isprintable():
            raise Rejected("name", "is not printable")
        return super().render(tree, amphora, secrets)


class StumblesOverTheUnresolved(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        try:
            return super().render(tree, amphora, secrets)
        except Rejected as error:
            raise KeyError(error.reason) from error


class InlinesKeys(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        rendered = super().render(tree, amphora, secrets)
        keys = b"".join(x.private_key for x in secrets.certificates.values())
        return self.with_text(rendered, rendered.text + keys.decode())


class MakesKeysPublic(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        rendered = super().render(tree, amphora, secrets)
        opened = replace(rendered, files=tuple(replace(file, private=False) for file in rendered.files))
        return self.with_text(opened, opened.text)


class WritesAnywhere(Good):
    def render(self, tree: LoadBalancerTree, amphora: Amphora, secrets: Secrets = NO_SECRETS) -> Rendered:
        rendered = super().render(tree, amphora, secrets)
        moved = replace(rendered, files=tuple(replace(x, name=f"../{x.name}") for x in rendered.files))
        return self.with_text(moved, moved.text)


# Previews and boot files


class ForetellsTheBest(Good):
    def preview(self, before: Rendered | None, after: Rendered | None) -> Preview:
        told = super().preview(before, after)
        return replace(told, action="runtime") if told.action == "reload" else told


class ShowsKeysInCommands(Good):
    def preview(self, before: Rendered | None, after: Rendered | None) -> Preview:
        files = () if after is None else after.files
        return replace(super().preview(before, after), commands=tuple(f"set ssl cert <<\n{x.content!r}" for x in files))


class ShowsKeysInTheDiff(Good):
    def preview(self, before: Rendered | None, after: Rendered | None) -> Preview:
        told = super().preview(before, after)
        files: tuple[RenderedFile, ...] = () if after is None or before == after else after.files
        return replace(told, diff=told.diff + "".join(f"+{x.content.decode()}" for x in files))


class ForetellsByTheClock(Good):
    def preview(self, before: Rendered | None, after: Rendered | None) -> Preview:
        self.faults.calls["preview"] += 1
        return replace(super().preview(before, after), reason=str(self.faults.total))


class ForetellsOnlyInItsLoop(Good):
    def preview(self, before: Rendered | None, after: Rendered | None) -> Preview:
        asyncio.get_running_loop()
        return super().preview(before, after)


class ShowsNoDifference(Good):
    def preview(self, before: Rendered | None, after: Rendered | None) -> Preview:
        return replace(super().preview(before, after), diff="")


class LeavesThePlace(Good):
    def boot_files(self, amphora_id: AmphoraId, management_address: str) -> BootFiles:
        return BootFiles(files={"../../etc/cron.d/frontinus": b"* * * * * root true\n"})


# Decoding


class BelievesEverything(Good):
    """Parses without verifying."""

    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        try:
            return msgspec.json.decode(datagram[:-32], type=Heartbeat)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refused("not a heartbeat") from error


class ReadsPastTheEnd(Good):
    """Believes whatever follows a genuine heartbeat."""

    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        for end in range(len(datagram), max(len(datagram) - 600, 0), -1):
            try:
                return super().decode(datagram[:end], now)
            except Refused:
                if end < len(datagram) - 300:
                    raise
        raise Refused("wrong digest")


class CrashesOnJunk(Good):
    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        if datagram[0] == 0:
            raise ValueError
        return super().decode(datagram, now)


class ParsesBeforeItVerifies(Good):
    """And is led by the nose: brackets nest deeper than its parser goes."""

    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        try:
            json.loads(datagram)
        except ValueError as error:
            raise Refused("not a heartbeat") from error
        return super().decode(datagram, now)


class UnpacksBeforeItVerifies(Good):
    """And so allocates whatever anybody wants it to."""

    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        try:
            zlib.decompress(datagram)
        except zlib.error:
            pass
        return super().decode(datagram, now)


class LooksItUp(Good):
    """Asks something slow of whom a datagram is."""

    def decode(self, datagram: bytes, now: datetime) -> Heartbeat:
        time.sleep(0.3)
        return super().decode(datagram, now)


# An amphora


class OnlySaysItApplied(Good):
    async def apply(self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        return Applied(digest=rendered.digest, action="unchanged")


class StartsAnewEachTime(Good):
    """Right in the end, and every push that changes nothing drops everybody's connections."""

    async def apply(self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        applied = await super().apply(amphora, tree, rendered)
        return replace(applied, action="reload") if applied.action == "unchanged" else applied


class HasWordsOfItsOwn(Good):
    async def apply(self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        return replace(await super().apply(amphora, tree, rendered), action="done")


class NeverAppliesLess(Good):
    """Adds what is new and takes nothing away."""

    async def apply(self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        place = self.places.get(amphora.id)
        if place is not None and place.runs is not None and len(place.runs.text) > len(rendered.text):
            return Applied(digest=rendered.digest, action="reload")
        return await super().apply(amphora, tree, rendered)


class AppliesBesideARefusedBind(Good):
    """Takes what it can get and then complains."""

    async def apply(self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        place = self.places.get(amphora.id)
        if place is not None:
            place.on_disk = rendered
        return await super().apply(amphora, tree, rendered)


class CannotBeInterrupted(Good):
    async def apply(self, amphora: Amphora, tree: LoadBalancerTree, rendered: Rendered) -> Applied:
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            await asyncio.sleep(30)
        return await super().apply(amphora, tree, rendered)


class RetiresInWordsOnly(Good):
    async def retire(self, amphora: Amphora, tree: LoadBalancerTree) -> None:
        return


class RetiresWhatWasAppliedOnly(Good):
    async def retire(self, amphora: Amphora, tree: LoadBalancerTree) -> None:
        if self.places[amphora.id].on_disk is None:
            raise Bug("nothing to retire")
        await super().retire(amphora, tree)


class AnswersForTheSilent(Good):
    async def info(self, amphora: Amphora, tree: LoadBalancerTree) -> AmphoraInfo:
        return AmphoraInfo(agent_version="1", balancer_version="1", extension=None, running=True, digest=None)


class AnswersFromMemory(Good):
    """Asks once, and remembers."""

    def __init__(self, places: Mapping[AmphoraId, FakePlace] | None = None, taken: set[int] | None = None) -> None:
        super().__init__(places, taken)
        self.remembered: dict[AmphoraId, AmphoraInfo] = {}

    async def info(self, amphora: Amphora, tree: LoadBalancerTree) -> AmphoraInfo:
        if amphora.id in self.remembered:
            return self.remembered[amphora.id]
        told = await super().info(amphora, tree)
        if told.running:
            self.remembered[amphora.id] = told
        return told


class RaisesWhatItsLibraryRaises(Good):
    async def info(self, amphora: Amphora, tree: LoadBalancerTree) -> AmphoraInfo:
        try:
            return await super().info(amphora, tree)
        except Retry as error:
            raise ConnectionRefusedError(str(error)) from error


class BlocksEverybody(Good):
    """Uses a client that knows nothing of event loops."""

    async def info(self, amphora: Amphora, tree: LoadBalancerTree) -> AmphoraInfo:
        try:
            return await super().info(amphora, tree)
        except Retry:
            time.sleep(1.2)  # noqa: ASYNC251 - that is the defect
            raise


class TakesItsTime(Good):
    async def info(self, amphora: Amphora, tree: LoadBalancerTree) -> AmphoraInfo:
        try:
            return await super().info(amphora, tree)
        except Retry:
            await asyncio.sleep(5.1)
            raise


class GoesOnAfterItWasClosed(Good):
    def __init__(self, places: Mapping[AmphoraId, FakePlace] | None = None, taken: set[int] | None = None) -> None:
        super().__init__(places, taken)
        self.tasks: list[asyncio.Task[None]] = []

    async def info(self, amphora: Amphora, tree: LoadBalancerTree) -> AmphoraInfo:
        self.tasks.append(asyncio.create_task(asyncio.sleep(60)))
        return await super().info(amphora, tree)


class ClosesOnce(Good):
    closed = False

    async def close(self) -> None:
        if self.closed:
            raise Bug("closed already")
        self.closed = True


DEFECTS: list[tuple[type[Good], str]] = [
    (IsForAnotherInterface, "driver states what it is"),
    (OffersWhatNobodyKnows, "driver states what it is"),
    (HasNoVersion, "driver states what it is"),
    (ServesAnything, "driver states what it is"),
    (ChangesItsMind, "driver states what it is"),
    (HasShortPrefixes, "driver states what it is"),
    (HasAnothersPrefix, "changed heartbeat is refused"),
    (RendersItself, "render is pure"),
    (RendersTheTime, "render is pure"),
    (RendersSetsAsTheyCome, "render is the same elsewhere"),
    (ForgetsFilesInTheDigest, "digest follows the secrets"),
    (HasAShortDigest, "render is pure"),
    (RendersNoMembers, "digest follows the configuration"),
    (IgnoresSourceRestrictions, "capabilities are honoured"),
    (IgnoresWeights, "capabilities are honoured"),
    (RejectsWhatItOffers, "capabilities are honoured"),
    (RendersTheDeleted, "deleted objects are not rendered"),
    (StumblesOverNames, "hostile strings are expressed or rejected"),
    (RejectsNamesOfNobody, "hostile strings are expressed or rejected"),
    (StumblesOverTheUnresolved, "unresolved is rejected"),
    (InlinesKeys, "keys stay private"),
    (InlinesKeys, "preview keeps secrets"),
    (MakesKeysPublic, "keys stay private"),
    (WritesAnywhere, "keys stay private"),
    (ForetellsTheBest, "preview foretells apply"),
    (ShowsKeysInCommands, "preview keeps secrets"),
    (ShowsKeysInTheDiff, "preview keeps secrets"),
    (ForetellsByTheClock, "preview is pure"),
    (ForetellsOnlyInItsLoop, "preview is pure"),
    (ShowsNoDifference, "preview is pure"),
    (LeavesThePlace, "boot files repeat"),
    (BelievesEverything, "changed heartbeat is refused"),
    (ReadsPastTheEnd, "changed heartbeat is refused"),
    (CrashesOnJunk, "junk is refused"),
    (ParsesBeforeItVerifies, "junk is refused"),
    (UnpacksBeforeItVerifies, "decode is bounded"),
    (LooksItUp, "decode is bounded"),
    (OnlySaysItApplied, "apply runs what was rendered"),
    (StartsAnewEachTime, "apply repeats"),
    (HasWordsOfItsOwn, "apply runs what was rendered"),
    (NeverAppliesLess, "apply goes anywhere"),
    (AppliesBesideARefusedBind, "refused bind changes nothing"),
    (CannotBeInterrupted, "interrupted apply is completed"),
    (RetiresInWordsOnly, "retire stops balancing"),
    (RetiresWhatWasAppliedOnly, "retire stops balancing"),
    (AnswersForTheSilent, "silence is retry"),
    (AnswersForTheSilent, "info answers"),
    (AnswersFromMemory, "info answers"),
    (RaisesWhatItsLibraryRaises, "silence is retry"),
    (BlocksEverybody, "silence is retry"),
    (BlocksEverybody, "hanging is retry"),
    (TakesItsTime, "silence is retry"),
    (GoesOnAfterItWasClosed, "close touches no amphora"),
    (ClosesOnce, "close touches no amphora"),
]

BY_NAME: dict[str, Check[AmphoraBench]] = {check.name: check for check in amphora_conformance.CHECKS}


def bench_of(driver: type[Good]) -> AmphoraBench:
    good = fake_amphora_bench()
    made = good.factory()
    assert isinstance(made, FakeAmphoraDriver)
    world = made.places, made.taken_ports
    elsewhere = Elsewhere if driver is RendersSetsAsTheyCome else driver

    async def digest_elsewhere(tree: LoadBalancerTree, amphora: Amphora) -> str:
        return elsewhere(*world).render(tree, amphora).digest

    return AmphoraBench(
        factory=lambda: driver(*world),
        place=good.place,
        hold_port=good.hold_port,
        hang=good.hang,
        datagram=good.datagram,
        digest_elsewhere=digest_elsewhere,
    )


@pytest.mark.parametrize("driver, requirement", [pytest.param(*x, id=f"{x[0].__name__}: {x[1]}") for x in DEFECTS])
async def test_a_planted_defect_is_found(driver: type[Good], requirement: str) -> None:
    report = await hold([BY_NAME[requirement]], bench_of(driver), limit=30.0)
    assert report.failed == (requirement,), str(report)


async def test_without_a_defect_nothing_is_found() -> None:
    report = await amphora_conformance.examine(bench_of(Good))
    assert report.failed == (), str(report)
    assert report.skipped == ("traffic reaches the members",)


def test_every_requirement_finds_somebody() -> None:
    """What no driver has ever failed examines nothing; of these the reasons stand beside them."""
    elsewhere = {
        "traffic reaches the members",  # tests/integration/drivers/test_example_driver.py
        "apply carries files",  # a fake's files are in its digest, which `apply goes anywhere` looks at
        "apply without listeners",
        "many tasks at once",
        "identity is renewed",
    }
    found = {requirement for _driver, requirement in DEFECTS}
    assert set(BY_NAME) - found == elsewhere


async def test_the_exam_needs_no_amphora_for_what_is_on_paper() -> None:
    bench = AmphoraBench(factory=Good)
    with pytest.raises(NotExaminable, match="no `place`"):
        await BY_NAME["apply repeats"].run(bench)
