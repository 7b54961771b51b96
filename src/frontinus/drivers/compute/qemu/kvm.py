"""Whether a guest can run on this machine's own processor, and if not, why. Next: driver.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

DEVICE, PROCESSORS = Path("/dev/kvm"), Path("/proc/cpuinfo")


class Lack(NamedTuple):
    """What is in the way, and what might be done about it."""

    reason: str
    advice: str


def kvm_lacks(device: Path = DEVICE, processors: Path = PROCESSORS) -> Lack | None:
    """What keeps guests from running on the processor; None when nothing does. A processor without virtualisation may
    still show the device: what that runs is no kernel."""
    lines = processors.read_text().splitlines()
    flags = next((x.partition(":")[2].split() for x in lines if x.startswith("flags")), [])
    if {"vmx", "svm"}.isdisjoint(flags):
        advice = (
            "switch it on in the firmware; where this is a virtual machine itself, its host must hand it on (nested)"
        )
        return Lack("the processor shows no virtualisation (vmx or svm)", advice)
    try:
        os.close(os.open(device, os.O_RDWR))
    except FileNotFoundError:
        return Lack(f"there is no {device}", "modprobe kvm_intel, or kvm_amd")
    except OSError as error:
        return Lack(f"{device} cannot be opened: {error.strerror}", "run as root, or as a member of the group kvm")
    return None


def has_kvm() -> bool:
    return kvm_lacks() is None
