"""Evaluate rules with oslo.policy: the built-in ones, and an operator's file on top, which is read again when it changes.

A file that cannot be read or makes no sense is refused at the start. Later it changes nothing and is logged: the rules that
were good last hold, so that a slip of the pen neither locks everybody out nor lets anybody in."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
import yaml
from oslo_config import cfg
from oslo_policy import policy

from frontinus.api.identity.interface import Identity
from frontinus.api.policy.rules import CONTEXT_IS_ADMIN, default_checks
from frontinus.model.errors import Invalid

log = structlog.get_logger(__name__)

SETTING = "api.policy_file"
LOOK_EVERY_S = 1.0
"""How often the file is looked at."""

_NEVER = "!"
_MOST_ANSWERS = 20_000


class Enforcer:
    def __init__(
        self,
        policy_file: Path | None,
        *,
        enforce_new_defaults: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises Invalid for a file that cannot be used."""
        self._file = policy_file
        self._defaults = default_checks(enforce_new_defaults=enforce_new_defaults)
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._seen = self._state_of_file()
        self._policy = self._load()
        # Rules look at nothing but the question, so answers hold until the rules change. 0.2 ms each without this.
        self._answers: dict[tuple[str, Identity, str | None], bool] = {}

    def allows(self, rule: str, identity: Identity, project_id: str | None) -> bool:
        """Whether the caller may do what the rule (its full name) is about, to an object of that project."""
        self._follow_file()
        question = (rule, identity, project_id)
        answer = self._answers.get(question)
        if answer is None:
            answer = self._enforce(rule, identity, project_id, is_admin=self.is_admin(identity))
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            self._answers[question] = answer
        return answer

    def is_admin(self, identity: Identity) -> bool:
        """The flag `is_admin` of operators' rules."""
        return self._enforce(CONTEXT_IS_ADMIN, identity, None, is_admin=False)

    def _enforce(self, rule: str, identity: Identity, project_id: str | None, *, is_admin: bool) -> bool:
        credentials: dict[str, object] = {"roles": list(identity.roles), "is_admin": is_admin}
        # What is unknown is left out: a missing project must not equal a missing project.
        optional = {
            "project_id": identity.project_id,
            "user_id": identity.user_id,
            "system_scope": identity.system_scope,
            "domain_id": identity.domain_id,
        }
        credentials |= {key: value for key, value in optional.items() if value}
        return bool(self._policy.enforce(rule, {"project_id": project_id}, credentials))

    # ------------------------------------------------------------ the operator's file

    def _follow_file(self) -> None:
        now = self._monotonic()
        if self._file is None or now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        state = self._state_of_file()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._policy = self._load()
        except Invalid as error:
            log.warning("policy file refused, the rules before it hold", reason=error.reason)
            return
        self._answers.clear()
        log.info("policy file read", file=str(self._file))

    def _state_of_file(self) -> tuple[int, int, int] | None:
        if self._file is None:
            return None
        try:
            found = self._file.stat()
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _load(self) -> policy.Enforcer:
        conf = cfg.ConfigOpts()
        conf([], project="frontinus", default_config_files=[], default_config_dirs=[])
        checks = dict(self._defaults)
        if self._file is not None:
            checks |= self._read(self._file)
        made = policy.Enforcer(conf, use_conf=False)
        made.set_rules(policy.Rules.from_dict(checks), overwrite=True, use_conf=False)
        self._judge(made, checks)
        return made

    def _read(self, file: Path) -> Mapping[str, str]:
        try:
            document = yaml.safe_load(file.read_text("utf-8"))
        except OSError as error:
            raise Invalid(SETTING, f"{file} cannot be read: {error.strerror}") from error
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise Invalid(SETTING, f"{file} is not YAML: {error}") from error
        if document is None:
            return {}
        if not isinstance(document, dict):
            raise Invalid(SETTING, f"{file} must be a table of rules, each a name and a text")
        for name, check in document.items():
            if not isinstance(name, str) or not isinstance(check, str):
                raise Invalid(SETTING, f"{file}: rule {str(name)[:80]!r} must be a name and a text")
            if "http:" in check or "https:" in check:
                raise Invalid(SETTING, f"{file}: rule {name!r} asks another server, which is not done here")
            if name not in self._defaults:
                log.warning("policy file has a rule that nothing here asks for", file=str(file), rule=name)
        return document

    @staticmethod
    def _judge(made: policy.Enforcer, checks: Mapping[str, str]) -> None:
        """oslo.policy takes what it does not understand for a rule that nobody passes."""
        for name, text in checks.items():
            if str(made.rules[name]) == _NEVER and text.strip() != _NEVER:
                raise Invalid(SETTING, f"rule {name!r} cannot be understood: {text[:200]!r}")
        try:
            made.check_rules(raise_on_violation=True)
        except policy.InvalidDefinitionError as error:
            raise Invalid(SETTING, f"rules refer to what does not exist, or to themselves: {error}") from error
