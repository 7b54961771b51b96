"""From what was asked to objects of the model: new ones, and stored ones with their changes.

Pure. Fills in the defaults that depend on other attributes (a health monitor's path, a TLS listener's versions, a policy's
redirect code); judges nothing beyond that: the result goes to model/validation.py."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from frontinus.api.requests import Asked
from frontinus.api.wire_types import PersistenceSpec
from frontinus.model.compatibility import (
    HTTP_MONITOR_TYPES,
    L7_RULE_KEY_REQUIRED,
)
from frontinus.model.enums import HttpMethod, L7PolicyAction, ListenerProtocol, OperatingStatus, VnicType
from frontinus.model.errors import Invalid
from frontinus.model.house_rules import TlsDefaults
from frontinus.model.ids import (
    HealthMonitorId,
    L7PolicyId,
    L7RuleId,
    ListenerId,
    MemberId,
    PoolId,
    new_id,
)
from frontinus.model.tree import HealthMonitor, L7Policy, L7Rule, Listener, LoadBalancer, Member, Pool

DEFAULT_URL_PATH = "/"
DEFAULT_EXPECTED_CODES = "200"
DEFAULT_REDIRECT_CODE = 302


# ---------------------------------------------------------------- new objects


def new_listener(asked: Asked, load_balancer: LoadBalancer, now: datetime, tls: TlsDefaults) -> Listener:
    return _with_tls_defaults(
        Listener(id=ListenerId(new_id()), **_common(load_balancer, now), **_complete(asked, ("protocol",))), tls
    )


def new_pool(asked: Asked, load_balancer: LoadBalancer, now: datetime, tls: TlsDefaults) -> Pool:
    values = _complete(asked, ("protocol", "lb_algorithm"))
    _complete_persistence(values, None, asked)
    pool = Pool(id=PoolId(new_id()), **_common(load_balancer, now), **values)
    if not pool.tls_enabled:
        return pool
    return replace(
        pool,
        tls_versions=_or_default(pool.tls_versions, tls.versions),
        tls_ciphers=pool.tls_ciphers or tls.ciphers,
        alpn_protocols=_or_default(pool.alpn_protocols, tls.alpn_protocols),
    )


def new_member(
    asked: Asked,
    pool: Pool,
    now: datetime,
    operating_status: OperatingStatus = OperatingStatus.NO_MONITOR,
    *,
    sriov: bool = False,
) -> Member:
    """`sriov`: whether the load balancer's flavor allows members with SR-IOV ports. Raises Invalid for one where it does
    not."""
    is_direct = bool(asked.extra.get("request_sriov"))
    if is_direct and not sriov:
        raise Invalid(f"{asked.path}.request_sriov", "the load balancer's flavor does not allow it")
    return Member(
        id=MemberId(new_id()),
        load_balancer_id=pool.load_balancer_id,
        project_id=pool.project_id,
        created_at=now,
        pool_id=pool.id,
        operating_status=operating_status,
        vnic_type=VnicType.DIRECT if is_direct else VnicType.NORMAL,
        **asked.values,
    )


def new_health_monitor(asked: Asked, pool: Pool, now: datetime) -> HealthMonitor:
    return _with_http_defaults(
        HealthMonitor(
            id=HealthMonitorId(new_id()),
            load_balancer_id=pool.load_balancer_id,
            project_id=pool.project_id,
            created_at=now,
            pool_id=pool.id,
            **asked.values,
        )
    )


def new_l7_policy(asked: Asked, listener: Listener, now: datetime, redirect_pool_id: PoolId | None = None) -> L7Policy:
    values = {"redirect_pool_id": redirect_pool_id, **asked.values}
    policy = L7Policy(
        id=L7PolicyId(new_id()),
        load_balancer_id=listener.load_balancer_id,
        project_id=listener.project_id,
        created_at=now,
        listener_id=listener.id,
        **values,
    )
    return _with_consistent_action(policy)


def new_l7_rule(asked: Asked, policy: L7Policy, now: datetime) -> L7Rule:
    return L7Rule(
        id=L7RuleId(new_id()),
        load_balancer_id=policy.load_balancer_id,
        project_id=policy.project_id,
        created_at=now,
        l7_policy_id=policy.id,
        **asked.values,
    )


# ---------------------------------------------------------------- changed objects


def changed_listener(listener: Listener, asked: Asked, tls: TlsDefaults) -> Listener:
    changed = replace(listener, **_with_defaults_for_null(asked.values, tls))
    if changed.hsts_max_age is None and "hsts_max_age" in asked.given:
        # Switching it off takes along what only qualifies it, unless that was asked for in the same breath.
        changed = replace(
            changed,
            hsts_include_subdomains=changed.hsts_include_subdomains and "hsts_include_subdomains" in asked.given,
            hsts_preload=changed.hsts_preload and "hsts_preload" in asked.given,
        )
    return changed


def changed_pool(pool: Pool, asked: Asked, tls: TlsDefaults) -> Pool:
    values = _with_defaults_for_null(asked.values, tls, alpn=False)
    _complete_persistence(values, pool, asked)
    return replace(pool, **values)


def _with_defaults_for_null(values: Mapping[str, Any], tls: TlsDefaults, *, alpn: bool = True) -> dict[str, Any]:
    """Null takes TLS attributes back to the defaults; the protocols inside TLS of a pool it takes away (contract)."""
    defaults: dict[str, Any] = {"tls_versions": tls.versions, "tls_ciphers": tls.ciphers}
    if alpn:
        defaults["alpn_protocols"] = tls.alpn_protocols
    return {name: defaults[name] if value is None and name in defaults else value for name, value in values.items()}


def changed_member(member: Member, asked: Asked) -> Member:
    return replace(member, **asked.values)


def matched_member(member: Member, asked: Asked) -> Member:
    """A member that a batch names again: what was left out goes back to its default, except name, subnet and tags."""
    kept = {"name", "subnet_id", "tags"} - asked.given
    return replace(member, **{name: value for name, value in asked.values.items() if name not in kept})


def changed_health_monitor(monitor: HealthMonitor, asked: Asked) -> HealthMonitor:
    if monitor.type not in HTTP_MONITOR_TYPES:
        for field in ("http_method", "url_path", "expected_codes"):
            if field in asked.given:
                raise Invalid(f"{asked.path}.{field}", f"a {monitor.type} health monitor does not have it")
    return _with_http_defaults(replace(monitor, **asked.values))


_TARGET_ACTIONS = {
    "redirect_url": L7PolicyAction.REDIRECT_TO_URL,
    "redirect_prefix": L7PolicyAction.REDIRECT_PREFIX,
    "redirect_pool_id": L7PolicyAction.REDIRECT_TO_POOL,
}


def changed_l7_policy(policy: L7Policy, asked: Asked) -> L7Policy:
    """Naming only a target switches the action to it; a new action forgets the stored targets of others
    (resources.yaml matrices.l7policy_action)."""
    if not asked.given:
        raise Invalid(asked.path, "must name at least one attribute to change")
    values = dict(asked.values)
    if "action" not in values:
        for target, action in _TARGET_ACTIONS.items():
            if values.get(target) is not None:
                values["action"] = action
                break
    if "action" in values:
        forgotten = (x for x, own in _TARGET_ACTIONS.items() if own is not values["action"] and x not in asked.given)
        values |= dict.fromkeys(forgotten)
    changed = replace(policy, **values)
    if changed.position > policy.position:
        # Others are still numbered as if it stood in its old place, so it must go behind the one that it overtakes.
        changed = replace(changed, position=min(changed.position, MAX_POSITION - 1) + 1)
    return _with_consistent_action(changed)


MAX_POSITION = 2_147_483_647


def changed_l7_rule(rule: L7Rule, asked: Asked) -> L7Rule:
    changed = replace(rule, **asked.values)
    if changed.type not in L7_RULE_KEY_REQUIRED and "key" not in asked.given:
        changed = replace(changed, key=None)
    return changed


# ---------------------------------------------------------------- defaults that depend on other attributes


def _common(load_balancer: LoadBalancer, now: datetime) -> dict[str, Any]:
    return {"load_balancer_id": load_balancer.id, "project_id": load_balancer.project_id, "created_at": now}


def _complete(asked: Asked, required: tuple[str, ...]) -> dict[str, Any]:
    """The values, once it is certain that what an object cannot be without was given."""
    for field in required:
        if field not in asked.values:
            raise Invalid(f"{asked.path}.{field}", "is required")
    return dict(asked.values)


def _complete_persistence(values: dict[str, Any], pool: Pool | None, asked: Asked) -> None:
    spec = values.get("session_persistence")
    if isinstance(spec, PersistenceSpec):
        stored = pool.session_persistence if pool is not None else None
        values["session_persistence"] = spec.completed(stored, f"{asked.path}.session_persistence")


def _with_tls_defaults(listener: Listener, tls: TlsDefaults) -> Listener:
    if listener.protocol is not ListenerProtocol.TERMINATED_HTTPS:
        return listener
    return replace(
        listener,
        tls_versions=_or_default(listener.tls_versions, tls.versions),
        tls_ciphers=listener.tls_ciphers or tls.ciphers,
        alpn_protocols=_or_default(listener.alpn_protocols, tls.alpn_protocols),
    )


def _or_default(given: tuple[str, ...] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    """An empty list is not the default: the validator refuses it."""
    return default if given is None else given


def _with_http_defaults(monitor: HealthMonitor) -> HealthMonitor:
    if monitor.type not in HTTP_MONITOR_TYPES:
        return monitor
    return replace(
        monitor,
        http_method=monitor.http_method or HttpMethod.GET,
        url_path=DEFAULT_URL_PATH if monitor.url_path is None else monitor.url_path,
        expected_codes=DEFAULT_EXPECTED_CODES if monitor.expected_codes is None else monitor.expected_codes,
    )


def _with_consistent_action(policy: L7Policy) -> L7Policy:
    """Targets of other actions are cleared and the redirect code is filled in (matrices.l7policy_action)."""
    action = policy.action
    if action is L7PolicyAction.REJECT and policy.redirect_prefix:
        action = L7PolicyAction.REDIRECT_PREFIX
    if action is L7PolicyAction.REDIRECT_PREFIX and policy.redirect_url:
        action = L7PolicyAction.REDIRECT_TO_URL
    code = policy.redirect_http_code
    if action in (L7PolicyAction.REDIRECT_TO_URL, L7PolicyAction.REDIRECT_PREFIX):
        code = DEFAULT_REDIRECT_CODE if code is None else code
    elif action is L7PolicyAction.REDIRECT_TO_POOL:
        code = None
    cleared: Mapping[str, Any] = {target: None for target, own in _TARGET_ACTIONS.items() if own is not action}
    return replace(policy, action=action, redirect_http_code=code, **cleared)
