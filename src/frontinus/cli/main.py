"""`frontinus`: the commands and their options; those of larger groups are in NAME_commands.py. What a command does is in
the module named after it, imported when the command runs; nothing heavy may be imported here."""

from __future__ import annotations

from pathlib import Path

import click

from frontinus import __version__
from frontinus.cli.maintenance_commands import maintenance, status
from frontinus.cli.network_commands import network
from frontinus.cli.openstack_commands import openstack
from frontinus.cli.options import CONFIG, JSON, STATE_DIR, overrides
from frontinus.cli.part_commands import api, controller, health, receipt
from frontinus.cli.rollout_commands import rollout
from frontinus.cli.secret_commands import secret
from frontinus.cli.sweep_commands import sweep


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

    written = overrides(state_dir, api={"bind_host": host, "bind_port": port}, health={"bind_port": health_port})
    raise SystemExit(command.run(config, written))


@main.command()
@STATE_DIR
@CONFIG
@click.option("--purge", is_flag=True, help="Remove the state directory too: every load balancer is forgotten.")
def down(state_dir: Path | None, config: Path | None, purge: bool) -> None:
    """Stop everything that a state directory owns: the control plane, and the amphorae with their traffic.

    The load balancers are kept in the database: the next `frontinus up` brings them back."""
    from frontinus.cli import down as command

    raise SystemExit(command.run(config, overrides(state_dir), purge=purge))


@main.command()
@click.option("--once", is_flag=True, help="End after the show and leave nothing behind.")
@click.option("--backends", type=click.IntRange(2, 9), default=3, show_default=True, help="How many web servers.")
@click.option("--requests", "count", type=click.IntRange(1, 100_000), default=600, show_default=True)
def demo(once: bool, backends: int, count: int) -> None:
    """Start everything, create a load balancer with openstacksdk, and show it spreading requests."""
    from frontinus.cli import demo as command

    raise SystemExit(command.run(once=once, backends=backends, count=count))


@main.command()
@STATE_DIR
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON, for machines.")
def doctor(state_dir: Path | None, config: Path | None, as_json: bool) -> None:
    """Look at everything that an installation needs, and say of each what to do.

    Exit status 1 when something is in trouble. Changes nothing."""
    from frontinus.cli import doctor as command

    raise SystemExit(command.run(config, overrides(state_dir), as_json=as_json))


@main.group()
def config() -> None:
    """Settings."""


@config.command("check")
@STATE_DIR
@CONFIG
def config_check(state_dir: Path | None, config: Path | None) -> None:
    """Read the settings, and print those that are in force."""
    from frontinus.cli import config as command

    raise SystemExit(command.check(config, overrides(state_dir)))


@main.group()
def driver() -> None:
    """Drivers: which are installed, and whether one keeps the promises of its interface."""


@driver.command("list")
@STATE_DIR
@CONFIG
@JSON
def driver_list(state_dir: Path | None, config: Path | None, as_json: bool) -> None:
    """Show every installed driver, whose it is, and whether the settings let it load."""
    from frontinus.cli import driver as command

    raise SystemExit(command.list_(config, overrides(state_dir), as_json=as_json))


@driver.command("check")
@CONFIG
@click.option("--on-paper", is_flag=True, help="Start no amphora: only what can be examined without one.")
@click.option("--bench", metavar="MODULE:FUNCTION", help="A bench of your own, made from the driver's factory.")
@click.option("--only", multiple=True, metavar="REQUIREMENT", help="Only this one; repeatable.")
@click.option("--strict", is_flag=True, help="Exit status 1 too when something could not be examined.")
@click.option("--limit", type=float, default=60.0, show_default=True, help="Seconds that one requirement may take.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@click.argument("driver")
def driver_check(
    config: Path | None,
    on_paper: bool,
    bench: str | None,
    only: tuple[str, ...],
    strict: bool,
    limit: float,
    as_json: bool,
    driver: str,
) -> None:
    """Examine a driver against its interface, and report every requirement.

    DRIVER is the name of an installed one, or module:Class. An amphora driver is examined on amphorae that are started on
    this machine, in a state directory of the exam's own, by drivers.compute of the settings. Exit status 1 when a
    requirement failed."""
    from frontinus.cli import driver as command

    status = command.check(
        driver, config, bench=bench, only=only, on_paper=on_paper, strict=strict, as_json=as_json, limit=limit
    )
    raise SystemExit(status)


@main.group()
def ca() -> None:
    """The authority that vouches for controllers and amphorae."""


@ca.command("show")
@STATE_DIR
@CONFIG
def ca_show(state_dir: Path | None, config: Path | None) -> None:
    """Show who is trusted, who issues, and how many amphorae know it."""
    from frontinus.cli import ca as command

    raise SystemExit(command.run(config, overrides(state_dir), command.show))


@ca.command("rotate")
@STATE_DIR
@CONFIG
@click.option(
    "--timeout", type=float, default=600.0, show_default=True, help="Seconds that the amphorae have, per step."
)
@click.option("--step", is_flag=True, help="Do one step and end: for hosts with copies of the authority's directory.")
def ca_rotate(state_dir: Path | None, config: Path | None, timeout: float, step: bool) -> None:
    """Replace the authority by a new one, in three steps, without anybody being refused.

    Controllers carry each step to the amphorae; the next one is taken when all have it. Can be interrupted, and run
    again to go on."""
    from frontinus.cli import ca as command

    raise SystemExit(command.run(config, overrides(state_dir), command.rotate(timeout, one_step=step)))


for apart in (api, controller, health, maintenance, network, openstack, receipt, rollout, secret, status, sweep):
    main.add_command(apart)


@main.group()
def adopt() -> None:
    """Take over what another program has built."""


@adopt.command("octavia")
@STATE_DIR
@CONFIG
@click.option("--db", help="URL of Octavia's database. Default: [database] connection of its configuration.")
@click.option(
    "--octavia-config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/octavia/octavia.conf"),
    show_default=True,
    help="Octavia's configuration, of a health manager or worker: keys and certificates are read where it says.",
)
@click.option("--dry-run/--yes", default=True, help="Only tell (the default), or do it.")
@JSON
def adopt_octavia(
    state_dir: Path | None, config: Path | None, db: str | None, octavia_config: Path, dry_run: bool, as_json: bool
) -> None:
    """Take over the load balancers and amphorae of an Octavia 19.0.

    Traffic goes on untouched until something is changed. Can be interrupted, and run again to go on."""
    from frontinus.cli import adopt as command

    raise SystemExit(
        command.run(
            config,
            overrides(state_dir),
            db=db,
            octavia_config=octavia_config,
            carry_out=not dry_run,
            as_json=as_json,
        )
    )


@main.group()
def db() -> None:
    """The database."""


@db.command("upgrade")
@STATE_DIR
@CONFIG
@click.option("--check", is_flag=True, help="Change nothing: exit status 1, and which steps, if some are missing.")
def db_upgrade(state_dir: Path | None, config: Path | None, check: bool) -> None:
    """Bring the database's schema to this version, while processes of the previous one go on to serve.

    `frontinus up` does it by itself."""
    from frontinus.cli import config as command

    raise SystemExit(command.upgrade(config, overrides(state_dir), check=check))


if __name__ == "__main__":
    main()
