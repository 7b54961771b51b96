"""Read-only look-ups that OpenStack clients send to the same endpoint when there is no catalog.

`openstack loadbalancer create --vip-subnet-id X` asks for the subnet by id and by name before anything else, and cannot be
told not to. These answers make unmodified clients work with authentication `none`; where a real network service exists
they are switched off (ApiSettings.network_compat). Nothing here can be changed, and nothing is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starlette.responses import Response

from frontinus.api.calls import Call, json_response
from frontinus.api.errors import HttpError
from frontinus.model.network import Subnet
from frontinus.model.tree import LoadBalancer
from frontinus.store import listing


async def list_subnets(call: Call) -> Response:
    subnets = [_subnet(x) for x in await call.api.network.list_subnets()]
    return json_response({"subnets": _matching(subnets, call)})


async def show_subnet(call: Call) -> Response:
    subnets = [_subnet(x) for x in await call.api.network.list_subnets()]
    return json_response({"subnet": _with_id(subnets, call.params["subnet_id"])})


async def list_networks(call: Call) -> Response:
    return json_response({"networks": _matching(_networks(await call.api.network.list_subnets()), call)})


async def show_network(call: Call) -> Response:
    networks = _networks(await call.api.network.list_subnets())
    return json_response({"network": _with_id(networks, call.params["network_id"])})


async def list_ports(call: Call) -> Response:
    """The port of a VIP, asked for by its id, as `openstack loadbalancer list --vip-port-id` does before it asks for anything
    else. No other is told of, since none can be brought along here."""
    port_id, asking = call.argument("id"), call.identity
    if port_id is None or not (asking.is_admin or asking.project_id):
        return json_response({"ports": []})
    query = listing.Query(
        filters=(("vip_port_id", port_id),), project_id=None if asking.is_admin else asking.project_id
    )
    found = await call.api.store.read(lambda tx: listing.list_load_balancers(tx, query))
    return json_response({"ports": [_port(x.value) for x in found]})


async def list_security_groups(_call: Call) -> Response:
    return json_response({"security_groups": []})


async def list_qos_policies(_call: Call) -> Response:
    return json_response({"policies": []})


async def list_projects(call: Call) -> Response:
    """Whatever project is asked for by name is there: without an identity service a project is just a word."""
    name = call.argument("name")
    return json_response({"projects": [] if name is None else [_project(name)]})


async def show_project(call: Call) -> Response:
    return json_response({"project": _project(call.params["project_id"])})


def _subnet(subnet: Subnet) -> dict[str, object]:
    return {
        "id": subnet.id,
        "name": subnet.name,
        "network_id": subnet.network_id,
        "cidr": subnet.cidr,
        "ip_version": 6 if ":" in subnet.cidr else 4,
        "gateway_ip": subnet.gateway,
        "enable_dhcp": False,
        "allocation_pools": [],
        "dns_nameservers": [],
        "host_routes": [],
        "tags": [],
    }


def _networks(subnets: Iterable[Subnet]) -> list[dict[str, object]]:
    by_id: dict[str, list[Subnet]] = {}
    for subnet in subnets:
        by_id.setdefault(subnet.network_id, []).append(subnet)
    return [
        {
            "id": network_id,
            "name": members[0].name,
            "subnets": [x.id for x in members],
            "status": "ACTIVE",
            "admin_state_up": True,
        }
        for network_id, members in by_id.items()
    ]


def _port(load_balancer: LoadBalancer) -> dict[str, object]:
    vip = load_balancer.vip
    return {
        "id": vip.port_id,
        "name": "",
        "network_id": vip.network_id,
        "project_id": load_balancer.project_id,
        "fixed_ips": [{"subnet_id": vip.subnet_id, "ip_address": vip.address}],
        "device_id": load_balancer.id,
    }


def _project(name: str) -> dict[str, object]:
    return {"id": name, "name": name, "enabled": True, "domain_id": "default"}


def _matching(objects: list[dict[str, object]], call: Call) -> list[dict[str, object]]:
    """Filtered exactly by every argument that names an attribute; others (fields, limit) are left alone."""
    wanted: Mapping[str, str] = {name: value for name, value in call.query if objects and name in objects[0]}
    return [x for x in objects if all(str(x[name]) == value for name, value in wanted.items())]


def _with_id(objects: list[dict[str, object]], object_id: str) -> dict[str, object]:
    for each in objects:
        if each["id"] == object_id:
            return each
    raise HttpError(404, f"there is no {object_id[:80]} here")
