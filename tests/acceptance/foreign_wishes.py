"""What a project has in the lab, and what another one asks of it: the tables of test_two_projects.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from frontinus.testing.certificates import TestAuthority

from tests.acceptance.openstack_tenants import Project, Site


@dataclass
class Belongings:
    """Of a project: what it has in Neutron and Barbican, and what it made of that in Frontinus."""

    project: Project
    authority: TestAuthority = field(default_factory=TestAuthority)

    def __post_init__(self) -> None:
        project, network = self.project, self.project.cloud.network
        project.make_network("10.71.0.0/24", "10.72.0.0/24")
        self.group = network.create_security_group(name=project.name).id
        self.port = network.create_port(
            network_id=project.network_id, name=project.name, fixed_ips=[{"subnet_id": project.subnet_ids[0]}]
        ).id
        self.certificate = project.container(self.authority.issue("www.example.org"))
        self.authorities, self.revocations = (
            project.secret(self.authority.pem),
            project.secret(self.authority.revoke()),
        )
        self.ids: dict[str, str] = {}

    def with_policy(self, site: Site) -> None:
        """QoS policies are an administrator's to make, and a project's to use."""
        network: Any = site.admin.network
        self.policy = network.create_qos_policy(name=self.project.name, project_id=self.project.id).id

    def build(self) -> None:
        """A load balancer that uses everything, and an object of each kind."""
        project = self.project
        made = project.create(
            "loadbalancers",
            "loadbalancer",
            name=project.name,
            vip_subnet_id=project.subnet_ids[0],
            vip_sg_ids=[self.group],
            vip_qos_policy_id=self.policy,
            additional_vips=[{"subnet_id": project.subnet_ids[1]}],
        )
        self.ids["loadbalancers"] = load_balancer_id = made["id"]
        self.ids["listeners"] = project.create(
            "listeners",
            "listener",
            loadbalancer_id=load_balancer_id,
            protocol="TERMINATED_HTTPS",
            protocol_port=443,
            default_tls_container_ref=self.certificate,
            client_ca_tls_container_ref=self.authorities,
            client_crl_container_ref=self.revocations,
            client_authentication="MANDATORY",
        )["id"]
        self.ids["pools"] = pool_id = project.create(
            "pools",
            "pool",
            loadbalancer_id=load_balancer_id,
            protocol="HTTP",
            lb_algorithm="ROUND_ROBIN",
            tls_enabled=True,
            tls_container_ref=self.certificate,
            ca_tls_container_ref=self.authorities,
            crl_container_ref=self.revocations,
        )["id"]
        member = project.create(
            f"pools/{pool_id}/members",
            "member",
            address="10.72.0.9",
            protocol_port=80,
            subnet_id=project.subnet_ids[1],
        )
        self.ids[f"pools/{pool_id}/members"] = member["id"]
        monitor = {"type": "TCP", "delay": 5, "timeout": 2, "max_retries": 2}
        self.ids["healthmonitors"] = project.create("healthmonitors", "healthmonitor", pool_id=pool_id, **monitor)["id"]
        policy = project.create(
            "l7policies",
            "l7policy",
            listener_id=self.ids["listeners"],
            action="REDIRECT_TO_POOL",
            redirect_pool_id=pool_id,
        )
        self.ids["l7policies"] = policy["id"]
        rule = project.create(
            f"l7policies/{policy['id']}/rules", "rule", type="PATH", compare_type="STARTS_WITH", value="/a"
        )
        self.ids[f"l7policies/{policy['id']}/rules"] = rule["id"]
        shown = project.settled(load_balancer_id)
        self.vip_port = shown["vip_port_id"]

    @property
    def paths(self) -> list[str]:
        """Of each object that it has in Frontinus."""
        return [f"{collection}/{object_id}" for collection, object_id in self.ids.items()]

    def shown(self) -> dict[str, Any]:
        """Everything that Frontinus says of them."""
        return {path: self.project.call("GET", path).body for path in self.paths}


@dataclass
class World:
    site: Site
    a: Belongings
    b: Belongings

    def seen(self) -> dict[str, Any]:
        """What is really there of either's in Neutron, and of A's in Barbican; and what each of them sees in Frontinus."""
        found: dict[str, Any] = {"secrets": self.a.project.secrets()}
        for who in (self.a, self.b):
            found[f"frontinus of {who.project.name}"] = who.shown()
            for collection in ("loadbalancers", "listeners", "pools"):
                listed = who.project.call("GET", collection).one(collection)
                found[f"{collection} of {who.project.name}"] = sorted(x["id"] for x in listed)
        network: Any = self.site.admin.network
        for who in (self.a, self.b):
            ports = [*network.ports(network_id=who.project.network_id), *network.ports(project_id=who.project.id)]
            found[f"ports of {who.project.name}"] = {x.id: _of_port(x) for x in ports}
            groups = network.security_groups(project_id=who.project.id)
            found[f"groups of {who.project.name}"] = {
                x.id: (x.name, sorted(x.security_group_rules, key=lambda rule: str(rule["id"]))) for x in groups
            }
        return found


def _of_port(port: Any) -> tuple[object, ...]:
    return (
        port.name,
        port.device_id,
        port.device_owner,
        port.fixed_ips,
        sorted(port.security_group_ids),
        port.allowed_address_pairs,
        port.qos_policy_id,
        sorted(port.tags),
    )


@dataclass(frozen=True)
class Try:
    """What B asks of A's, how, and with what it must be refused: a status, and a word that names the field or the reason."""

    what: str
    ask: Callable[[Belongings, Belongings], tuple[str, str, object]]
    status: int
    names: str


