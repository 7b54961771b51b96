"""`frontinus secret …`: the certificates, authorities and revocation lists that this installation keeps itself.

Works beside a running `frontinus up`, which notices what changes within a second. Nothing here prints a key."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click

from frontinus.cli.output import complain, in_words, say, settings_or_exit
from frontinus.drivers.secret.local.driver import LocalSecrets, LocalSecretsSettings, StoredSecret
from frontinus.main import check as check_settings
from frontinus.model.errors import FrontinusError, Invalid
from frontinus.model.ids import ProjectId
from frontinus.settings import Settings
from frontinus.store import secrets as references
from frontinus.store.engine import Store

PASSWORD_VARIABLE = "FRONTINUS_SECRET_PASSWORD"  # noqa: S105 - where a password is, not one
ENDS_SOON_DAYS = 30

_T = TypeVar("_T")
Work = Callable[[LocalSecrets, Settings], int]


def run(file: Path | None, overrides: dict[str, object], work: Work) -> int:
    """Exit status of the work on the local store: 0; 1 when something is in the way, 2 for what can never be."""
    settings = settings_or_exit(file, overrides)
    try:
        found = check_settings(settings).get(LocalSecrets.name)
        if not isinstance(found, LocalSecretsSettings):
            complain(f"secrets are kept elsewhere: drivers.secret is {settings.drivers.secret!r}, not 'local'")
            return 2
        if not settings.state_dir.is_dir():
            # Made by `frontinus up`, or by whoever means to: not by a slip in --state-dir.
            complain(f"{settings.state_dir} does not exist; start `frontinus up` once, or make the directory")
            return 1
        return work(LocalSecrets(found), settings)
    except Invalid as error:
        complain(str(error))
        return 2
    except (FrontinusError, OSError) as error:
        complain(in_words(error))
        return 1


def store(paths: Sequence[Path], project: str | None, name: str, password: str | None) -> Work:
    def work(secrets: LocalSecrets, settings: Settings) -> int:
        content, project_id = read(paths), whose(project, settings)
        reference = with_password(lambda given: secrets.put(content, project_id, name=name, password=given), password)
        say(reference)
        return 0

    return work


def replace(reference: str, paths: Sequence[Path], project: str | None, name: str | None, password: str | None) -> Work:
    def work(secrets: LocalSecrets, settings: Settings) -> int:
        content, project_id = read(paths), whose(project, settings)
        with_password(
            lambda given: secrets.replace(reference, content, project_id, name=name, password=given), password
        )
        say(f"{reference} is replaced; load balancers that use it are changed within seconds.")
        return 0

    return work


def list_(project: str | None) -> Work:
    def work(secrets: LocalSecrets, _: Settings) -> int:
        for secret in secrets.list(None if project is None else ProjectId(project)):
            say("  ".join((secret.reference, secret.name or "-", secret.kind, _validity(secret))))
        return 0

    return work


def show(reference: str, project: str | None) -> Work:
    def work(secrets: LocalSecrets, settings: Settings) -> int:
        secret = secrets.show(reference, whose(project, settings))
        rows = {
            "reference": secret.reference,
            "name": secret.name,
            "project": secret.project_id,
            "holds": secret.kind,
            "subject": secret.subject,
            "good for": ", ".join(secret.names),
            "stored": secret.created_at.isoformat(timespec="seconds"),
            "replaced": "" if secret.updated_at is None else secret.updated_at.isoformat(timespec="seconds"),
            "ends": _validity(secret),
            "used by": ", ".join(_users(settings, reference)),
        }
        for key, value in rows.items():
            if value:
                say(f"{key:<10} {value}")
        return 0

    return work


def delete(reference: str, project: str | None, *, force: bool) -> Work:
    def work(secrets: LocalSecrets, settings: Settings) -> int:
        project_id = whose(project, settings)
        secrets.show(reference, project_id)
        users = _users(settings, reference)
        if users and not force:
            complain(f"{reference} is used by {', '.join(users)}; change these first, or use --force")
            return 1
        secrets.delete(reference, project_id)
        if users:
            complain(f"used by {', '.join(users)}: they go on with what they have, and cannot be changed without it")
        say(f"{reference} is deleted.")
        return 0

    return work


def whose(project: str | None, settings: Settings) -> ProjectId:
    """The project that was named, or the one of whoever calls the API without authentication."""
    return settings.api.default_project_id if project is None else ProjectId(project)


def read(paths: Sequence[Path]) -> bytes:
    """The files one after the other; `-` is standard input. Raises OSError."""
    parts = [sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes() for path in paths]
    return parts[0] if len(parts) == 1 else b"\n".join(parts)


def with_password(work: Callable[[str | None], _T], password: str | None) -> _T:
    """The work with the password, which is asked for where one is needed and a person is there. Raises Invalid."""
    try:
        return work(password)
    except Invalid as error:
        if password is not None or "password" not in error.reason or not sys.stdin.isatty():
            raise
    return work(click.prompt("Password", hide_input=True, err=True))


def password_of(given: str | None, file: Path | None) -> str | None:
    """The password, from the option, the file's first line, or the environment. Raises OSError."""
    if given is not None:
        return given
    if file is not None:
        return file.read_text().split("\n", 1)[0]
    return os.environ.get(PASSWORD_VARIABLE)


def _users(settings: Settings, reference: str) -> list[str]:
    """Who refers to it, by kind and id; nobody where there is no database yet."""
    if not settings.database and not (settings.state_dir / "frontinus.sqlite").exists():
        return []

    async def ask() -> list[str]:
        database = Store.open(settings.database_url)
        try:
            found = await database.read(references.users)
        finally:
            await database.close()
        return [f"{user.kind} {user.id}" for user in found.get(reference, ())]

    return asyncio.run(ask())


def _validity(secret: StoredSecret) -> str:
    if secret.expires_at is None:
        return ""
    left = (secret.expires_at - datetime.now(UTC)).days
    when = secret.expires_at.date().isoformat()
    if left < 0:
        return f"ENDED on {when}"
    return f"until {when}" if left >= ENDS_SOON_DAYS else f"ENDS SOON: in {left} days, on {when}"
