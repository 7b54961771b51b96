"""What a machine is started with: QEMU's command line, and its config drive. Pure. Next: driver.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_interface
from pathlib import Path

import msgspec

from frontinus.drivers.compute.qemu.iso9660 import volume
from frontinus.drivers.compute.user_data import user_data
from frontinus.model.boot import BootFiles
from frontinus.model.ids import AmphoraId, LoadBalancerId, PortId
from frontinus.model.ports import Port, PortPurpose, link_name

CONFIG_DRIVE, CONSOLE, PID_FILE, QMP, MONITOR = "config.iso", "console.log", "qemu.pid", "qmp", "monitor"
"""Names in the directory of a machine; QEMU is started in it. `monitor` is for people: they may keep it occupied."""

KERNEL, RAM_DISK, DISK = "vmlinuz", "initrd", "amphora.raw"
"""Names in the directory of an image (amphora/image/build)."""

KERNEL_WORDS = "console=ttyS0 quiet panic=5"

ACCELERATORS: Mapping[str, tuple[str, ...]] = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    # Translated code may take 64 MB; QEMU's own limit is a GB for each machine.
    "tcg": ("-accel", "tcg,thread=multi,tb-size=64", "-cpu", "max"),
}

NIC_PREFIX, NETDEV_PREFIX = "nic-", "net-"


def tap_name(port_id: PortId) -> str:
    """The host's end of a port, as the network driver knows it."""
    return link_name(port_id)


def nic(port: Port) -> dict[str, object]:
    """The guest's end, in the words of QMP's device_add. No boot ROM: nothing is booted from the network."""
    return {
        "driver": "virtio-net-pci",
        "id": f"{NIC_PREFIX}{port.id}",
        "netdev": f"{NETDEV_PREFIX}{port.id}",
        "mac": port.mac,
        "romfile": "",
    }


def netdev(port: Port) -> dict[str, object]:
    """The host's end, in the words of QMP's netdev_add. The tap is there already (taps.py)."""
    return {
        "type": "tap",
        "id": f"{NETDEV_PREFIX}{port.id}",
        "ifname": tap_name(port.id),
        "script": "no",
        "downscript": "no",
    }


def arguments(
    *,
    amphora_id: AmphoraId,
    directory: Path,
    image: Path,
    accelerator: str,
    memory_mib: int,
    cpus: int,
    ports: Sequence[Port],
) -> list[str]:
    """QEMU's words, without the program. Relative names are in `directory`, where it is started; the process id goes to
    an absolute path, which proves whose it is.

    `-no-shutdown`: a guest that was powered off leaves a process that says so, and that is how a planned stop is told
    from a failure. The image is only read, so that any number of machines share one."""
    words = ["-name", f"guest=frontinus-{amphora_id}", "-uuid", amphora_id]
    words += ["-nodefaults", "-no-user-config", "-machine", "pc", *ACCELERATORS[accelerator]]
    words += ["-m", str(memory_mib), "-smp", str(cpus), "-display", "none", "-no-shutdown"]
    # More cannot be denied to one that becomes a daemon after the filter is in force.
    words += ["-sandbox", "on,obsolete=deny,resourcecontrol=deny"]
    words += ["-kernel", str(image / KERNEL), "-initrd", str(image / RAM_DISK)]
    words += ["-append", KERNEL_WORDS]
    for number, (path, name) in enumerate(((image / DISK, "root"), (Path(CONFIG_DRIVE), "config"))):
        words += ["-drive", f"id={name},if=none,file={_escaped(path)},format=raw,readonly=on,file.locking=off"]
        words += ["-device", f"virtio-blk-pci,drive={name},addr={number + 3:#x}"]
    words += ["-device", "virtio-rng-pci"]
    for port in ports:
        words += ["-netdev", _flat(netdev(port)), "-device", _flat(nic(port))]
    words += ["-chardev", f"file,id=console,path={CONSOLE},append=on", "-serial", "chardev:console"]
    for name, mode in ((QMP, "control"), (MONITOR, "readline")):
        words += ["-chardev", f"socket,id={name},path={name},server=on,wait=off", "-mon", f"chardev={name},mode={mode}"]
    return [*words, "-daemonize", "-pidfile", str(directory / PID_FILE)]


def config_drive(
    amphora_id: AmphoraId, load_balancer_id: LoadBalancerId, boot: BootFiles, ports: Sequence[Port]
) -> bytes:
    """The config drive, as Nova makes one."""
    meta = {"uuid": amphora_id, "name": f"amphora-{amphora_id}", "meta": {"load_balancer_id": load_balancer_id}}
    return volume(
        "config-2",
        {
            "openstack/latest/meta_data.json": msgspec.json.encode(meta, order="deterministic"),
            "openstack/latest/network_data.json": msgspec.json.encode(network_data(ports), order="deterministic"),
            "openstack/latest/user_data": user_data(boot),
        },
    )


def network_data(ports: Sequence[Port]) -> dict[str, object]:
    """OpenStack's network_data.json of the management port; what else is plugged, the agent is told by its driver."""
    management = [port for port in ports if port.purpose is PortPurpose.MANAGEMENT]
    networks = []
    for port in management:
        for number, each in enumerate(port.addresses):
            held = ip_interface(f"{each.address}/{each.prefix_length}")
            default = "0.0.0.0" if held.version == 4 else "::"
            routes = [] if each.gateway is None else [{"network": default, "netmask": default, "gateway": each.gateway}]
            networks.append(
                {
                    "id": f"{port.id}-{number}",
                    "link": port.id,
                    "type": f"ipv{held.version}",
                    "ip_address": str(held.ip),
                    "netmask": str(held.netmask),
                    "routes": routes,
                }
            )
    links = [{"id": x.id, "type": "phy", "ethernet_mac_address": x.mac, "mtu": x.mtu} for x in management]
    return {"links": links, "networks": networks, "services": []}


def _flat(words: Mapping[str, object]) -> str:
    """QMP's words as an option: the first names the kind and stands bare."""
    (_, kind), *others = words.items()
    return ",".join([str(kind), *(f"{key}={value}" for key, value in others)])


def _escaped(path: Path) -> str:
    """A comma ends a value, two are one."""
    return str(path).replace(",", ",,")
