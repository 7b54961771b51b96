"""`frontinus driver list` and `frontinus driver check`: what drivers there are, and whether one keeps its promises."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from frontinus.cli.driver_bench import KITS, Places, Subject, open_ear, paper_bench, subject
from frontinus.cli.output import complain, say, settings_or_exit, start_logging, table
from frontinus.loading import DRIVER_KINDS, DriverKind, Offer, driver_class, find, load_from, offers
from frontinus.model.errors import Invalid
from frontinus.settings import LogLevel, LogSettings, Settings
from frontinus.testing.exam import Check, Finding, Outcome, hold


def list_(file: Path | None, overrides: dict[str, object], *, as_json: bool) -> int:
    """Every driver that is installed, and whether these settings let it load. Nothing of a driver is imported."""
    settings = settings_or_exit(file, overrides)
    found = [offer for kind in DRIVER_KINDS.values() for offer in offers(kind)]
    if as_json:
        say(json.dumps([_as_record(x, settings) for x in found], indent=2))
        return 0
    rows = [
        (x.kind.name, x.name, f"{x.distribution} {x.distribution_version}", _state(x, settings), x.where) for x in found
    ]
    table(("kind", "name", "distribution", "state", "class"), rows)
    for kind in DRIVER_KINDS.values():
        say(f"The interface of {kind.name} drivers is version {kind.version}, {kind.maturity}.")
    return 0


def _state(offer: Offer, settings: Settings) -> str:
    if getattr(settings.drivers, offer.kind.name) == offer.name:
        return "chosen" if offer.refusal(settings.drivers.allow_experimental) is None else "chosen, not allowed"
    return "loads" if offer.refusal(settings.drivers.allow_experimental) is None else "not allowed"


def _as_record(offer: Offer, settings: Settings) -> dict[str, object]:
    return {
        "kind": offer.kind.name,
        "name": offer.name,
        "distribution": offer.distribution,
        "distribution_version": offer.distribution_version,
        "class": offer.where,
        "chosen": getattr(settings.drivers, offer.kind.name) == offer.name,
        "refusal": offer.refusal(settings.drivers.allow_experimental),
        "interface_version": offer.kind.version,
        "interface_maturity": offer.kind.maturity,
    }


def check(
    reference: str,
    file: Path | None,
    *,
    bench: str | None = None,
    only: Sequence[str] = (),
    on_paper: bool = False,
    strict: bool = False,
    as_json: bool = False,
    limit: float = 60.0,
) -> int:
    """Hold the exam of a driver, by its name or as module:Class. Exit status 0 when nothing failed (and, if `strict`,
    everything that applies was examined), 1 otherwise, 2 when there is no driver to examine."""
    start_logging(LogSettings(level=LogLevel.ERROR))
    with tempfile.TemporaryDirectory(prefix="frontinus-exam-") as scratch:
        settings = settings_or_exit(file, {"state_dir": scratch})
        try:
            kind, driver = _driver(reference)
            return asyncio.run(_examine(kind, driver, settings, bench, only, on_paper, strict, as_json, limit))
        except Invalid as error:
            complain(str(error))
            return 2


def _driver(reference: str) -> tuple[DriverKind, type[Any]]:
    """To name a driver here is the operator's word that it may be loaded, for this once."""
    if ":" in reference:
        kind, found = load_from(reference)
        return kind, driver_class(kind, reference, found, is_ours=found.__module__.startswith("frontinus."))
    for kind in DRIVER_KINDS.values():
        with suppress(Invalid):
            offer = find(kind, reference)
            return _of_offer(kind, offer)
    known = sorted({x.name for kind in DRIVER_KINDS.values() for x in offers(kind)})
    raise Invalid("driver", f"{reference!r} is neither module:Class nor one of {', '.join(known)}")


def _of_offer(kind: DriverKind, offer: Offer) -> tuple[DriverKind, type[Any]]:
    return kind, driver_class(kind, offer.name, load_from(offer.where)[1], is_ours=offer.is_ours)


async def _examine(
    kind: DriverKind,
    driver: type[Any],
    settings: Settings,
    bench: str | None,
    only: Sequence[str],
    on_paper: bool,
    strict: bool,
    as_json: bool,
    limit: float,
) -> int:
    checks, bench_class = KITS[kind.name]
    chosen = _chosen(checks, only)
    ear, heard_at = open_ear()
    with ear:
        examined = subject(kind, driver, settings, heard_at)
        made: Any
        places: Places | None = None
        if bench is not None:
            made = _bench_from(bench, bench_class, examined)
        elif kind.name != "amphora":
            made = bench_class(factory=examined.make)
        elif on_paper:
            made = paper_bench(examined)
        else:
            places = Places(examined, settings, ear)
            made = places.bench()
        await _try(examined)
        findings = []
        try:
            for each in chosen:
                (finding,) = (await hold([each], made, limit)).findings
                findings.append(finding)
                if not as_json:
                    _tell(finding)
        finally:
            if places is not None:
                for amphora_id in await places.compute.list_owned():
                    await places.compute.destroy(amphora_id)
                await places.compute.close()
    counted = Counter(finding.outcome for finding in findings)
    lacking = counted[Outcome.FAILED] + (counted[Outcome.SKIPPED] if strict else 0)
    if as_json:
        say(json.dumps(_as_report(examined, findings, counted), indent=2))
    else:
        summary = ", ".join(f"{counted[outcome]} {outcome}" for outcome in Outcome if counted[outcome])
        say(f"\n{kind.name} driver {driver.name} ({driver.__module__}:{driver.__qualname__}): {summary}")
    return 1 if lacking else 0


async def _try(examined: Subject) -> None:
    """Raise Invalid for settings with which it cannot be made, before every check says so."""
    await examined.make().close()


def _chosen(checks: Sequence[Check[Any]], only: Sequence[str]) -> list[Check[Any]]:
    known = {each.name: each for each in checks}
    for name in only:
        if name not in known:
            raise Invalid("--only", f"no requirement is called {name!r}; there are: {', '.join(known)}")
    return [each for each in checks if not only or each.name in only]


def _bench_from(reference: str, bench_class: type[Any], examined: Subject) -> Any:
    module_name, _, function_name = reference.partition(":")
    try:
        made = getattr(import_module(module_name), function_name)(examined.make)
    except (ImportError, AttributeError, ValueError) as error:
        raise Invalid("--bench", f"{reference} cannot be imported: {error}") from error
    if not isinstance(made, bench_class):
        raise Invalid("--bench", f"{reference} gave {type(made).__name__}, not {bench_class.__name__}")
    return made


def _tell(finding: Finding) -> None:
    width = max(map(len, Outcome))
    say(f"{finding.outcome:{width}}  {finding.check}: {finding.claim}")
    if finding.detail:
        say(f"{'':{width}}  {finding.detail}")


def _as_report(examined: Subject, findings: Sequence[Finding], counted: Counter[Outcome]) -> dict[str, object]:
    driver = examined.driver
    return {
        "kind": examined.kind.name,
        "driver": driver.name,
        "class": f"{driver.__module__}:{driver.__qualname__}",
        "version": getattr(driver, "version", None),
        "interface_version": examined.kind.version,
        "interface_maturity": examined.kind.maturity,
        "passed": not counted[Outcome.FAILED],
        "counts": {outcome.value: counted[outcome] for outcome in Outcome},
        "requirements": [
            {"name": x.check, "claim": x.claim, "outcome": x.outcome.value, "detail": x.detail} for x in findings
        ],
    }