def body_of(collection: str, key: str, **fixed: object) -> Callable[..., tuple[str, str, object]]:
    return lambda **more: ("POST", collection, {key: {**fixed, **more}})


new_load_balancer = body_of("loadbalancers", "loadbalancer", name="of-b")


def nested(b: Belongings, **listener: object) -> tuple[str, str, object]:
    return new_load_balancer(vip_subnet_id=b.project.subnet_ids[0], listeners=[listener])


def new_listener(b: Belongings, **more: object) -> tuple[str, str, object]:
    wanted = {"protocol": "TERMINATED_HTTPS", "protocol_port": 8443, "default_tls_container_ref": b.certificate}
    return "POST", "listeners", {"listener": {"loadbalancer_id": b.ids["loadbalancers"], **wanted, **more}}


def new_pool(b: Belongings, **more: object) -> tuple[str, str, object]:
    wanted = {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "tls_enabled": True}
    return "POST", "pools", {"pool": {"loadbalancer_id": b.ids["loadbalancers"], **wanted, **more}}


def change(b: Belongings, collection: str, key: str, **more: object) -> tuple[str, str, object]:
    return "PUT", f"{collection}/{b.ids[collection]}", {key: more}


MONITOR = {"type": "TCP", "delay": 5, "timeout": 2, "max_retries": 2}
MEMBER = {"address": "10.71.0.9", "protocol_port": 80}

OF_NEUTRON = [
    Try(
        "VIP on A's subnet", lambda a, b: new_load_balancer(vip_subnet_id=a.project.subnet_ids[0]), 400, "vip_subnet_id"
    ),
    Try(
        "VIP on A's network", lambda a, b: new_load_balancer(vip_network_id=a.project.network_id), 400, "vip_network_id"
    ),
    Try("A's port as VIP", lambda a, b: new_load_balancer(vip_port_id=a.port), 400, "vip_port_id"),
    Try("the port of A's VIP as VIP", lambda a, b: new_load_balancer(vip_port_id=a.vip_port), 400, "vip_port_id"),
    Try(
        "a further VIP on A's subnet",
        lambda a, b: new_load_balancer(
            vip_subnet_id=b.project.subnet_ids[0], additional_vips=[{"subnet_id": a.project.subnet_ids[0]}]
        ),
        400,
        "additional_vips[0].subnet_id",
    ),
    Try(
        "A's security group",
        lambda a, b: new_load_balancer(vip_subnet_id=b.project.subnet_ids[0], vip_sg_ids=[b.group, a.group]),
        400,
        "vip_sg_ids",
    ),
    Try(
        "A's QoS policy",
        lambda a, b: new_load_balancer(vip_subnet_id=b.project.subnet_ids[0], vip_qos_policy_id=a.policy),
        400,
        "vip_qos_policy_id",
    ),
    Try(
        "A's security group, later",
        lambda a, b: change(b, "loadbalancers", "loadbalancer", vip_sg_ids=[a.group]),
        400,
        "vip_sg_ids",
    ),
    Try(
        "A's QoS policy, later",
        lambda a, b: change(b, "loadbalancers", "loadbalancer", vip_qos_policy_id=a.policy),
        400,
        "vip_qos_policy_id",
    ),
    Try(
        "a member on A's subnet",
        lambda a, b: (
            "POST",
            f"pools/{b.ids['pools']}/members",
            {"member": {**MEMBER, "subnet_id": a.project.subnet_ids[0]}},
        ),
        400,
        "subnet_id",
    ),
    Try(
        "a batch of members, the second on A's subnet",
        lambda a, b: (
            "PUT",
            f"pools/{b.ids['pools']}/members",
            {"members": [MEMBER, {**MEMBER, "protocol_port": 81, "subnet_id": a.project.subnet_ids[0]}]},
        ),
        400,
        "members[1].subnet_id",
    ),
    Try(
        "a whole tree with a member on A's subnet",
        lambda a, b: nested(
            b,
            protocol="HTTP",
            protocol_port=80,
            default_pool={
                "name": "p",
                "protocol": "HTTP",
                "lb_algorithm": "ROUND_ROBIN",
                "members": [{**MEMBER, "subnet_id": a.project.subnet_ids[0]}],
            },
        ),
        400,
        "members[0].subnet_id",
    ),
    Try(
        "a pool of its own for another tree, with a member on A's subnet",
        lambda a, b: new_load_balancer(
            vip_subnet_id=b.project.subnet_ids[0],
            pools=[
                {
                    "name": "p",
                    "protocol": "HTTP",
                    "lb_algorithm": "ROUND_ROBIN",
                    "members": [{**MEMBER, "subnet_id": a.project.subnet_ids[0]}],
                }
            ],
        ),
        400,
        "pools[0].members[0].subnet_id",
    ),
]

