"""What the agent can tell of its machine: versions, load, memory, interfaces. Reads /proc, changes nothing."""

import array
import fcntl
import ipaddress
import os
import re
import socket
import struct
import threading

from frontinus_amphora import API_VERSION, files, processes


class Haproxy:
    """The haproxy program: its version and abilities, asked once, when first needed."""

    def __init__(self, command: str) -> None:
        self.command = command
        self._lock = threading.Lock()
        self._version = ""
        self._notifies = False

    def version(self) -> str:
        """Like 2.6.12; empty when the program does not run."""
        self._ask()
        return self._version

    def arguments(self) -> tuple[str, ...]:
        """Program and mode: `-Ws` is master-worker as `-W`, but deaf to the word `daemon` in a configuration."""
        self._ask()
        return (self.command, "-Ws" if self._notifies else "-W")

    def _ask(self) -> None:
        with self._lock:
            if not self._version:
                code, output = processes.run((self.command, "-vv"), 10.0)
                match = re.search(r"version (\d+\.\d+[\w.]*)", output) if code == 0 else None
                self._version = match[1] if match else ""
                major = int(self._version.partition(".")[0] or 0)
                self._notifies = "+SYSTEMD" in output or major >= 3


def info(haproxy: Haproxy, keepalived: str) -> dict[str, object]:
    """Body of GET /1.0/info. `keepalived` is its version, empty when there is none."""
    return {
        "hostname": socket.gethostname(),
        "haproxy_version": haproxy.version(),
        "api_version": API_VERSION,
        "keepalived_version": keepalived,
        "ipvsadm_version": "",
    }


def details(
    haproxy: Haproxy, keepalived: str, listener_ids: list[str], haproxy_count: int, directory: str
) -> dict[str, object]:
    """Body of GET /1.0/details."""
    cpu = _lines("/proc/stat")[:1]
    jiffies = cpu[0].split()[1:] if cpu else []
    jiffies += ["0"] * (10 - len(jiffies))
    disk = os.statvfs(directory)
    return {
        **info(haproxy, keepalived),
        "networks": _networks(),
        "active": True,
        "haproxy_count": haproxy_count,
        "cpu_count": os.cpu_count() or 1,
        "cpu": {
            "total": sum(int(value) for value in jiffies),
            "user": jiffies[0],
            "system": jiffies[2],
            "soft_irq": jiffies[6],
        },
        "memory": _memory(),
        "disk": {"used": (disk.f_blocks - disk.f_bfree) * disk.f_frsize, "available": disk.f_bavail * disk.f_frsize},
        "load": (_lines("/proc/loadavg") or ["0 0 0"])[0].split()[:3],
        "active_tuned_profiles": " ".join(_lines("/etc/tuned/active_profile")).strip(),
        "topology": "SINGLE",  # constants, by contract
        "topology_status": "OK",
        "listeners": listener_ids,
        "packages": {},
        "lvs_listener_process_count": 0,
    }


def memory_kib() -> tuple[int, int]:
    """What the machine has, and what of it programs could have now."""
    values = dict(line.partition(":")[::2] for line in _lines("/proc/meminfo"))
    total, available = (int(values.get(name, "0").split()[0]) for name in ("MemTotal", "MemAvailable"))
    return total, available


def interface_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    """The interface which holds this address; None when none does."""
    if isinstance(address, ipaddress.IPv6Address):
        for line in _lines("/proc/net/if_inet6"):
            words = line.split()
            if len(words) == 6 and bytes.fromhex(words[0]) == address.packed:
                return words[5]
        return None
    for name, held in _ipv4_addresses():
        if held == address.packed:
            return name
    return "lo" if address.is_loopback else None  # all of 127.0.0.0/8 is there without being configured


def holds(text: str) -> bool:
    """True when an interface holds this address."""
    try:
        return interface_of(ipaddress.ip_address(text)) is not None
    except ValueError:
        return False


def _ipv4_addresses() -> list[tuple[str, bytes]]:
    siocgifconf, size = 0x8912, 40
    buffer = array.array("B", bytes(size * 256))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("iL", len(buffer), buffer.buffer_info()[0])
        used = struct.unpack("iL", fcntl.ioctl(probe.fileno(), siocgifconf, request))[0]
    entries = (bytes(buffer[at : at + size]) for at in range(0, used, size))
    return [(entry[:16].split(b"\0", 1)[0].decode().partition(":")[0], entry[20:24]) for entry in entries]


def _networks() -> dict[str, object]:
    found: dict[str, object] = {}
    for line in _lines("/proc/net/dev"):
        name, separator, numbers = line.partition(":")
        words = numbers.split()
        if separator and name.strip().startswith("eth") and len(words) >= 16:
            found[name.strip()] = {"network_tx": int(words[8]), "network_rx": int(words[0])}
    return found


def _memory() -> dict[str, int]:
    values: dict[str, int] = {}
    for line in _lines("/proc/meminfo"):
        name, _, rest = line.partition(":")
        words = rest.split()
        values[name] = int(words[0]) if words and words[0].isdecimal() else 0
    wanted = {"MemTotal": "total", "MemFree": "free", "Buffers": "buffers", "Cached": "cached", "Shmem": "shared"}
    found = {word: values.get(name, 0) for name, word in wanted.items()}
    found["swap_used"] = values.get("SwapTotal", 0) - values.get("SwapFree", 0)
    found["slab"] = values.get("Slab", 0)
    return found


def _lines(path: str) -> list[str]:
    try:
        return (files.read(path) or b"").decode("utf-8", "replace").splitlines()
    except OSError:
        return []
