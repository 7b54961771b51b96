"""The image of an amphora built from nothing, and a load balancer on a virtual machine started from it that serves HTTP,
TLS and UDP (LVS), over a whole `frontinus up`: how long each takes.

Needs root. The image is built in .cache/image, as by `make image`, with Debian's packages taken anew; KVM is used where
there is one, else the processor is emulated. All but the build is in a sandbox of its own, which ends with it.

Usage: make machine, or python bench/machine_from_nothing.py [--keep-image]"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import cpu_seconds, print_result

from frontinus.drivers.compute.qemu.kvm import has_kvm

from tests.integration.netns.hosts import installation
from tests.integration.netns.shop import IMAGE, SERVED, Shop, agent_started_after
from tests.integration.netns.test_sandbox import PREPARE, UNSHARE

HERE = Path(__file__).parents[1]
OPTIONS = f'[controller]\nspares = 0\n[driver_options.qemu]\nimage = "{IMAGE}"\n'
IN_SANDBOX = "FRONTINUS_BENCH_SANDBOX"
"""What was found out before it, as JSON."""


def main(found: dict[str, object]) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="frontinus-bench-") as directory,
        installation(Path(directory), "qemu", OPTIONS) as frontinus,
    ):
        shop = Shop(frontinus)
        asked = time.monotonic()
        load_balancer_id = shop.create()
        frontinus.until(lambda: shop.answers()["http"] == SERVED["http"], "HTTP is served", 180)
        served = time.monotonic()
        frontinus.settled(load_balancer_id, 60)
        active = time.monotonic()
        machine = shop.machine(load_balancer_id)
        cpu = cpu_seconds(int((machine / "qemu.pid").read_text()))
        answers = shop.answers()
        assert answers == SERVED, answers
        print_result(
            "machine_from_nothing",
            **found,
            processor="KVM" if has_kvm() else "emulated",
            agent_after_boot_s=agent_started_after(machine),
            created_to_http_s=round(served - asked, 1),
            created_to_active_s=round(active - asked, 1),
            cpu_of_machine_s=round(cpu, 1),
            answered_by={over: sorted(str(x) for x in names) for over, names in answers.items()},
        )


def build() -> dict[str, object]:
    """Build the image; what that took, and what is in it."""
    began = time.monotonic()
    command = [HERE / "amphora" / "image" / "build", IMAGE]
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, "FRONTINUS_IMAGE_FRESH": "1"})
    return {"image_s": round(time.monotonic() - began, 1)}


def contents() -> dict[str, object]:
    manifest = json.loads((IMAGE / "manifest.json").read_text())
    size = (IMAGE / "amphora.qcow2").stat().st_size
    versions = {name: manifest[name] for name in ("suite", "kernel", "haproxy", "keepalived", "agent")}
    return {"image_mib": size // 2**20, "image": versions}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep-image", action="store_true", help="take the image that is there")
    arguments = parser.parse_args()
    if IN_SANDBOX in os.environ:
        main(json.loads(os.environ[IN_SANDBOX]))
    else:
        before = {**({} if arguments.keep_image else build()), **contents()}
        again = ("sh", "-c", PREPARE, "sh", sys.executable, *sys.argv)
        os.execvpe(UNSHARE[0], [*UNSHARE, *again], {**os.environ, IN_SANDBOX: json.dumps(before)})
