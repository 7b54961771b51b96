"""Our values as octavia-lib's data models, which third-party provider drivers know. Shapes: contract/driver-lib.yaml.

Imports octavia_lib, which is an extra of Frontinus (`frontinus[providers]`): only a provider's own process loads this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavia_lib.api.drivers import data_models

from frontinus.drivers.provider.tls_data import listener_tls, pool_tls
from frontinus.model.certificates import NO_SECRETS, Secrets
from frontinus.model.enums import Kind
from frontinus.model.tree import (
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
    TreeObject,
)

MODELS: dict[Kind, Any] = {
    Kind.LOAD_BALANCER: data_models.LoadBalancer,
    Kind.LISTENER: data_models.Listener,
    Kind.POOL: data_models.Pool,
    Kind.MEMBER: data_models.Member,
    Kind.HEALTH_MONITOR: data_models.HealthMonitor,
    Kind.L7_POLICY: data_models.L7Policy,
    Kind.L7_RULE: data_models.L7Rule,
}

ID_NAMES: dict[Kind, str] = {
    Kind.LOAD_BALANCER: "loadbalancer_id",
    Kind.LISTENER: "listener_id",
    Kind.POOL: "pool_id",
    Kind.MEMBER: "member_id",
    Kind.HEALTH_MONITOR: "healthmonitor_id",
    Kind.L7_POLICY: "l7policy_id",
    Kind.L7_RULE: "l7rule_id",
}


def view(value: TreeObject, tree: LoadBalancerTree, secrets: Secrets = NO_SECRETS) -> Any:
    """A whole object with what hangs on it in this tree, as a driver is handed it. Lists that would be empty are Unset."""
    return MODELS[value.kind](**_plain(value, secrets), **_children(value, tree, secrets))


def bare(value: TreeObject, secrets: Secrets = NO_SECRETS) -> Any:
    """An object without what hangs on it, as a driver is asked to create it."""
    empty: dict[Kind, dict[str, Any]] = {
        Kind.LISTENER: {"l7policies": [], "default_pool": None},
        Kind.POOL: {"members": []},
        Kind.L7_POLICY: {"rules": []},
    }
    return MODELS[value.kind](**_plain(value, secrets), **empty.get(value.kind, {}))


def difference(before: TreeObject, after: TreeObject, secrets: Secrets = NO_SECRETS) -> Any:
    """The id, and the attributes that are other than before: the second argument of an update."""
    # Both with the same secrets: what is behind a reference differs only where the reference does.
    old, new = _plain(before, secrets), _plain(after, secrets)
    identity = ID_NAMES[after.kind]
    changed = {name: value for name, value in new.items() if name == identity or old.get(name) != value}
    if any(name.startswith("redirect_") for name in changed) or "action" in changed:
        changed |= {name: new[name] for name in new if name == "action" or name.startswith("redirect_")}
    return MODELS[after.kind](**changed)


def vip(load_balancer: LoadBalancer) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The two arguments of create_vip_port."""
    first = {
        "vip_address": load_balancer.vip.address,
        "vip_network_id": load_balancer.vip.network_id,
        "vip_port_id": load_balancer.vip.port_id,
        "vip_subnet_id": load_balancer.vip.subnet_id,
        "vip_qos_policy_id": load_balancer.vip_qos_policy_id,
        "vip_sg_ids": list(load_balancer.vip_sg_ids) or None,
    }
    return {key: value for key, value in first.items() if value is not None}, _additional(load_balancer)


def _additional(load_balancer: LoadBalancer) -> list[dict[str, Any]]:
    return [
        {
            "ip_address": x.address,
            "network_id": load_balancer.vip.network_id,
            "port_id": x.port_id,
            "subnet_id": x.subnet_id,
        }
        for x in load_balancer.additional_vips
    ]


def _children(value: TreeObject, tree: LoadBalancerTree, secrets: Secrets) -> Mapping[str, Any]:
    lists: dict[str, list[Any]] = {}
    single: dict[str, Any] = {}
    match value:
        case LoadBalancer():
            lists = {
                "listeners": [view(x, tree, secrets) for x in tree.listeners],
                "pools": [view(x, tree, secrets) for x in tree.pools],
            }
        case Listener():
            lists = {"l7policies": [view(x, tree, secrets) for x in tree.l7_policies_of(value.id)]}
            pool = tree.pool(value.default_pool_id)
            single = {} if pool is None else {"default_pool": view(pool, tree, secrets)}
        case Pool():
            lists = {"members": [view(x, tree, secrets) for x in tree.members_of(value.id)]}
            monitor = tree.health_monitor_of(value.id)
            single = {} if monitor is None else {"healthmonitor": view(monitor, tree, secrets)}
        case L7Policy():
            lists = {"rules": [view(x, tree, secrets) for x in tree.l7_rules_of(value.id)]}
        case _:
            pass
    return {**{name: each for name, each in lists.items() if each}, **single}


