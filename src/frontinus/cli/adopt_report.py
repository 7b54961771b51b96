"""What `frontinus adopt octavia` tells before it does anything: what is taken over, what stays and why, what is in the way.

For an operator who reads it before a night's work, and for `--json`. Values in, text out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from frontinus.adoption.octavia import Findings, LeftAlone, Offer
from frontinus.adoption.octavia_settings import OctaviaSettings
from frontinus.cli.output import complain, say
from frontinus.model.enums import Topology
from frontinus.model.tree import Amphora, LoadBalancerTree


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, of one moment."""

    findings: Findings
    trees: tuple[LoadBalancerTree, ...]
    left: tuple[LeftAlone, ...]
    obstacles: tuple[str, ...]
    receivers: tuple[str, ...]


def tell(report: Report) -> None:
    """In words: load balancers with their amphorae, offers and quotas, what is left alone, and last what is in the way."""
    for tree in report.trees:
        load_balancer = tree.load_balancer
        say(
            f"take over  load balancer {tree.id} {load_balancer.name}: project {load_balancer.project_id}, "
            f"VIP {', '.join(tree.addresses())}, {load_balancer.topology}, {_counts(tree)}"
        )
        for amphora in tree.amphorae:
            say(f"             amphora {amphora.id}: {_amphora(amphora)}")
    for note in report.findings.notes:
        say(f"note       {note.kind} {note.id} {note.name}: {note.text}")
    for offer in report.findings.offers:
        say(f"take over  {_kind(offer)} {offer.name}")
    if report.findings.quotas:
        say(f"take over  quotas of {len(report.findings.quotas)} projects")
    for alone in report.left:
        say(f"leave      {alone.kind} {alone.id} {alone.name}: {alone.reason}")
    pairs = sum(x.load_balancer.topology is not Topology.SINGLE for x in report.trees)
    amphorae = sum(len(x.amphorae) for x in report.trees)
    say(
        f"{len(report.trees)} load balancers can be taken over ({pairs} of them pairs), with {amphorae} amphorae; "
        f"{len(report.left)} things are left alone. Their heartbeats go to "
        f"{', '.join(report.receivers) or 'nobody'}: health receivers must listen there."
    )
    for number, obstacle in enumerate(report.obstacles, 1):
        complain(f"in the way, {number} of {len(report.obstacles)}: {obstacle}")


def tell_json(report: Report, *, done: bool, taken: int, there: int) -> None:
    say(
        json.dumps(
            {
                "done": done,
                "taken_over": taken,
                "here_already": there,
                "load_balancers": [_record(x) for x in report.trees],
                "offers": [{"kind": x.kind.value, "name": x.name} for x in report.findings.offers],
                "quotas": sorted(report.findings.quotas),
                "notes": [msgspec.to_builtins(x) for x in report.findings.notes],
                "left_alone": [msgspec.to_builtins(x) for x in report.left],
                "obstacles": list(report.obstacles),
                "heartbeat_receivers": list(report.receivers),
            },
            indent=2,
        )
    )


def report_of(
    findings: Findings,
    trees: Sequence[LoadBalancerTree],
    left: Sequence[LeftAlone],
    obstacles: Sequence[str],
    theirs: OctaviaSettings,
) -> Report:
    return Report(
        findings=findings,
        trees=tuple(trees),
        left=tuple(left),
        obstacles=tuple(obstacles),
        receivers=tuple(theirs.heartbeat_receivers),
    )


def _record(tree: LoadBalancerTree) -> dict[str, Any]:
    load_balancer = tree.load_balancer
    return {
        "id": tree.id,
        "name": load_balancer.name,
        "project_id": load_balancer.project_id,
        "vips": list(tree.addresses()),
        "topology": load_balancer.topology.value,
        "amphorae": [
            {
                "id": x.id,
                "role": x.role.value,
                "compute_id": x.compute_id,
                "management_address": x.management_address,
                "ports": [y.id for y in x.ports],
                "certificate_expires_at": None
                if x.certificate_expires_at is None
                else x.certificate_expires_at.isoformat(),
            }
            for x in tree.amphorae
        ],
    }


def _counts(tree: LoadBalancerTree) -> str:
    counts = Counter(x.kind.replace("_", " ") for x in tree.children())
    return ", ".join(f"{count} {_plural(kind, count)}" for kind, count in counts.items()) or "nothing on it"


def _plural(kind: str, count: int) -> str:
    if count == 1:
        return kind
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


def _amphora(amphora: Amphora) -> str:
    until = amphora.certificate_expires_at
    certificate = "certificate without an end" if until is None else f"certificate until {until:%Y-%m-%d}"
    ports = f", {len(amphora.ports)} ports" if amphora.ports else ""
    return f"{amphora.role} at {amphora.management_address}, server {amphora.compute_id}{ports}, {certificate}"


def _kind(offer: Offer) -> str:
    return offer.kind.replace("_", " ")
