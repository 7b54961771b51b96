"""What L7 policies and rules mean, apart from how a driver says it: which of them count, and what a rule compares with.

Pure. Sources: contract/resources.yaml, matrices.l7rule_value; Octavia's guide to L7 policies for the order of actions."""

from __future__ import annotations

from frontinus.model.enums import L7PolicyAction, L7RuleCompareType, L7RuleType
from frontinus.model.tree import L7Policy, L7Rule, LoadBalancerTree

_QUOTABLE = frozenset({L7RuleType.HEADER, L7RuleType.HOST_NAME, L7RuleType.PATH, L7RuleType.FILE_TYPE})

ORDER_OF_ACTIONS: tuple[frozenset[L7PolicyAction], ...] = (
    frozenset({L7PolicyAction.REJECT}),
    frozenset({L7PolicyAction.REDIRECT_TO_URL, L7PolicyAction.REDIRECT_PREFIX}),
    frozenset({L7PolicyAction.REDIRECT_TO_POOL}),
)
"""All rejects are tried before all redirects, and those before the choice of a pool; position decides among equals."""


def operand(rule: L7Rule) -> str:
    """What the request is compared with: a value wholly in double quotes means what is between them."""
    may_be_quoted = rule.type in _QUOTABLE and rule.compare_type is not L7RuleCompareType.REGEX
    if may_be_quoted and len(rule.value) >= 2 and rule.value.startswith('"') and rule.value.endswith('"'):
        return rule.value[1:-1]
    return rule.value


def effective_policies(tree: LoadBalancerTree, listener_id: str) -> tuple[tuple[L7Policy, tuple[L7Rule, ...]], ...]:
    """The policies of a listener that can match, each with the rules that must all hold, in the order in which they
    are tried. Left out: what is disabled, a policy without an enabled rule, one whose pool is disabled or missing."""
    found: list[tuple[L7Policy, tuple[L7Rule, ...]]] = []
    for policy in tree.l7_policies_of(listener_id):
        rules = tuple(sorted((x for x in tree.l7_rules_of(policy.id) if x.admin_state_up), key=lambda x: x.id))
        if not policy.admin_state_up or not rules:
            continue
        if policy.action is L7PolicyAction.REDIRECT_TO_POOL:
            pool = tree.pool(policy.redirect_pool_id)
            if pool is None or not pool.admin_state_up:
                continue
        found.append((policy, rules))
    # Sorting is stable: the order by position stays within each kind of action.
    found.sort(key=lambda each: next(turn for turn, kinds in enumerate(ORDER_OF_ACTIONS) if each[0].action in kinds))
    return tuple(found)
