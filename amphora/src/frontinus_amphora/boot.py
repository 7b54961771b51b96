"""The start of an agent in a machine of its own: find the config drive, configure the management interface, lay the
boot files down, become the agent.

A config drive is as Nova makes it: a volume labelled `config-2` with openstack/latest/user_data (ours: JSON with the
files of a place, encoded in base64) and network_data.json. Everything is laid down in memory: the root of the image is
read-only, and one push restores what a restart loses. Started again by init when the agent ends. Next: main.py.
"""

import base64
import ipaddress
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from frontinus_amphora import files, room
from frontinus_amphora.log import log
from frontinus_amphora.main import serve

LABEL = b"config-2"
MOUNT_POINT = "/run/config-drive"
COLDPLUG = "/etc/frontinus/coldplug"
COLDPLUG_AFTER = 1.0  # seconds; what virtio gives is there long before
PLACE = "/var/lib/frontinus"
MEMORY = "/run/frontinus"
AGENT_CONFIG = "agent.conf"
FORMAT = "frontinus-boot-files"
PATIENCE = 20.0  # seconds for devices to appear: without udev nobody says when all are there
GLANCE = 0.05

ISO_VOLUME = 0x8000 + 40  # ECMA-119 8.4: the volume identifier of the primary descriptor, 32 bytes
FAT_LABELS = (43, 71)  # of FAT12/16 and of FAT32


class BadDrive(ValueError):
    """The config drive does not say what an amphora needs; the text says what is wrong."""


class Interface(NamedTuple):
    """What the config drive says of one network interface, and whether DHCP (of IPv4) says the rest."""

    mac: str
    mtu: int | None
    addresses: tuple[str, ...]  # with prefix length
    routes: tuple[tuple[str, str], ...]  # destination, gateway
    dhcp: bool = False


def main() -> int:
    """Become the agent. The exit code when that cannot be; init tries again."""
    os.environ.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    os.umask(0o077)
    try:
        if files.read(f"{PLACE}/{AGENT_CONFIG}") is None:
            log("amphora starts", uptime=_uptime())
            prepare()
    except (BadDrive, OSError, subprocess.SubprocessError) as error:
        log("amphora cannot start", error=str(error))
        time.sleep(1.0)
        return 1
    room.give()
    log("agent starts", uptime=_uptime())
    return serve(f"{PLACE}/{AGENT_CONFIG}", owns_machine=True)


def prepare() -> None:
    """From the config drive to everything that the agent needs. Raises BadDrive, OSError."""
    subprocess.run(["ip", "link", "set", "dev", "lo", "up"], check=True, timeout=30)
    user_data, network_data = read_drive()
    boot_files = parse_user_data(user_data)
    for interface in parse_network_data(network_data, own_address(boot_files)):
        configure(interface)
    files.make_directory(MEMORY)
    # The agent's own file last: with it, this is not done again.
    for name in sorted(boot_files, key=lambda name: name == AGENT_CONFIG):
        path = f"{PLACE}/{name}"
        files.make_directory(os.path.dirname(path))
        files.write_atomically(path, laid_down(name, boot_files[name]))


