"""L7 policies and rules as lines of a frontend. Pure. Next: render.py puts them in their place.

HAProxy runs all `http-request` rules before it looks at any `use_backend`, so the order of actions (model/l7.py) is the
order of its own phases. Every rule is an ACL named by its id; two ACLs of one name are ored, the names in a condition
are anded. What a rule compares with, and where a policy redirects to, is in a file where one can hold it (patterns.py),
so that another value is no other text. Sources: HAProxy configuration manual 7.1 (ACLs), 7.3 (samples), 4.2 (http-request)."""

from __future__ import annotations

import re

import msgspec

from frontinus.drivers.amphora.haproxy.patterns import (
    TARGET,
    VALUE,
    holds,
    holds_target,
    pattern_content,
    target_content,
    target_sample,
)
from frontinus.drivers.amphora.haproxy.text import checked, log_format
from frontinus.drivers.amphora.haproxy.tls import Files
from frontinus.model.enums import L7PolicyAction, L7RuleCompareType, L7RuleType
from frontinus.model.errors import blaming
from frontinus.model.l7 import effective_policies, operand
from frontinus.model.tree import L7Policy, L7Rule, Listener, LoadBalancerTree

Line = tuple[str, ...]

DEFAULT_REDIRECT_CODE = 302

_METHOD: dict[L7RuleCompareType, str] = {
    L7RuleCompareType.REGEX: "reg",
    L7RuleCompareType.STARTS_WITH: "beg",
    L7RuleCompareType.ENDS_WITH: "end",
    L7RuleCompareType.CONTAINS: "sub",
    L7RuleCompareType.EQUAL_TO: "str",
}

# The extension is what follows the last dot of the path's last segment; nothing where there is no dot.
_EXTENSION_WITH_DOT = "path,field(-1,/),regsub(^[^.]*$,),regsub(^.*[.],.)"
_EXTENSION = "path,field(-1,/),regsub(^[^.]*$,),regsub(^.*[.],)"
_HOST_WITHOUT_PORT = "req.hdr(host),regsub(:[0-9]*$,)"

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")

_HIGHEST_NUMBER = 2_147_483_647
"""No result of verification is as high; a longer number of the tenant's cannot match either."""


def l7_lines(tree: LoadBalancerTree, listener: Listener, backend_names: dict[str, str], files: Files) -> list[Line]:
    """The ACLs and rules of a listener's policies. `backend_names` is by pool id."""
    acls: list[Line] = []
    actions: list[Line] = []
    for policy, rules in effective_policies(tree, listener.id):
        for rule in rules:
            with blaming(rule.kind, rule.id):
                acls += rule_lines(rule, files)
        condition = tuple(f"!{rule.id}" if rule.invert else str(rule.id) for rule in rules)
        with blaming(policy.kind, policy.id):
            actions.append((*_action(policy, backend_names, files), "if", *condition))
    return [*acls, *actions]


def _action(policy: L7Policy, backend_names: dict[str, str], files: Files) -> Line:
    match policy.action:
        case L7PolicyAction.REJECT:
            return ("http-request", "deny", "deny_status", "403")
        case L7PolicyAction.REDIRECT_TO_URL:
            return _redirect(policy, "location", checked(policy.redirect_url or "", "redirect_url"), files)
        case L7PolicyAction.REDIRECT_PREFIX:
            return _redirect(policy, "prefix", checked(policy.redirect_prefix or "", "redirect_prefix"), files)
        case L7PolicyAction.REDIRECT_TO_POOL:
            return ("use_backend", backend_names[policy.redirect_pool_id or ""])


def _redirect(policy: L7Policy, kind: str, target: str, files: Files) -> Line:
    """To what the file of this policy says or, where a file cannot hold it, to what the line itself says."""
    code = str(policy.redirect_http_code or DEFAULT_REDIRECT_CODE)
    name = f"{TARGET}{policy.id}.map"
    path = files.patterns(name, target_content(target)) if holds_target(target) else None
    to = log_format(target) if path is None else target_sample(path)
    return ("http-request", "redirect", kind, to, "code", code)


