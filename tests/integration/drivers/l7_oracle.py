"""What L7 policies mean, written down once more and apart from the driver: a request and a tree in, the outcome out.

Pure Python, no HAProxy. Where it says more than the API's documentation, tests compare it with the real thing."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field

from frontinus.model.enums import L7PolicyAction, L7RuleCompareType, L7RuleType
from frontinus.model.tree import L7Policy, L7Rule, Listener, LoadBalancerTree


@dataclass(frozen=True)
class Request:
    """As on the wire. `target` is the path with its query; cookies are a header like any other."""

    target: str = "/"
    host: str = "here"
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def values(self, name: str) -> list[str]:
        return [value.strip(" \t") for key, value in self.headers if key.lower() == name.lower()]

    def encode(self) -> bytes:
        lines = [f"GET {self.target} HTTP/1.1", f"Host: {self.host}", *(f"{k}: {v}" for k, v in self.headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass(frozen=True)
class Outcome:
    """`pool` is the id of the pool that gets the request; None with 503 when there is none."""

    status: int
    location: str | None = None
    pool: str | None = field(default=None)


def outcome(tree: LoadBalancerTree, listener: Listener, request: Request) -> Outcome:
    """Rejects win over redirects, redirects over pools; among equals the lower position."""
    matching = [policy for policy in tree.l7_policies_of(listener.id) if matches(tree, policy, request)]
    for kinds in (
        {L7PolicyAction.REJECT},
        {L7PolicyAction.REDIRECT_TO_URL, L7PolicyAction.REDIRECT_PREFIX},
        {L7PolicyAction.REDIRECT_TO_POOL},
    ):
        for policy in matching:
            if policy.action in kinds:
                return _act(policy, request)
    pool = tree.pool(listener.default_pool_id)
    return Outcome(200, pool=pool.id) if pool is not None and pool.admin_state_up else Outcome(503)


def _act(policy: L7Policy, request: Request) -> Outcome:
    match policy.action:
        case L7PolicyAction.REJECT:
            return Outcome(403)
        case L7PolicyAction.REDIRECT_TO_URL:
            return Outcome(policy.redirect_http_code or 302, location=policy.redirect_url)
        case L7PolicyAction.REDIRECT_PREFIX:
            return Outcome(policy.redirect_http_code or 302, location=f"{policy.redirect_prefix}{request.target}")
        case L7PolicyAction.REDIRECT_TO_POOL:
            return Outcome(200, pool=policy.redirect_pool_id)


def matches(tree: LoadBalancerTree, policy: L7Policy, request: Request) -> bool:
    rules = [rule for rule in tree.l7_rules_of(policy.id) if rule.admin_state_up]
    if not policy.admin_state_up or not rules:
        return False
    if policy.redirect_pool_id is not None:
        pool = tree.pool(policy.redirect_pool_id)
        if pool is None or not pool.admin_state_up:
            return False
    return all(holds(rule, request) is not rule.invert for rule in rules)


def holds(rule: L7Rule, request: Request) -> bool:
    """Whether the rule is true of the request, before any inversion."""
    value, is_regex = rule.value, rule.compare_type is L7RuleCompareType.REGEX
    if rule.type is not L7RuleType.COOKIE and not is_regex and re.fullmatch('".+"', value):
        value = value[1:-1]
    if rule.type is L7RuleType.FILE_TYPE and not is_regex:
        return request.path.endswith(f".{value}")
    texts = _texts(rule, request)
    flags = re.NOFLAG
    if rule.type is L7RuleType.HOST_NAME:
        flags = re.IGNORECASE
        if not is_regex:
            texts, value = [text.lower() for text in texts], value.lower()
    return any(_compare(rule.compare_type, text, value, flags) for text in texts)


def _texts(rule: L7Rule, request: Request) -> list[str]:
    match rule.type:
        case L7RuleType.PATH:
            return [request.path]
        case L7RuleType.HOST_NAME:
            return [request.host, re.sub(":[0-9]*$", "", request.host)]
        case L7RuleType.FILE_TYPE:
            name = request.path.rpartition("/")[2]
            _, dot, extension = name.rpartition(".")
            return [extension, dot + extension] if dot else [""]
        case L7RuleType.HEADER:
            lines = request.values(rule.key or "")
            return [*lines, *(element for line in lines for element in _elements(line))]
        case L7RuleType.COOKIE:
            return [value for line in request.values("Cookie") for value in _cookies(rule, line)]
        case _:
            return []  # the rest is about TLS, and these requests have none


def _compare(how: L7RuleCompareType, text: str, value: str, flags: re.RegexFlag) -> bool:
    match how:
        case L7RuleCompareType.EQUAL_TO:
            return text == value
        case L7RuleCompareType.STARTS_WITH:
            return text.startswith(value)
        case L7RuleCompareType.ENDS_WITH:
            return text.endswith(value)
        case L7RuleCompareType.CONTAINS:
            return value in text
        case L7RuleCompareType.REGEX:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # [[] is frowned at, and right
                return re.search(value, text, flags) is not None


def _elements(line: str) -> list[str]:
    """The elements of a list (RFC 9110 5.6.1): commas in quoted strings don't part them."""
    return [element.strip(" \t") for element in re.findall(r'(?:"(?:\\.|[^"\\])*(?:"|$)|[^,"])+', line)]


def _cookies(rule: L7Rule, line: str) -> list[str]:
    """The values of the rule's cookie; they end at a comma unless the rule itself has one."""
    pairs = [pair.strip(" ").partition("=") for pair in line.split(";")]
    values = [value for name, equals, value in pairs if equals and name == rule.key]
    return values if "," in rule.value else [value.partition(",")[0] for value in values]
