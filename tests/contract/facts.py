"""The facts of the contract as tests read them: resources.yaml, behaviours.yaml, rbac.yaml and the published examples."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent

RESOURCE_NAMES = {
    "loadbalancer": "loadbalancer",
    "listener": "listener",
    "pool": "pool",
    "member": "member",
    "healthmonitor": "healthmonitor",
    "l7policy": "l7policy",
    "rule": "l7rule",
    "amphora": "amphora",
    "quota": "quota",
    "flavorprofile": "flavorprofile",
    "flavor": "flavor",
    "availability_zone_profile": "availabilityzoneprofile",
    "availability_zone": "availabilityzone",
}
"""The key on the wire, and how resources.yaml calls the resource."""


_NOT_TAKEN = {"accepted": False}


@cache
def resources() -> Any:
    return yaml.safe_load((HERE / "resources.yaml").read_text())


@cache
def behaviours() -> Any:
    return yaml.safe_load((HERE / "behaviours.yaml").read_text())


@cache
def rbac() -> Any:
    return yaml.safe_load((HERE / "rbac.yaml").read_text())


def fields(item_key: str) -> dict[str, Any]:
    """The contract's attributes of the resource that this key wraps."""
    found: dict[str, Any] = resources()["resources"][RESOURCE_NAMES[item_key]]["fields"]
    # What no operation takes goes without saying so.
    return {wire: {"create": _NOT_TAKEN, "update": _NOT_TAKEN} | fact for wire, fact in found.items()}


def example(name: str) -> Any:
    return json.loads((HERE / "examples" / f"{name}.json").read_text())
