"""Genuine agents of the octavia package, each as an amphora with interfaces, mounts and processes of its own.

What is stubbed: `systemctl` (stand_in/systemctl obeys the units that the agent writes), and the image around the agent
(stand_in/machine: directories, HAProxy's group file, a syslog socket). The agent, its configuration file and certificates in
Octavia's form, its interfaces, HAProxy and keepalived are the real ones. To be used in a machine of its own (`run`), as root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from frontinus.model.ids import AmphoraId, NetworkId, PortId, SubnetId
from frontinus.model.ports import Port, PortAddress, PortPurpose

from tests.integration.netns.hosts import ip

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
MANAGEMENT, VIPS = "192.0.2", "198.51.100"
"""The networks of management and of VIPs: .1 of each is this machine, which is controller, client and members."""

SUBNET, NETWORK = SubnetId("00000000-0000-0000-0000-0000000000b1"), NetworkId("00000000-0000-0000-0000-0000000000b2")
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


def installation() -> Path:
    """Where the octavia package is; installed on first use."""
    done = subprocess.run([REPOSITORY / "scripts/octavia"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def lay_networks() -> None:
    for name, address in (("management", MANAGEMENT), ("vips", VIPS)):
        ip("link", "add", name, "type", "bridge")
        ip("link", "set", name, "up")
        ip("address", "add", f"{address}.1/24", "dev", name)


AGENT_CONFIG = """[DEFAULT]
debug = False
use_syslog = False

[haproxy_amphora]
base_cert_dir = /var/lib/octavia/certs
base_path = /var/lib/octavia
bind_host = {address}
bind_port = 9443
haproxy_cmd = /usr/sbin/haproxy

[health_manager]
controller_ip_port_list = {receivers}
heartbeat_interval = 1
heartbeat_key = {key}

[amphora_agent]
agent_server_ca = /etc/octavia/certs/client_ca.pem
agent_server_cert = /etc/octavia/certs/server.pem
agent_request_read_timeout = 180
amphora_id = {amphora_id}
amphora_udp_driver = keepalived_lvs
agent_tls_protocol = TLSv1.2

[controller_worker]
loadbalancer_topology = {topology}
"""


class GenuineAmphora:
    """One of them; `number` makes its addresses."""

    def __init__(
        self,
        amphora_id: AmphoraId,
        number: int,
        directory: Path,
        *,
        server: bytes,
        client_ca: bytes,
        key: str,
        receivers: str,
        topology: str = "SINGLE",
    ) -> None:
        self.id = amphora_id
        self.name = f"amphora{number}"
        self.address = f"{MANAGEMENT}.{10 + number}"
        self.directory = directory
        for kept in ("etc/certs", "lib"):
            (directory / kept).mkdir(parents=True)
        (directory / "etc/certs/server.pem").write_bytes(server)
        (directory / "etc/certs/client_ca.pem").write_bytes(client_ca)
        (directory / "etc/amphora-agent.conf").write_text(
            AGENT_CONFIG.format(
                address=self.address, receivers=receivers, key=key, amphora_id=amphora_id, topology=topology
            )
        )
        mac = f"02:00:00:00:01:{number:02x}"
        ip("netns", "add", self.name)
        for bridge, inside, its_mac in (("management", "eth0", f"02:00:00:00:00:{number:02x}"), ("vips", "ens4", mac)):
            link = f"{bridge[:4]}{number}"
            ip("link", "add", link, "type", "veth", "peer", "name", inside, "address", its_mac, "netns", self.name)
            ip("link", "set", link, "master", bridge, "up")
        ip("-n", self.name, "link", "set", "lo", "up")
        ip("-n", self.name, "link", "set", "eth0", "up")
        ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        own = PortAddress(address=f"{VIPS}.{10 + number}", prefix_length=24, subnet_id=SUBNET, gateway=f"{VIPS}.1")
        self.port = Port(
            id=PortId(f"00000000-0000-0000-0000-0000000001{number:02x}"),
            amphora_id=amphora_id,
            purpose=PortPurpose.VIP,
            network_id=NETWORK,
            mac=mac,
            mtu=1500,
            addresses=(own,),
            attachment="vips",
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *UNSHARE, HERE / "stand_in/machine", self.directory, installation()],
            stdin=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")


MACHINE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
PREPARE = 'mount -t tmpfs tmpfs /run && mount -t sysfs sysfs /sys && ip link set lo up && exec "$@"'


def run(*words: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """A Python program in a machine of its own: its networks, mounts and processes end with it."""
    installation()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return subprocess.run(
        [*MACHINE, "sh", "-c", PREPARE, "sh", sys.executable, *words],
        env={**environment, "PATH": path},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