def rule_lines(rule: L7Rule, files: Files) -> list[Line]:
    """The ACL of one rule: one line, or two where HAProxy has no single sample for what is meant."""
    acl = ("acl", str(rule.id))
    value = checked(operand(rule), "value")
    match rule.type:
        case L7RuleType.SSL_CONN_HAS_CERT:
            return [(*acl, "ssl_c_used")]
        case L7RuleType.SSL_VERIFY_RESULT:
            return [(*acl, "ssl_c_verify", str(min(int(value), _HIGHEST_NUMBER)))]
        case _:
            compared = _compared(rule, value)
            given = _given(rule, compared.pattern, files)
            return [(*acl, sample, *compared.flags, "-m", compared.method, *given) for sample in compared.samples]


def _given(rule: L7Rule, pattern: str, files: Files) -> Line:
    """The pattern of a rule, in its file or, where a file cannot hold it, in the line itself."""
    path = files.patterns(f"{VALUE}{rule.id}.acl", pattern_content(pattern)) if holds(pattern) else None
    return ("--", pattern) if path is None else ("-f", path)


class _Compared(msgspec.Struct, frozen=True):
    """One pattern, and the samples of which one must match it."""

    samples: tuple[str, ...]
    method: str
    pattern: str
    flags: Line = ()


def _compared(rule: L7Rule, value: str) -> _Compared:
    method = _METHOD[rule.compare_type]
    is_regex = rule.compare_type is L7RuleCompareType.REGEX
    key = _argument(checked(rule.key, "key")) if rule.key else ""
    match rule.type:
        case L7RuleType.HOST_NAME:
            # As Octavia, the header as it is; and the name alone, since who asks on an unusual port sends it along.
            return _Compared(("req.hdr(host)", _HOST_WITHOUT_PORT), method, value, ("-i",))
        case L7RuleType.PATH:
            return _Compared(("path",), method, value)
        case L7RuleType.FILE_TYPE if is_regex:
            return _Compared((_EXTENSION, _EXTENSION_WITH_DOT), method, value)
        case L7RuleType.FILE_TYPE:
            return _Compared(("path",), "end", f".{value}")
        case L7RuleType.HEADER:
            # req.hdr gives each element of a list, trimmed; what is not within one can only be found in the whole.
            whole = (f"req.fhdr({key})",) if is_regex or _may_span(value) else ()
            return _Compared((f"req.hdr({key})", *whole), method, value)
        case L7RuleType.COOKIE:
            if "," in f"{rule.key}{value}" and not is_regex:
                regex = _cookie_regex(rule.key or "", rule.compare_type, value)
                return _Compared(("req.fhdr(cookie)",), "reg", regex)
            return _Compared((f"req.cook({key})",), method, value)
        case L7RuleType.SSL_DN_FIELD:
            return _Compared((f"ssl_c_s_dn({key})",), method, value)
        case L7RuleType.SSL_CONN_HAS_CERT | L7RuleType.SSL_VERIFY_RESULT:
            raise AssertionError(f"{rule.type} has no text to compare")


def _may_span(value: str) -> bool:
    """Whether a header can hold this where no single element of its list does."""
    return "," in value or " " in value


def _cookie_regex(name: str, compare_type: L7RuleCompareType, value: str) -> str:
    """A comparison with a cookie whose name or value has a comma, where req.cook would see the end of the cookie."""
    before = "[^;]*" if compare_type in (L7RuleCompareType.ENDS_WITH, L7RuleCompareType.CONTAINS) else ""
    after = " *(;|$)" if compare_type in (L7RuleCompareType.ENDS_WITH, L7RuleCompareType.EQUAL_TO) else ""
    return f"(^|;) *{_literally(name)}={before}{_literally(value)}{after}"


def _literally(text: str) -> str:
    return re.sub(r"([^A-Za-z0-9_])", r"\\\1", text)


def _argument(text: str) -> str:
    """The text as an argument of a sample: quoted, once inside the configuration's own quoting, unless it is plain."""
    return text if _PLAIN_KEY.fullmatch(text) else f'"{text}"'