def parse_user_data(content: bytes) -> dict[str, bytes]:
    """The boot files by their relative path. Raises BadDrive."""
    try:
        value = json.loads(content)
        if value["format"] != FORMAT:
            raise BadDrive(f"user_data is of the format {value['format']!r}, not {FORMAT!r}")
        found = {str(name): base64.b64decode(text, validate=True) for name, text in value["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, BadDrive):
            raise
        raise BadDrive(f"user_data cannot be read: {type(error).__name__}: {error}") from error
    for name in found:
        parts = name.split("/")
        if not name or name.startswith("/") or any(part in ("", ".", "..") for part in parts):
            raise BadDrive(f"file {name!r} does not lie inside the place")
    if AGENT_CONFIG not in found:
        raise BadDrive(f"user_data has no {AGENT_CONFIG}")
    return found


def laid_down(name: str, content: bytes) -> bytes:
    """A boot file as it is in this place."""
    if not name.endswith(".conf"):
        return content
    return content.replace(b"{place}", PLACE.encode()).replace(b"{memory}", MEMORY.encode())


def own_address(boot_files: dict[str, bytes]) -> str:
    """Where the agent shall listen; empty where that is not said. Pure."""
    found = re.search(rb"^bind_host\s*=\s*(\S+)", boot_files[AGENT_CONFIG], re.MULTILINE)
    return "" if found is None else found.group(1).decode("ascii", "replace")


def parse_network_data(content: bytes | None, own: str = "") -> tuple[Interface, ...]:
    """The interfaces of an OpenStack network_data.json; `own` is the address of the agent. Raises BadDrive."""
    if content is None:
        return ()
    try:
        value: dict[str, Any] = json.loads(content)
        return tuple(_interface(link, value.get("networks", ()), own) for link in value.get("links", ()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadDrive(f"network_data.json cannot be read: {type(error).__name__}: {error}") from error


def _interface(link: dict[str, Any], networks: list[dict[str, Any]], own: str) -> Interface:
    addresses: list[str] = []
    routes: list[tuple[str, str]] = []
    of_link = [x for x in networks if x["link"] == link["id"]]
    for network in of_link:
        if network["type"].startswith("ipv6") and "ip_address" not in network and ":" in own:
            # The router says the rest: what is on the link, and the way out. Whichever way Neutron gives its ports their
            # addresses (SLAAC, DHCPv6), that of this one is known already.
            addresses.append(f"{ipaddress.IPv6Address(own)}/128")
        if network["type"] == "ipv4_dhcp" or "ip_address" not in network:
            continue
        mask = network.get("netmask", "")
        address = str(network["ip_address"])
        if "/" not in address:
            address = f"{address}/{_prefix_length(str(mask))}"
        addresses.append(str(ipaddress.ip_interface(address)))
        for route in network.get("routes", ()):
            destination = f"{route['network']}/{_prefix_length(str(route['netmask']))}"
            routes.append((str(ipaddress.ip_network(destination)), str(ipaddress.ip_address(route["gateway"]))))
    mtu = link.get("mtu")
    mac = str(link["ethernet_mac_address"]).lower()
    dhcp = any(x["type"] == "ipv4_dhcp" for x in of_link) or not of_link
    return Interface(mac, None if mtu is None else int(mtu), tuple(addresses), tuple(routes), dhcp)


def _prefix_length(mask: str) -> int:
    """255.255.255.0, ffff:ffff:: or 64, each of which is seen."""
    if mask.isdecimal():
        return int(mask)
    return int(ipaddress.ip_address(mask)).bit_count()


def commands(name: str, interface: Interface) -> list[list[str]]:
    """What configures the network device `name`. Pure."""
    link = ["ip", "link", "set", "dev", name]
    if interface.mtu is not None:
        link += ["mtu", str(interface.mtu)]
    made = [[*link, "up"]]
    if interface.dhcp:
        made.append(["udhcpc", "-i", name, "-n", "-q", "-t", "20", "-T", "1", "-s", "/etc/frontinus/dhcp"])
    # No duplicate address detection: whoever gave the address has none twice, and the agent binds to it at once.
    made += [
        ["ip", "address", "replace", address, "dev", name, *(["nodad"] if ":" in address else [])]
        for address in interface.addresses
    ]
    made += [["ip", "route", "replace", to, "via", gateway, "dev", name] for to, gateway in interface.routes]
    return made


def configure(interface: Interface) -> None:
    """Bring an interface up. Raises BadDrive when it does not appear, SubprocessError when a command fails."""
    name = _wait(lambda: _device_of(interface.mac), f"network device {interface.mac}")
    for command in commands(name, interface):
        subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL)


def read_drive() -> tuple[bytes, bytes | None]:
    """user_data and network_data.json, as they are on the config drive."""
    device = _wait(_find_drive, "a volume labelled config-2")
    os.makedirs(MOUNT_POINT, exist_ok=True)
    if not os.path.ismount(MOUNT_POINT):
        subprocess.run(["mount", "-o", "ro,nosuid,nodev,noexec", device, MOUNT_POINT], check=True, timeout=30)
    try:
        user_data = files.read(f"{MOUNT_POINT}/openstack/latest/user_data")
        network_data = files.read(f"{MOUNT_POINT}/openstack/latest/network_data.json")
    finally:
        subprocess.run(["umount", MOUNT_POINT], check=False, timeout=30)
    if user_data is None:
        raise BadDrive("the config drive has no openstack/latest/user_data")
    return user_data, network_data


def _find_drive() -> str | None:
    for name in sorted(os.listdir("/sys/class/block")):
        if not name.startswith(("ram", "loop")) and _is_labelled(f"/dev/{name}"):
            return f"/dev/{name}"
    return None


def _is_labelled(device: str) -> bool:
    try:
        with open(device, "rb") as volume:
            head = volume.read(512)
            volume.seek(ISO_VOLUME)
            if volume.read(32).rstrip() == LABEL:
                return True
            return any(head[at : at + 11].rstrip().lower() == LABEL for at in FAT_LABELS)
    except OSError:
        return False


def _device_of(mac: str) -> str | None:
    for name in os.listdir("/sys/class/net"):
        if (files.read(f"/sys/class/net/{name}/address") or b"").decode().strip() == mac:
            return name
    return None


def _wait(look: Callable[[], str | None], what: str) -> str:
    """What `look` finds, as soon as it finds something. Raises BadDrive."""
    began = time.monotonic()
    plugged = False
    while (found := look()) is None:
        waited = time.monotonic() - began
        if waited > PATIENCE:
            raise BadDrive(f"there is no {what} after {PATIENCE:g} s")
        if waited > COLDPLUG_AFTER and not plugged:
            plugged = True
            subprocess.run([COLDPLUG], check=False, timeout=60)
        time.sleep(GLANCE)
    return found


def _uptime() -> str:
    return (files.read("/proc/uptime") or b"?").decode().split()[0]


if __name__ == "__main__":
    sys.exit(main())