OF_BARBICAN = [
    Try(
        "A's certificate",
        lambda a, b: new_listener(b, default_tls_container_ref=a.certificate),
        400,
        "listener.default_tls_container_ref",
    ),
    Try(
        "A's certificate beside its own",
        lambda a, b: new_listener(b, sni_container_refs=[b.certificate, a.certificate]),
        400,
        "listener.sni_container_refs",
    ),
    Try(
        "A's authorities",
        lambda a, b: new_listener(b, client_ca_tls_container_ref=a.authorities, client_authentication="OPTIONAL"),
        400,
        "listener.client_ca_tls_container_ref",
    ),
    Try(
        "A's revocation list",
        lambda a, b: new_listener(
            b,
            client_ca_tls_container_ref=b.authorities,
            client_crl_container_ref=a.revocations,
            client_authentication="OPTIONAL",
        ),
        400,
        "listener.client_crl_container_ref",
    ),
    Try(
        "A's certificate, later",
        lambda a, b: change(b, "listeners", "listener", default_tls_container_ref=a.certificate),
        400,
        "listener.default_tls_container_ref",
    ),
    Try(
        "A's certificate towards members",
        lambda a, b: new_pool(b, tls_container_ref=a.certificate),
        400,
        "pool.tls_container_ref",
    ),
    Try(
        "A's authorities towards members",
        lambda a, b: new_pool(b, ca_tls_container_ref=a.authorities),
        400,
        "pool.ca_tls_container_ref",
    ),
    Try(
        "A's revocation list towards members",
        lambda a, b: new_pool(b, ca_tls_container_ref=b.authorities, crl_container_ref=a.revocations),
        400,
        "pool.crl_container_ref",
    ),
    Try(
        "A's certificate towards members, later",
        lambda a, b: change(b, "pools", "pool", tls_container_ref=a.certificate),
        400,
        "pool.tls_container_ref",
    ),
    Try(
        "A's certificate in a whole tree",
        lambda a, b: nested(b, protocol="TERMINATED_HTTPS", protocol_port=443, default_tls_container_ref=a.certificate),
        400,
        "listener.default_tls_container_ref",
    ),
]

