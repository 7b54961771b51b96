"""The table of rules is that of the contract, and each role gets by it what the contract says: rule by rule, role by role."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frontinus.api.identity.interface import Identity
from frontinus.api.operations import resource_operations
from frontinus.api.policy.enforcer import Enforcer
from frontinus.api.policy.rules import BASE_RULES, RULES, When, default_checks, needs_rule, rules_of
from frontinus.model.errors import Invalid
from frontinus.model.ids import ProjectId

from tests.contract.facts import rbac

pytestmark = pytest.mark.unit

RBAC = rbac()
OWN, FOREIGN = ProjectId("own"), ProjectId("foreign")
ROLES = (
    "admin",
    "member",
    "reader",
    "service",
    "manager",
    "creator",
    *RBAC["deprecated_roles"]["names"],
)
CONDITIONS = {
    None: When.ALWAYS,
    "listing across projects": When.ACROSS_PROJECTS,
    "body contains vip_sg_ids": When.SECURITY_GROUPS,
    "not additive_only": When.REMOVES,
}


BEYOND_THE_CONTRACT = {
    ("os_load-balancer_api:loadbalancer:get_receipts", "GET", "/v2/lbaas/loadbalancers/{loadbalancer_id}/receipts"),
}


def contract_operations() -> Iterator[tuple[str, str, str, When]]:
    for name, rule in RBAC["rules"].items():
        for operation in rule["operations"]:
            when = CONDITIONS[operation.get("when") or rule.get("when")]
            yield name, operation["method"], operation["path"], when


def test_every_rule_of_the_contract_is_there_with_its_operations() -> None:
    ours = [x for x in RULES if (x.full_name, x.method, x.path) not in BEYOND_THE_CONTRACT]
    assert len(RULES) == len(ours) + len(BEYOND_THE_CONTRACT)
    assert {(x.full_name, x.method, x.path, x.when) for x in ours} == set(contract_operations())
    assert len(ours) == len(list(contract_operations())), "a rule is in the table twice"


def test_base_rules_have_the_contracts_names() -> None:
    assert set(BASE_RULES) == set(RBAC["base_rules"]) - {"note"}


def test_every_operation_on_a_resource_has_a_rule() -> None:
    without = [x.id for x in resource_operations() if needs_rule(x.path) and not rules_of(x.method, x.path)]
    assert without == []


def may(role: str, granted: list[str], *, foreign: bool) -> bool:
    """What a tier of the contract says, read without oslo.policy."""
    return role in granted or (not foreign and f"{role}@project" in granted)


@pytest.mark.parametrize("enforce_new_defaults", [True, False], ids=["keystone's roles", "load-balancer roles too"])
def test_matrix_of_rules_roles_and_projects(
    enforce_new_defaults: bool, record_property: Callable[[str, object], None]
) -> None:
    enforcer = Enforcer(None, enforce_new_defaults=enforce_new_defaults)
    cells, wrong = 0, []
    for name, rule in RBAC["rules"].items():
        tier = RBAC["tiers"][rule["tier"]]
        granted = tier["roles_default"] + ([] if enforce_new_defaults else tier["roles_legacy_extra"])
        for role in ROLES:
            identity = Identity(project_id=OWN, user_id="somebody", roles=(role,))
            for project_id in (OWN, FOREIGN):
                cells += 1
                expected = may(role, granted, foreign=project_id == FOREIGN)
                if enforcer.allows(name, identity, project_id) is not expected:
                    wrong.append((name, role, project_id, expected))
    record_property("cells", cells)
    assert cells == len(RBAC["rules"]) * len(ROLES) * 2
    assert wrong == []


def test_a_token_without_a_project_owns_nothing() -> None:
    enforcer = Enforcer(None, enforce_new_defaults=True)
    nobody = Identity(roles=("reader", "member"))
    for rule in RULES:
        for project_id in (None, "None", "", "own"):
            assert not enforcer.allows(rule.full_name, nobody, project_id), rule


class File:
    """An operator's policy file, and a clock that passes as told."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path / "policy.yaml"
        self.time = 0.0
        self.write(text)

    def write(self, text: str) -> None:
        """As an operator's editor does: another file in the place of the first."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.path)
        self.time += 10

    def enforcer(self) -> Enforcer:
        return Enforcer(self.path, enforce_new_defaults=True, monotonic=lambda: self.time)


CREATE = "os_load-balancer_api:loadbalancer:post"
SHOW = "os_load-balancer_api:loadbalancer:get_one"
MEMBER = Identity(project_id=OWN, roles=("member",))
READER = Identity(project_id=OWN, roles=("reader",))


def test_operators_file_overrides_by_name_and_is_read_again(tmp_path: Path) -> None:
    file = File(tmp_path, f'"{CREATE}": "role:builder"\n')
    enforcer = file.enforcer()
    assert not enforcer.allows(CREATE, MEMBER, OWN)
    assert enforcer.allows(CREATE, Identity(project_id=OWN, roles=("builder",)), OWN)
    assert enforcer.allows(SHOW, READER, OWN), "a rule that is not overridden stays"
    file.write("")
    assert enforcer.allows(CREATE, MEMBER, OWN)
    file.write('"load-balancer:write": "role:member and user_id:alice"\n')
    assert not enforcer.allows(CREATE, MEMBER, OWN)
    assert enforcer.allows(CREATE, Identity(project_id=OWN, user_id="alice", roles=("member",)), OWN)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: [", id="no YAML"),
        pytest.param("- a\n", id="a list"),
        pytest.param(f'"{CREATE}": 3\n', id="a number for a rule"),
        pytest.param(f'"{CREATE}": "role:member and and"\n', id="no rule"),
        pytest.param(f'"{CREATE}": "rule:nowhere"\n', id="a rule that is not there"),
        pytest.param('"load-balancer:write": "rule:load-balancer:write"\n', id="a rule of itself"),
        pytest.param(f'"{CREATE}": "http://somewhere/allowed"\n', id="a rule that asks another server"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_at_the_start_and_ignored_later(tmp_path: Path, text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        File(tmp_path, text).enforcer()
    assert refusal.value.field == "api.policy_file"
    file = File(tmp_path, f'"{CREATE}": "role:builder"\n')
    enforcer = file.enforcer()
    file.write(text)
    assert not enforcer.allows(CREATE, MEMBER, OWN), "what was good last holds"
    file.write(f'"{CREATE}": "role:member"\n')
    assert enforcer.allows(CREATE, MEMBER, OWN)


def test_a_file_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    file = File(tmp_path, f'"{CREATE}": "role:builder"\n')
    enforcer = file.enforcer()
    file.path.unlink()
    file.time += 10
    assert not enforcer.allows(CREATE, MEMBER, OWN)
    with pytest.raises(Invalid, match="cannot be read"):
        file.enforcer()


SAMPLES: dict[str, dict[str, str]] = {
    "admin_or_owner": {
        "context_is_admin": "role:admin or role:load-balancer_admin",
        "admin_or_owner": "is_admin:True or project_id:%(project_id)s",
        "load-balancer:read": "rule:admin_or_owner",
        "load-balancer:read-global": "is_admin:True",
        "load-balancer:write": "rule:admin_or_owner",
        "load-balancer:read-quota": "rule:admin_or_owner",
        "load-balancer:read-quota-global": "is_admin:True",
        "load-balancer:write-quota": "is_admin:True",
    },
    "keystone_default_roles": {
        "context_is_admin": "role:admin",
        "load-balancer:admin": "is_admin:True or role:admin or role:load-balancer_admin",
        "load-balancer:read": "is_admin:True or role:admin or (role:reader and project_id:%(project_id)s)",
        "load-balancer:read-global": "is_admin:True or role:admin",
        "load-balancer:write": "is_admin:True or (role:member and project_id:%(project_id)s)",
    },
    "advanced_rbac": {
        "context_is_admin": "role:admin or role:load-balancer_admin",
        "load-balancer:admin": "is_admin:True or role:admin or role:load-balancer_admin",
        "load-balancer:observer_and_owner": "role:load-balancer_observer and rule:load-balancer:owner",
        "load-balancer:global_observer": "role:load-balancer_global_observer",
        "load-balancer:member_and_owner": "role:load-balancer_member and rule:load-balancer:owner",
    },
}


@pytest.mark.parametrize(
    "sample,role,own_read,own_write,foreign_read",
    [
        ("admin_or_owner", "anything", True, True, False),
        ("admin_or_owner", "load-balancer_admin", True, True, True),
        ("keystone_default_roles", "member", False, True, False),
        ("keystone_default_roles", "reader", True, False, False),
        ("keystone_default_roles", "admin", True, True, True),
        ("advanced_rbac", "member", False, False, False),
        ("advanced_rbac", "reader", False, False, False),
        ("advanced_rbac", "load-balancer_member", True, True, False),
        ("advanced_rbac", "load-balancer_observer", True, False, False),
        ("advanced_rbac", "load-balancer_global_observer", True, False, True),
        ("advanced_rbac", "admin", True, True, True),
    ],
)
def test_sample_files_of_operators_mean_what_they_mean_elsewhere(
    tmp_path: Path, sample: str, role: str, own_read: bool, own_write: bool, foreign_read: bool
) -> None:
    text = "".join(f'"{name}": "{check}"\n' for name, check in SAMPLES[sample].items())
    enforcer = File(tmp_path, text).enforcer()
    identity = Identity(project_id=OWN, roles=(role,))
    given = (
        enforcer.allows(SHOW, identity, OWN),
        enforcer.allows(CREATE, identity, OWN),
        enforcer.allows(SHOW, identity, FOREIGN),
    )
    assert given == (own_read, own_write, foreign_read)


def test_defaults_name_each_rule_once() -> None:
    assert len(default_checks(enforce_new_defaults=True)) == len(BASE_RULES) + len(RBAC["rules"]) + len(
        BEYOND_THE_CONTRACT
    )