def _plain(value: TreeObject, secrets: Secrets) -> dict[str, Any]:
    """The attributes of an object by octavia-lib's names, what hangs on it aside."""
    common = {"admin_state_up": value.admin_state_up, "name": value.name, "project_id": value.project_id}
    match value:
        case LoadBalancer():
            return common | _load_balancer(value)
        case Listener():
            return common | _listener(value) | listener_tls(value, secrets)
        case Pool():
            return common | _pool(value) | pool_tls(value, secrets)
        case Member():
            return common | _member(value)
        case HealthMonitor():
            return common | _health_monitor(value)
        case L7Policy():
            return common | _l7_policy(value)
        case L7Rule():
            rule = {"admin_state_up": value.admin_state_up, "project_id": value.project_id}
            return rule | _l7_rule(value)


def _load_balancer(value: LoadBalancer) -> dict[str, Any]:
    told: dict[str, Any] = {
        "loadbalancer_id": value.id,
        "description": value.description,
        "flavor": {},
        "availability_zone": {},
        "vip_address": value.vip.address,
        "vip_network_id": value.vip.network_id,
        "vip_port_id": value.vip.port_id,
        "vip_subnet_id": value.vip.subnet_id,
        "vip_qos_policy_id": value.vip_qos_policy_id,
        "vip_sg_ids": list(value.vip_sg_ids),
    }
    if value.additional_vips:
        told["additional_vips"] = _additional(value)
    return told


def _listener(value: Listener) -> dict[str, Any]:
    return {
        "listener_id": value.id,
        "loadbalancer_id": value.load_balancer_id,
        "description": value.description,
        "protocol": value.protocol.value,
        "protocol_port": value.protocol_port,
        "connection_limit": -1 if value.connection_limit is None else value.connection_limit,
        "default_pool_id": value.default_pool_id,
        "insert_headers": dict(value.insert_headers),
        "allowed_cidrs": list(value.allowed_cidrs),
        "timeout_client_data": value.timeout_client_data,
        "timeout_member_connect": value.timeout_member_connect,
        "timeout_member_data": value.timeout_member_data,
        "timeout_tcp_inspect": value.timeout_tcp_inspect,
    }


def _pool(value: Pool) -> dict[str, Any]:
    persistence = value.session_persistence
    return {
        "pool_id": value.id,
        "loadbalancer_id": value.load_balancer_id,
        "description": value.description,
        "protocol": value.protocol.value,
        "lb_algorithm": value.lb_algorithm.value,
        "session_persistence": None
        if persistence is None
        else {
            "type": persistence.type.value,
            "cookie_name": persistence.cookie_name,
            "persistence_timeout": persistence.persistence_timeout,
            "persistence_granularity": persistence.persistence_granularity,
        },
    }


def _member(value: Member) -> dict[str, Any]:
    return {
        "member_id": value.id,
        "pool_id": value.pool_id,
        "address": value.address,
        "protocol_port": value.protocol_port,
        "weight": 1 if value.weight is None else value.weight,
        "backup": value.backup,
        "subnet_id": value.subnet_id,
        "monitor_address": value.monitor_address,
        "monitor_port": value.monitor_port,
        "vnic_type": value.vnic_type.value,
    }


def _health_monitor(value: HealthMonitor) -> dict[str, Any]:
    return {
        "healthmonitor_id": value.id,
        "pool_id": value.pool_id,
        "type": value.type.value,
        "delay": value.delay,
        "timeout": value.timeout,
        "max_retries": value.max_retries,
        "max_retries_down": value.max_retries_down,
        "http_method": None if value.http_method is None else value.http_method.value,
        "url_path": value.url_path,
        "expected_codes": value.expected_codes,
        "http_version": value.http_version,
        "domain_name": value.domain_name,
    }


def _l7_policy(value: L7Policy) -> dict[str, Any]:
    return {
        "l7policy_id": value.id,
        "listener_id": value.listener_id,
        "description": value.description,
        "action": value.action.value,
        "position": value.position,
        "redirect_pool_id": value.redirect_pool_id,
        "redirect_url": value.redirect_url,
        "redirect_prefix": value.redirect_prefix,
        "redirect_http_code": value.redirect_http_code,
    }


def _l7_rule(value: L7Rule) -> dict[str, Any]:
    return {
        "l7rule_id": value.id,
        "l7policy_id": value.l7_policy_id,
        "type": value.type.value,
        "compare_type": value.compare_type.value,
        "key": value.key,
        "value": value.value,
        "invert": value.invert,
    }
