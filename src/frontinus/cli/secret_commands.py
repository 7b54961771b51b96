"""`frontinus secret …`: the commands and their options; what they do is in secret.py, imported when one runs."""

from __future__ import annotations

from pathlib import Path

import click

from frontinus.cli.options import CONFIG, STATE_DIR, overrides


@click.group()
def secret() -> None:
    """Certificates, authorities and revocation lists, kept encrypted by this installation."""


PROJECT = click.option("--project", help="Whose it is: a project's id. Default: api.default_project_id.")
PASSWORD = click.option("--password", help="Opens the key. Seen by whoever lists processes; better --password-file.")
PASSWORD_FILE = click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file whose first line is the password. Else FRONTINUS_SECRET_PASSWORD, or you are asked.",
)
FILES = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))


@secret.command("store")
@STATE_DIR
@CONFIG
@PROJECT
@click.option("--name", default="", help="What people call it.")
@PASSWORD
@PASSWORD_FILE
@FILES
def secret_store(
    state_dir: Path | None,
    config: Path | None,
    project: str,
    name: str,
    password: str | None,
    password_file: Path | None,
    files: tuple[Path, ...],
) -> None:
    """Keep a secret, and print its reference for default_tls_container_ref and the like.

    FILES are PEM texts (certificate, key and intermediates, in one file or several; or authorities; or revocation
    lists), or one PKCS#12 file; `-` is standard input."""
    from frontinus.cli import secret as command

    work = command.store(files, project, name, command.password_of(password, password_file))
    raise SystemExit(command.run(config, overrides(state_dir), work))


@secret.command("replace")
@STATE_DIR
@CONFIG
@PROJECT
@click.option("--name", help="Another name; it keeps the old one otherwise.")
@PASSWORD
@PASSWORD_FILE
@click.argument("reference")
@FILES
def secret_replace(
    state_dir: Path | None,
    config: Path | None,
    project: str,
    name: str | None,
    password: str | None,
    password_file: Path | None,
    reference: str,
    files: tuple[Path, ...],
) -> None:
    """Put another content behind a reference: what uses it serves the new one within seconds, without a restart."""
    from frontinus.cli import secret as command

    work = command.replace(reference, files, project, name, command.password_of(password, password_file))
    raise SystemExit(command.run(config, overrides(state_dir), work))


@secret.command("list")
@STATE_DIR
@CONFIG
@click.option("--project", help="Only this project's.")
def secret_list(state_dir: Path | None, config: Path | None, project: str | None) -> None:
    """Show what is kept: reference, name, what it holds, until when it is good."""
    from frontinus.cli import secret as command

    work = command.list_(project)
    raise SystemExit(command.run(config, overrides(state_dir), work))


@secret.command("show")
@STATE_DIR
@CONFIG
@PROJECT
@click.argument("reference")
def secret_show(state_dir: Path | None, config: Path | None, project: str, reference: str) -> None:
    """Show all that may be told of one secret, and who uses it."""
    from frontinus.cli import secret as command

    raise SystemExit(command.run(config, overrides(state_dir), command.show(reference, project)))


@secret.command("delete")
@STATE_DIR
@CONFIG
@PROJECT
@click.option("--force", is_flag=True, help="Delete it though it is in use.")
@click.argument("reference")
def secret_delete(state_dir: Path | None, config: Path | None, project: str, force: bool, reference: str) -> None:
    """Forget a secret."""
    from frontinus.cli import secret as command

    work = command.delete(reference, project, force=force)
    raise SystemExit(command.run(config, overrides(state_dir), work))
