"""The host's ends of a machine's ports: taps on bridges, by iproute2. Blocking; used in threads. All safe to repeat."""

from __future__ import annotations

import subprocess
from pathlib import Path

_INTERFACES = Path("/sys/class/net")


class LinkFailed(OSError):
    """iproute2 did not do it; the text says why."""


def raise_tap(name: str, bridge: str, mtu: int) -> None:
    """The tap is there, on its bridge, and up. Raises LinkFailed."""
    if not (_INTERFACES / bridge / "bridge").is_dir():
        raise LinkFailed(f"this host has no bridge {bridge}")
    if not (_INTERFACES / name).exists():
        _ip("tuntap", "add", "dev", name, "mode", "tap")
    # Nothing of the host answers by this interface: it is the guest's.
    disabled = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if disabled.exists():
        disabled.write_text("1")
    _ip("link", "set", "dev", name, "mtu", str(mtu), "master", bridge, "up")


def remove_tap(name: str) -> None:
    """There is no such interface any more. Raises LinkFailed."""
    if (_INTERFACES / name).exists():
        _ip("link", "delete", "dev", name)


def is_on_bridge(name: str) -> bool:
    """Whether the tap is there and on some bridge."""
    return (_INTERFACES / name / "master").exists()


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise LinkFailed("iproute2 is not installed: apt-get install iproute2") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip()
        raise LinkFailed(f"ip {' '.join(words)}: {said or error.returncode}") from error
    except subprocess.TimeoutExpired as error:
        raise LinkFailed(f"ip {' '.join(words)} does not end") from error