OF_FRONTINUS = [
    Try(
        "a load balancer in A's project",
        lambda a, b: new_load_balancer(vip_subnet_id=b.project.subnet_ids[0], project_id=a.project.id),
        403,
        "",
    ),
    Try(
        "a listener of A's load balancer", lambda a, b: new_listener(b, loadbalancer_id=a.ids["loadbalancers"]), 403, ""
    ),
    Try("a pool of A's load balancer", lambda a, b: new_pool(b, loadbalancer_id=a.ids["loadbalancers"]), 403, ""),
    Try(
        "a pool of A's listener",
        lambda a, b: (
            "POST",
            "pools",
            {"pool": {"listener_id": a.ids["listeners"], "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}},
        ),
        403,
        "",
    ),
    Try("a member of A's pool", lambda a, b: ("POST", f"pools/{a.ids['pools']}/members", {"member": MEMBER}), 403, ""),
    Try("no members in A's pool", lambda a, b: ("PUT", f"pools/{a.ids['pools']}/members", {"members": []}), 403, ""),
    Try(
        "a monitor of A's pool",
        lambda a, b: ("POST", "healthmonitors", {"healthmonitor": {"pool_id": a.ids["pools"], **MONITOR}}),
        403,
        "",
    ),
    Try(
        "a policy of A's listener",
        lambda a, b: ("POST", "l7policies", {"l7policy": {"listener_id": a.ids["listeners"], "action": "REJECT"}}),
        403,
        "",
    ),
    Try(
        "a rule of A's policy",
        lambda a, b: (
            "POST",
            f"l7policies/{a.ids['l7policies']}/rules",
            {"rule": {"type": "PATH", "compare_type": "EQUAL_TO", "value": "/"}},
        ),
        403,
        "",
    ),
    Try(
        "A's pool behind its own listener",
        lambda a, b: change(b, "listeners", "listener", default_pool_id=a.ids["pools"]),
        404,
        "pool",
    ),
    Try(
        "A's pool behind its own policy",
        lambda a, b: change(b, "l7policies", "l7policy", redirect_pool_id=a.ids["pools"]),
        404,
        "pool",
    ),
    Try(
        "its own pool behind A's listener",
        lambda a, b: change(a, "listeners", "listener", default_pool_id=b.ids["pools"]),
        403,
        "",
    ),
    Try("failover of A's", lambda a, b: ("PUT", f"loadbalancers/{a.ids['loadbalancers']}/failover", None), 403, ""),
    Try("A's quota", lambda a, b: ("GET", f"quotas/{a.project.id}", None), 403, ""),
    Try("a quota for A", lambda a, b: ("PUT", f"quotas/{a.project.id}", {"quota": {"load_balancer": 0}}), 403, ""),
    Try(
        "A's load balancers by its project",
        lambda a, b: ("GET", f"loadbalancers?project_id={a.project.id}", None),
        403,
        "",
    ),
    Try("A's statuses", lambda a, b: ("GET", f"loadbalancers/{a.ids['loadbalancers']}/status", None), 403, ""),
    Try("A's statistics", lambda a, b: ("GET", f"loadbalancers/{a.ids['loadbalancers']}/stats", None), 403, ""),
    Try("A's listener's statistics", lambda a, b: ("GET", f"listeners/{a.ids['listeners']}/stats", None), 403, ""),
]


TYPED = [
    ("create", "--name", "x", "--vip-subnet-id", "{a.project.subnet_ids[0]}"),
    ("create", "--name", "x", "--vip-network-id", "{a.project.network_id}"),
    ("create", "--name", "x", "--vip-port-id", "{a.port}"),
    ("create", "--name", "x", "--vip-subnet-id", "{b.project.subnet_ids[0]}", "--vip-qos-policy-id", "{a.policy}"),
    ("create", "--name", "x", "--vip-subnet-id", "{b.project.subnet_ids[0]}", "--vip-sg-id", "{a.group}"),
    (
        *("listener", "create", "--protocol", "TERMINATED_HTTPS", "--protocol-port", "9443"),
        *("--default-tls-container-ref", "{a.certificate}", "{b.ids[loadbalancers]}"),
    ),
    (
        *("listener", "set", "--client-ca-tls-container-ref", "{a.authorities}"),
        *("--client-authentication", "MANDATORY", "{b.ids[listeners]}"),
    ),
    ("listener", "set", "--sni-container-refs", "{a.certificate}", "--", "{b.ids[listeners]}"),
    ("pool", "set", "--tls-container-ref", "{a.certificate}", "{b.ids[pools]}"),
    (
        *("member", "create", "--address", "10.71.0.9", "--protocol-port", "80"),
        *("--subnet-id", "{a.project.subnet_ids[0]}", "{b.ids[pools]}"),
    ),
    ("member", "create", "--address", "10.71.0.9", "--protocol-port", "80", "{a.ids[pools]}"),
    ("show", "{a.ids[loadbalancers]}"),
    ("set", "--name", "mine", "{a.ids[loadbalancers]}"),
    ("delete", "--cascade", "{a.ids[loadbalancers]}"),
    ("listener", "show", "{a.ids[listeners]}"),
    ("pool", "delete", "{a.ids[pools]}"),
    ("member", "list", "{a.ids[pools]}"),
    ("healthmonitor", "delete", "{a.ids[healthmonitors]}"),
    ("l7policy", "set", "--disable", "{a.ids[l7policies]}"),
    ("status", "show", "{a.ids[loadbalancers]}"),
    ("stats", "show", "{a.ids[loadbalancers]}"),
]
"""As B types them. What names an object the client looks for first, and finds nothing."""
