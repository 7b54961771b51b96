"""The rules of access as data: names, operations and defaults as Octavia has them, so that operators' files carry over.

Pure. tests/unit/api/test_policy_rules.py compares it with the contract (rbac.yaml), rule by rule. Next: enforcer.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

PREFIX = "os_load-balancer_api:"
CONTEXT_IS_ADMIN = "context_is_admin"
GET_ALL_GLOBAL = "get_all-global"


@dataclass(frozen=True)
class BaseRule:
    """A rule that others refer to, in oslo.policy's language. `legacy` is added by an `or` while the load-balancer_* roles
    count."""

    check: str
    legacy: str = ""


_IN_PROJECT = "project_id:%(project_id)s"

BASE_RULES: Mapping[str, BaseRule] = {
    CONTEXT_IS_ADMIN: BaseRule("role:admin", "role:load-balancer_admin"),
    "load-balancer:admin": BaseRule("is_admin:True or role:admin", "role:load-balancer_admin"),
    "service": BaseRule("role:service"),
    "project-member": BaseRule(f"role:member and {_IN_PROJECT}"),
    "project-reader": BaseRule(f"role:reader and {_IN_PROJECT}"),
    "load-balancer:owner": BaseRule(_IN_PROJECT),
    "load-balancer:global_observer": BaseRule("role:admin", "role:load-balancer_global_observer"),
    "load-balancer:member_and_owner": BaseRule(
        "rule:project-member", "(role:load-balancer_member and rule:load-balancer:owner)"
    ),
    "load-balancer:observer_and_owner": BaseRule(
        "rule:project-reader", "(role:load-balancer_observer and rule:load-balancer:owner)"
    ),
    "load-balancer:quota-admin": BaseRule("role:admin", "role:load-balancer_quota_admin"),
    "load-balancer:read": BaseRule(
        "rule:load-balancer:observer_and_owner or rule:load-balancer:global_observer or "
        "rule:load-balancer:member_and_owner or rule:load-balancer:admin"
    ),
    "load-balancer:read-global": BaseRule("rule:load-balancer:global_observer or rule:load-balancer:admin"),
    "load-balancer:write": BaseRule("rule:load-balancer:member_and_owner or rule:load-balancer:admin"),
    "load-balancer:read-quota": BaseRule(
        "rule:load-balancer:observer_and_owner or rule:load-balancer:global_observer or "
        "rule:load-balancer:member_and_owner or rule:load-balancer:quota-admin or rule:load-balancer:admin"
    ),
    "load-balancer:read-quota-global": BaseRule(
        "rule:load-balancer:global_observer or rule:load-balancer:quota-admin or rule:load-balancer:admin"
    ),
    "load-balancer:write-quota": BaseRule("rule:load-balancer:quota-admin or rule:load-balancer:admin"),
}

READ = "rule:load-balancer:read"
READ_GLOBAL = "rule:load-balancer:read-global"
WRITE = "rule:load-balancer:write"
ADMIN = "rule:load-balancer:admin"
READ_QUOTA = "rule:load-balancer:read-quota"
READ_QUOTA_GLOBAL = "rule:load-balancer:read-quota-global"
WRITE_QUOTA = "rule:load-balancer:write-quota"
READ_OR_SERVICE = "rule:load-balancer:read or rule:service"


class When(Enum):
    """Which requests to an operation a rule is about."""

    ALWAYS = auto()
    ACROSS_PROJECTS = auto()
    """A list that is not restricted to one project."""

    SECURITY_GROUPS = auto()
    """The body has vip_sg_ids, whatever its value."""

    REMOVES = auto()
    """A batch that is not additive_only."""


@dataclass(frozen=True)
class Rule:
    """`name` without PREFIX; `check` is the default; `method` and `path` say what it is about, with variable segments in
    braces."""

    name: str
    check: str
    method: str
    path: str
    when: When = When.ALWAYS

    @property
    def full_name(self) -> str:
        return PREFIX + self.name


_LBAAS = "/v2/lbaas"
_MEMBERS = f"{_LBAAS}/pools/{{pool_id}}/members"


def _life(name: str, collection: str, item: str, read: str, write: str) -> Iterator[Rule]:
    """List, create, show, change, delete."""
    one = f"{collection}/{{{item}}}"
    yield Rule(f"{name}:get_all", read, "GET", collection)
    yield Rule(f"{name}:post", write, "POST", collection)
    yield Rule(f"{name}:get_one", read, "GET", one)
    yield Rule(f"{name}:put", write, "PUT", one)
    yield Rule(f"{name}:delete", write, "DELETE", one)


def _owned(name: str) -> Iterator[Rule]:
    """A resource of projects, which administrators may list across them."""
    plural = f"{name.removesuffix('y')}ies" if name.endswith("y") else f"{name}s"
    collection = f"{_LBAAS}/{plural}"
    yield from _life(name, collection, f"{name}_id", READ, WRITE)
    yield Rule(f"{name}:{GET_ALL_GLOBAL}", READ_GLOBAL, "GET", collection, When.ACROSS_PROJECTS)


def _load_balancer_extras() -> Iterator[Rule]:
    collection = f"{_LBAAS}/loadbalancers"
    one = f"{collection}/{{loadbalancer_id}}"
    yield Rule("loadbalancer:post:vip_sg_ids", WRITE, "POST", collection, When.SECURITY_GROUPS)
    yield Rule("loadbalancer:put:vip_sg_ids", WRITE, "PUT", one, When.SECURITY_GROUPS)
    yield Rule("loadbalancer:get_stats", READ, "GET", f"{one}/stats")
    yield Rule("loadbalancer:get_status", READ, "GET", f"{one}/status")
    yield Rule("loadbalancer:get_status", READ, "GET", f"{one}/statuses")
    yield Rule("loadbalancer:get_receipts", READ, "GET", f"{one}/receipts")
    yield Rule("loadbalancer:put_failover", ADMIN, "PUT", f"{one}/failover")


def _members() -> Iterator[Rule]:
    one = f"{_MEMBERS}/{{member_id}}"
    yield Rule("member:get_all", READ_OR_SERVICE, "GET", _MEMBERS)
    yield Rule("member:post", WRITE, "POST", _MEMBERS)
    yield Rule("member:get_one", READ, "GET", one)
    yield Rule("member:put", WRITE, "PUT", one)
    yield Rule("member:delete", WRITE, "DELETE", one)
    # A batch is every one of these.
    yield Rule("member:post", WRITE, "PUT", _MEMBERS)
    yield Rule("member:put", WRITE, "PUT", _MEMBERS)
    yield Rule("member:delete", WRITE, "PUT", _MEMBERS, When.REMOVES)


def _quotas() -> Iterator[Rule]:
    collection = f"{_LBAAS}/quotas"
    one = f"{collection}/{{project_id}}"
    yield Rule("quota:get_all", READ_QUOTA, "GET", collection)
    yield Rule(f"quota:{GET_ALL_GLOBAL}", READ_QUOTA_GLOBAL, "GET", collection, When.ACROSS_PROJECTS)
    yield Rule("quota:get_one", READ_QUOTA, "GET", one)
    yield Rule("quota:put", WRITE_QUOTA, "PUT", one)
    yield Rule("quota:delete", WRITE_QUOTA, "DELETE", one)
    yield Rule("quota:get_defaults", READ_QUOTA, "GET", f"{one}/default")


def _amphorae() -> Iterator[Rule]:
    collection = "/v2/octavia/amphorae"
    one = f"{collection}/{{amphora_id}}"
    yield Rule("amphora:get_all", ADMIN, "GET", collection)
    yield Rule("amphora:get_one", ADMIN, "GET", one)
    yield Rule("amphora:delete", ADMIN, "DELETE", one)
    yield Rule("amphora:put_config", ADMIN, "PUT", f"{one}/config")
    yield Rule("amphora:put_failover", ADMIN, "PUT", f"{one}/failover")
    yield Rule("amphora:get_stats", ADMIN, "GET", f"{one}/stats")


RULES: tuple[Rule, ...] = (
    *_owned("loadbalancer"),
    *_load_balancer_extras(),
    *_owned("listener"),
    Rule("listener:get_stats", READ, "GET", f"{_LBAAS}/listeners/{{listener_id}}/stats"),
    *_owned("pool"),
    *_members(),
    *_owned("healthmonitor"),
    *_owned("l7policy"),
    *_life("l7rule", f"{_LBAAS}/l7policies/{{l7policy_id}}/rules", "l7rule_id", READ, WRITE),
    *_life("flavor", f"{_LBAAS}/flavors", "flavor_id", READ, ADMIN),
    *_life("flavor-profile", f"{_LBAAS}/flavorprofiles", "flavorprofile_id", ADMIN, ADMIN),
    *_life("availability-zone", f"{_LBAAS}/availabilityzones", "availability_zone_name", READ, ADMIN),
    *_life(
        "availability-zone-profile",
        f"{_LBAAS}/availabilityzoneprofiles",
        "availability_zone_profile_id",
        ADMIN,
        ADMIN,
    ),
    Rule("provider:get_all", READ, "GET", f"{_LBAAS}/providers"),
    Rule("provider-flavor:get_all", ADMIN, "GET", f"{_LBAAS}/providers/{{provider}}/flavor_capabilities"),
    Rule(
        "provider-availability-zone:get_all",
        ADMIN,
        "GET",
        f"{_LBAAS}/providers/{{provider}}/availability_zone_capabilities",
    ),
    *_quotas(),
    *_amphorae(),
)


def rules_of(method: str, path: str) -> tuple[Rule, ...]:
    """The rules about an operation, whatever its variable segments are called."""
    return tuple(x for x in RULES if x.method == method and _is_about(x.path, path))


def needs_rule(path: str) -> bool:
    """Whether a path is one that nobody may get at without a rule: all below a resource's collection."""
    return path.startswith((f"{_LBAAS}/", "/v2/octavia/"))


def default_checks(*, enforce_new_defaults: bool) -> dict[str, str]:
    """Every rule by its full name, in oslo.policy's language, as it is without an operator's file."""
    checks = {
        name: rule.check if enforce_new_defaults or not rule.legacy else f"{rule.check} or {rule.legacy}"
        for name, rule in BASE_RULES.items()
    }
    for rule in RULES:
        checks[rule.full_name] = rule.check
    return checks


def _is_about(rule_path: str, path: str) -> bool:
    """A variable segment of the rule stands for any segment; a fixed one for itself."""
    wanted, given = rule_path.split("/"), path.split("/")
    return len(wanted) == len(given) and all(x == y or x.startswith("{") for x, y in zip(wanted, given, strict=True))
