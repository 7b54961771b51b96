"""`frontinus openstack check --try`: what can only be known by doing it is done, and undone at once.

What is made bears names and marks of its own, and is never taken for anything of a load balancer's. It is looked for by them before
and after: so it goes whatever happened, also when Ctrl-C came while a request was under way; what a `kill -9` leaves, the next
try removes. No server is made: that needs an image that starts, and the first load balancer shows it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from frontinus.cli.output import complain
from frontinus.drivers.compute.nova.nova import MICROVERSION, Nova
from frontinus.drivers.compute.nova.settings import NO_GROUPS, NovaSettings
from frontinus.drivers.network.neutron import choice
from frontinus.drivers.network.neutron.driver import NeutronSettings
from frontinus.drivers.network.neutron.neutron import Neutron
from frontinus.drivers.openstack.cloud import Cloud
from frontinus.drivers.openstack.trouble import Refused
from frontinus.model.errors import Retry
from frontinus.model.findings import Finding, fine, trouble, warning

_RIGHTS = "openstack role add --project PROJECT --user USER admin; or widen the service's policy for our account"
_MACS = {False: "02:f0:17:00:00:01", True: "02:f0:17:00:00:02"}
"""Of the port in our project, and of that in a tenant's."""
_PAIR = "192.0.2.1"
"""An address of documentation (RFC 5737): nobody's."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def tried(
    cloud: Cloud,
    nova: NovaSettings | None,
    neutron: NeutronSettings | None,
    tenant_project: str | None,
    *,
    is_admin: bool = False,
) -> list[Finding]:
    """`tenant_project`: one where a port is tried as VIPs are made; None where we know none."""
    trial = _Trial(cloud, networks=neutron is not None, computes=nova is not None)
    found: list[Finding] = []
    before = {x: signal.signal(x, _interrupted) for x in _SIGNALS}
    try:
        trial.remove()
        if neutron is not None:
            found += trial.networking(neutron, tenant_project, is_admin=is_admin)
        if nova is not None and nova.server_groups != NO_GROUPS:
            found.append(trial.grouping(nova.server_groups))
    except Retry as lack:
        found.append(trouble("trial", lack.reason, "see [openstack] and clouds.yaml"))
    finally:
        for number in _SIGNALS:
            signal.signal(number, _told_to_wait)
        found += trial.removed()
        for number, handler in before.items():
            signal.signal(number, handler)
    return found


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _told_to_wait(_number: int, _frame: FrameType | None) -> None:
    complain("removing what was tried; a moment")


class _Trial:
    def __init__(self, cloud: Cloud, *, networks: bool, computes: bool) -> None:
        """What is used, and so may be asked: Neutron, Nova."""
        self._cloud = cloud
        self._networks, self._computes = networks, computes
        installation = cloud.settings.installation
        self._name = f"frontinus-{installation}-try"
        self._mark = f"frontinus:{installation}:try"

    def networking(self, settings: NeutronSettings, tenant_project: str | None, *, is_admin: bool) -> Iterator[Finding]:
        yield self._judged("neutron", "security groups with rules", self._make_group)
        network_id, subnet_id = self._management(settings.management_network)
        if subnet_id is None:
            yield warning("neutron", "no port was tried, for want of the management network", "see above")
            return
        what = "ports with an address, a MAC and address pairs of their own"
        yield self._judged("neutron", what, lambda: self._make_port(network_id, subnet_id, None))
        if tenant_project in (None, self._cloud.project_id()):
            if is_admin:
                yield fine("neutron", "our account is an administrator: it may make ports for tenants")
                return
            told = "whether ports may be made in tenants' projects, as VIPs are, was not tried"
            yield warning("neutron", told, "name a tenant's or an administrator's entry of clouds.yaml: --os-cloud")
            return
        what = "ports with an address in a tenant's project, as VIPs are"
        yield self._judged("neutron", what, lambda: self._make_port(network_id, subnet_id, tenant_project))

    def grouping(self, policy: str) -> Finding:
        body = {"server_group": {"name": self._name, "policy": policy}}
        what = f"server groups with {policy}"
        return self._judged("nova", what, lambda: self._ask("compute", "POST", "/os-server-groups", json=body))

    def removed(self) -> Iterator[Finding]:
        """Removes; a finding for what could not be."""
        try:
            self.remove()
        except Retry as lack:
            told = f"what was tried could not be removed: {lack.reason}"
            yield trouble("trial", told, f"remove ports, security groups and server groups called {self._name}")

    def remove(self) -> None:
        """Whatever is there of a try. Raises Retry."""
        if self._networks:
            for port in self._ask("network", "GET", "/ports", params={"name": self._name})["ports"]:
                if port["description"] == self._mark:
                    self._delete("network", f"/ports/{port['id']}")
            found = self._ask("network", "GET", "/security-groups", params={"name": self._name})
            for group in found["security_groups"]:
                if group["description"] == self._mark:
                    self._delete("network", f"/security-groups/{group['id']}")
        if self._computes:
            nova = Nova(self._cloud)
            for each in nova.groups():
                if each.name == self._name:
                    nova.delete_group(each.id)

    def _judged(self, service: str, what: str, work: Callable[[], object]) -> Finding:
        """Raises Retry for an outage, which says nothing about our rights."""
        try:
            work()
        except Refused as refused:
            return trouble(service, f"our account cannot make {what}: {refused.detail}", "see what the service says")
        except Retry as lack:
            if not lack.code.endswith("-forbidden"):
                raise
            return trouble(service, f"our account may not make {what}: {lack.reason}", _RIGHTS)
        return fine(service, f"tried: our account may make {what}")

    def _management(self, wanted: str) -> tuple[str, str | None]:
        neutron = Neutron(self._cloud)
        for network in neutron.networks_called(wanted):
            subnet = choice.for_management(neutron.subnets(network_id=network.id))
            return network.id, None if subnet is None else subnet.id
        return "", None

    def _make_group(self) -> None:
        body = {"name": self._name, "description": self._mark}
        made = self._ask("network", "POST", "/security-groups", json={"security_group": body})["security_group"]
        rule = {"security_group_id": made["id"], "direction": "ingress", "ethertype": "IPv4", "protocol": "icmp"}
        self._ask("network", "POST", "/security-group-rules", json={"security_group_rule": rule})

    def _make_port(self, network_id: str, subnet_id: str, project_id: str | None) -> None:
        """Twice: the first port, which asks for nothing, shows an address that is free; the second asks for it."""
        body: dict[str, object] = {
            "name": self._name,
            "description": self._mark,
            "network_id": network_id,
            "fixed_ips": [{"subnet_id": subnet_id}],
            "admin_state_up": False,
        }
        first = self._ask("network", "POST", "/ports", json={"port": body})["port"]
        self._delete("network", f"/ports/{first['id']}")
        body |= {
            "fixed_ips": [{"subnet_id": subnet_id, "ip_address": first["fixed_ips"][0]["ip_address"]}],
            "mac_address": _MACS[project_id is not None],
            "port_security_enabled": True,
            "security_groups": [],
        }
        body |= {"allowed_address_pairs": [{"ip_address": _PAIR}]} if project_id is None else {"project_id": project_id}
        self._ask("network", "POST", "/ports", json={"port": body})

    def _ask(self, service: str, method: str, path: str, **words: Any) -> Any:
        return self._cloud.request(service, method, path, **_versioned(service), **words)

    def _delete(self, service: str, path: str) -> None:
        self._cloud.delete(service, path, **_versioned(service))


def _versioned(service: str) -> dict[str, str]:
    return {"microversion": MICROVERSION} if service == "compute" else {}
