"""L7 policies by host and path as nginx maps: one map for each rule, each policy, and the choice among policies.

The order of actions and what a rule compares with are model/l7.py's. Maps are looked up lazily and once per request, and
what a tenant wrote stands in them only as a pattern whose every special byte is a number. Pure."""

from __future__ import annotations

import re

import msgspec

from frontinus.drivers.amphora.agent.nginx_text import Directive, block, line, literal_pattern, template
from frontinus.model.enums import L7PolicyAction, L7RuleCompareType, L7RuleType
from frontinus.model.l7 import effective_policies, operand
from frontinus.model.tree import L7Policy, L7Rule, Listener, LoadBalancerTree

DEFAULT_REDIRECT_CODE = 302

RULE_TYPES = frozenset({L7RuleType.HOST_NAME, L7RuleType.PATH})

_PATH, _NAME = "$frontinus_path", "$frontinus_name"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A listener's policies. `maps` go to the http block; `answers` to its server, before it passes anything on;
    `pool_variable` holds the pool's name, or `none`, and is empty when no policy chooses a pool."""

    maps: tuple[Directive, ...] = ()
    answers: tuple[Directive, ...] = ()
    pool_variable: str = ""


def sources() -> tuple[Directive, ...]:
    """What rules compare with, once per http block: the path as the client wrote it, since nginx's own $uri is decoded
    and cleaned; and the Host header without its port. Not nginx's $host: that is what the request line names, or even
    the server, and a rule must see the host that the member is told."""
    return (
        block("map", "$request_uri", _PATH, inside=[line("~^([^?]*)", "$1")]),
        block("map", "$http_host", _NAME, inside=[line("~^(.*?)(?::[0-9]*)?$", "$1")]),
    )


def policies(tree: LoadBalancerTree, listener: Listener, index: int) -> Choice:
    """`index` keeps the variables of listeners apart."""
    found = effective_policies(tree, listener.id)
    if not found:
        return Choice()
    maps: list[Directive] = []
    turns: list[str] = []
    for number, (_policy, rules) in enumerate(found):
        names = [f"$rule_{index}_{number}_{place}" for place in range(len(rules))]
        maps += [each for rule, name in zip(rules, names, strict=True) for each in _rule_maps(rule, name)]
        all_hold = "".join("0" if rule.invert else "1" for rule in rules)
        turn = f"$policy_{index}_{number}"
        maps.append(block("map", "".join(names), turn, inside=[line("default", "0"), line(all_hold, "1")]))
        turns.append(turn)
    choice = f"$choice_{index}"
    inside = [line("default", "none"), *(line(f"~^0{{{number}}}1", str(number)) for number in range(len(found)))]
    maps.append(block("map", "".join(turns), choice, inside=inside))
    answers = [
        block("if", *f"({choice} = {number})".split(), inside=[_answer(policy)])
        for number, (policy, _rules) in enumerate(found)
        if policy.action is not L7PolicyAction.REDIRECT_TO_POOL
    ]
    targets = {
        str(number): policy.redirect_pool_id
        for number, (policy, _rules) in enumerate(found)
        if policy.action is L7PolicyAction.REDIRECT_TO_POOL and policy.redirect_pool_id
    }
    if not targets:
        return Choice(maps=tuple(maps), answers=tuple(answers))
    default = tree.pool(listener.default_pool_id)
    default_id = default.id if default is not None and default.admin_state_up else "none"
    pool_variable = f"$pool_{index}"
    inside = [line("default", default_id), *(line(number, pool) for number, pool in targets.items())]
    maps.append(block("map", choice, pool_variable, inside=inside))
    return Choice(maps=tuple(maps), answers=tuple(answers), pool_variable=pool_variable)


def _rule_maps(rule: L7Rule, name: str) -> list[Directive]:
    pattern = _pattern(rule)
    if rule.type is not L7RuleType.HOST_NAME:
        return [block("map", _PATH, name, inside=[line("default", "0"), line(f"~{pattern}", "1")])]
    # A host is compared whatever its case, with and without its port; where there is none, no rule about it holds.
    alone, matches, nothing = f"{name}_alone", line(f"~*{pattern}", "1"), line("", "0")
    return [
        block("map", _NAME, alone, inside=[line("default", "0"), nothing, matches]),
        block("map", "$http_host", name, inside=[line("default", alone), nothing, matches]),
    ]


def _pattern(rule: L7Rule) -> str:
    if rule.compare_type is L7RuleCompareType.REGEX:
        return renamed_groups(rule.value)
    text = literal_pattern(operand(rule))
    match rule.compare_type:
        case L7RuleCompareType.EQUAL_TO:
            return rf"\A{text}\z"
        case L7RuleCompareType.STARTS_WITH:
            return rf"\A{text}"
        case L7RuleCompareType.ENDS_WITH:
            return rf"{text}\z"
        case L7RuleCompareType.CONTAINS:
            return rf"(?:{text})"
    raise AssertionError(rule.compare_type)


_GROUP = re.compile(r"(?P<skipped>\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|\(\?P(?P<how>[<=])(?P<name>[A-Za-z_][A-Za-z0-9_]*)")


def renamed_groups(pattern: str) -> str:
    """nginx makes a variable of every named group, and would refuse the name of one that it has."""
    names: dict[str, str] = {}

    def rename(found: re.Match[str]) -> str:
        if found["skipped"] is not None:
            return found[0]
        return f"(?P{found['how']}{names.setdefault(found['name'], f'group_{len(names)}')}"

    return _GROUP.sub(rename, pattern)


def _answer(policy: L7Policy) -> Directive:
    code = str(policy.redirect_http_code or DEFAULT_REDIRECT_CODE)
    match policy.action:
        case L7PolicyAction.REJECT:
            return line("return", "403")
        case L7PolicyAction.REDIRECT_TO_URL:
            return line("return", code, template(policy.redirect_url or ""))
        case L7PolicyAction.REDIRECT_PREFIX:
            return line("return", code, f"{template(policy.redirect_prefix or '')}$request_uri")
        case L7PolicyAction.REDIRECT_TO_POOL:
            raise AssertionError("a pool is not an answer")
