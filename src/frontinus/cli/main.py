"""`frontinus`: the commands and their options. What a command does is in the module named after it, imported when
the command runs; nothing heavy may be imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from frontinus import __version__

STATE_DIR = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the database, keys and amphorae. Default: /var/lib/frontinus for root, else below ~/.local/state.",
)
CONFIG = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings in TOML; see `frontinus config check`."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="frontinus")
def main() -> None:
    """Load balancing as a service, wire-compatible with OpenStack Octavia."""


@main.command()
@STATE_DIR
@CONFIG
@click.option("--host", help="Address of the API. Anything but loopback needs authentication.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the API (default 9876; 0: any free one).")
@click.option("--health-port", type=click.IntRange(0, 65535), help="UDP port for heartbeats (default 5555; 0: any).")
def up(
    state_dir: Path | None, config: Path | None, host: str | None, port: int | None, health_port: int | None
) -> None:
    """Run API, controller and health receiver in this process until Ctrl-C.

    The amphorae, and with them the traffic, go on when it ends; `frontinus down` stops them too."""
    from frontinus.cli import up as command

    overrides: dict[str, Any] = {}
    if state_dir is not None:
        overrides["state_dir"] = str(state_dir)
    if host is not None:
        overrides.setdefault("api", {})["bind_host"] = host
    if port is not None:
        overrides.setdefault("api", {})["bind_port"] = port
    if health_port is not None:
        overrides.setdefault("health", {})["bind_port"] = health_port
    raise SystemExit(command.run(config, overrides))


@main.command()
@STATE_DIR
@CONFIG
@click.option("--purge", is_flag=True, help="Remove the state directory too: every load balancer is forgotten.")
def down(state_dir: Path | None, config: Path | None, purge: bool) -> None:
    """Stop everything that a state directory owns: the control plane, and the amphorae with their traffic.

    The load balancers are kept in the database: the next `frontinus up` brings them back."""
    from frontinus.cli import down as command

    raise SystemExit(command.run(config, {} if state_dir is None else {"state_dir": str(state_dir)}, purge=purge))


@main.command()
@click.option("--once", is_flag=True, help="End after the show and leave nothing behind.")
@click.option("--backends", type=click.IntRange(2, 9), default=3, show_default=True, help="How many web servers.")
@click.option("--requests", "count", type=click.IntRange(1, 100_000), default=600, show_default=True)
def demo(once: bool, backends: int, count: int) -> None:
    """Start everything, create a load balancer with openstacksdk, and show it spreading requests."""
    from frontinus.cli import demo as command

    raise SystemExit(command.run(once=once, backends=backends, count=count))


@main.group()
def config() -> None:
    """Settings."""


@config.command("check")
@STATE_DIR
@CONFIG
def config_check(state_dir: Path | None, config: Path | None) -> None:
    """Read the settings, and print those that are in force."""
    from frontinus.cli import config as command

    raise SystemExit(command.check(config, {} if state_dir is None else {"state_dir": str(state_dir)}))


@main.group()
def db() -> None:
    """The database."""


@db.command("upgrade")
@STATE_DIR
@CONFIG
def db_upgrade(state_dir: Path | None, config: Path | None) -> None:
    """Bring the database's schema to this version. `frontinus up` does it by itself."""
    from frontinus.cli import config as command

    raise SystemExit(command.upgrade(config, {} if state_dir is None else {"state_dir": str(state_dir)}))


if __name__ == "__main__":
    main()
