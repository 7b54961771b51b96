"""`frontinus`: the commands and their options. What a command does is in the module named after it, imported when
the command runs; nothing heavy may be imported here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from frontinus import __version__
from frontinus.cli.options import CONFIG, JSON, STATE_DIR
from frontinus.cli.options import overrides as _overrides
from frontinus.cli.rollout_commands import rollout

METRICS_PORT = click.option(
    "--metrics-port", type=click.IntRange(0, 65535), help="Serve /metrics on this port of loopback (default: nowhere)."
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
@click.option("--host", help="Address of the API. Anything but loopback needs authentication.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the API (default 9876; 0: any free one).")
def api(state_dir: Path | None, config: Path | None, host: str | None, port: int | None) -> None:
    """Run the API alone, one of any number, on a database server."""
    _run_part("api", config, state_dir, {"api": {"bind_host": host, "bind_port": port}})


@main.group(invoke_without_command=True)
@STATE_DIR
@CONFIG
@click.option("--driver", help="The amphora driver: one for each controller (default: drivers.amphora).")
@click.option("--provider", help="Serve a third-party provider instead: a driver of octavia-lib, by its name.")
@METRICS_PORT
@click.pass_context
def controller(
    context: click.Context,
    state_dir: Path | None,
    config: Path | None,
    driver: str | None,
    provider: str | None,
    metrics_port: int | None,
) -> None:
    """Run a controller alone, one of any number, on a database server; or see and steer those that run.

    Without a command it runs until a signal, or until its cohort (all controllers with this driver in this version) is
    drained. COMMANDs take --state-dir and --config of their own."""
    if context.invoked_subcommand is not None:
        return
    if provider is not None:
        if driver is not None:
            raise click.UsageError("--driver and --provider exclude each other: a controller has one")
        from frontinus.cli import serve as command

        raise SystemExit(command.run_provider(provider, config, _overrides(state_dir)))
    _run_part("controller", config, state_dir, {"drivers": {"amphora": driver}, "metrics": {"bind_port": metrics_port}})


@controller.command("list")
@STATE_DIR
@CONFIG
@JSON
def controller_list(state_dir: Path | None, config: Path | None, as_json: bool) -> None:
    """Show the cohorts: state, how many load balancers each serves, and how many controllers of it live."""
    from frontinus.cli import controllers as command

    raise SystemExit(command.list_(config, _overrides(state_dir), as_json=as_json))


@controller.command("show")
@STATE_DIR
@CONFIG
@JSON
@click.argument("driver")
@click.argument("version")
def controller_show(state_dir: Path | None, config: Path | None, as_json: bool, driver: str, version: str) -> None:
    """Show a cohort and its controllers."""
    from frontinus.cli import controllers as command

    raise SystemExit(command.show(config, _overrides(state_dir), driver, version, as_json=as_json))


@controller.command("drain")
@STATE_DIR
@CONFIG
@click.option("--move", "moves", is_flag=True, help="Give what it serves to the newest other active cohort, at once.")
@click.argument("driver")
@click.argument("version")
def controller_drain(state_dir: Path | None, config: Path | None, moves: bool, driver: str, version: str) -> None:
    """Have a cohort take no new load balancer. Its controllers end by themselves when their last one is gone.

    With --move, whatever the newest other active cohort of the driver can carry is moved to it, which pushes what it renders
    otherwise; what it cannot carry stays, and is told."""
    from frontinus.cli import controllers as command

    raise SystemExit(command.drain(config, _overrides(state_dir), driver, version, moves=moves))


@controller.command("resume")
@STATE_DIR
@CONFIG
@click.argument("driver")
@click.argument("version")
def controller_resume(state_dir: Path | None, config: Path | None, driver: str, version: str) -> None:
    """Have a draining cohort take new load balancers again."""
    from frontinus.cli import controllers as command

    raise SystemExit(command.resume(config, _overrides(state_dir), driver, version))


@main.command()
@STATE_DIR
@CONFIG
@JSON
@click.argument("load_balancer")
def receipt(state_dir: Path | None, config: Path | None, as_json: bool, load_balancer: str) -> None:
    """Show what is live on the amphorae of a load balancer, since when, and whether it is what is wanted.

    LOAD_BALANCER is an id. Exit status 3 when something else is live than what is wanted."""
    from frontinus.cli import receipts as command

    raise SystemExit(command.show(config, _overrides(state_dir), load_balancer, as_json=as_json))


@main.command()
@STATE_DIR
@CONFIG
@click.option("--host", help="Address that heartbeats are received on.")
@click.option("--port", type=click.IntRange(0, 65535), help="UDP port for heartbeats (default 5555).")
@METRICS_PORT
def health(
    state_dir: Path | None, config: Path | None, host: str | None, port: int | None, metrics_port: int | None
) -> None:
    """Run a health receiver alone, one of any number, on a database server."""
    written: dict[str, dict[str, object]] = {
        "health": {"bind_host": host, "bind_port": port},
        "metrics": {"bind_port": metrics_port},
    }
    _run_part("health", config, state_dir, written)


def _run_part(
    part: str, config: Path | None, state_dir: Path | None, written: Mapping[str, Mapping[str, object]]
) -> None:
    from frontinus.cli import serve as command

    overrides = _overrides(state_dir)
    for table, values in written.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            overrides[table] = given
    raise SystemExit(command.run(part, config, overrides))


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


@main.command()
@STATE_DIR
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON, for machines.")
def doctor(state_dir: Path | None, config: Path | None, as_json: bool) -> None:
    """Look at everything that an installation needs, and say of each what to do.

    Exit status 1 when something is in trouble. Changes nothing."""
    from frontinus.cli import doctor as command

    raise SystemExit(command.run(config, _overrides(state_dir), as_json=as_json))


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
def driver() -> None:
    """Drivers: which are installed, and whether one keeps the promises of its interface."""


@driver.command("list")
@STATE_DIR
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def driver_list(state_dir: Path | None, config: Path | None, as_json: bool) -> None:
    """Show every installed driver, whose it is, and whether the settings let it load."""
    from frontinus.cli import driver as command

    raise SystemExit(command.list_(config, _overrides(state_dir), as_json=as_json))


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
    raise SystemExit(command.run(config, _overrides(state_dir), work))


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
    raise SystemExit(command.run(config, _overrides(state_dir), work))


@secret.command("list")
@STATE_DIR
@CONFIG
@click.option("--project", help="Only this project's.")
def secret_list(state_dir: Path | None, config: Path | None, project: str | None) -> None:
    """Show what is kept: reference, name, what it holds, until when it is good."""
    from frontinus.cli import secret as command

    work = command.list_(project)
    raise SystemExit(command.run(config, _overrides(state_dir), work))


@secret.command("show")
@STATE_DIR
@CONFIG
@PROJECT
@click.argument("reference")
def secret_show(state_dir: Path | None, config: Path | None, project: str, reference: str) -> None:
    """Show all that may be told of one secret, and who uses it."""
    from frontinus.cli import secret as command

    raise SystemExit(command.run(config, _overrides(state_dir), command.show(reference, project)))


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
    raise SystemExit(command.run(config, _overrides(state_dir), work))


@main.group()
def network() -> None:
    """Networks of this machine for load balancers and their members (network driver `bridge`)."""


@network.command("create")
@STATE_DIR
@CONFIG
@click.option("--bridge", help="A bridge of this machine that is there already. Default: a new one.")
@click.option("--mtu", type=int, default=1500, show_default=True)
@click.argument("name")
def network_create(state_dir: Path | None, config: Path | None, bridge: str | None, mtu: int, name: str) -> None:
    """Make a network, and print its id."""
    from frontinus.cli import network as command

    raise SystemExit(command.run(config, _overrides(state_dir), command.create(name, bridge, mtu)))


@network.command("list")
@STATE_DIR
@CONFIG
@JSON
def network_list(state_dir: Path | None, config: Path | None, as_json: bool) -> None:
    """Show the networks: id, name, bridge, subnets."""
    from frontinus.cli import network as command

    raise SystemExit(command.run(config, _overrides(state_dir), command.list_(as_json=as_json)))


@network.command("show")
@STATE_DIR
@CONFIG
@JSON
@click.argument("network")
def network_show(state_dir: Path | None, config: Path | None, as_json: bool, network: str) -> None:
    """Show a network and its subnets, and how much of them is used."""
    from frontinus.cli import network as command

    raise SystemExit(command.run(config, _overrides(state_dir), command.show(network, as_json=as_json)))


@network.command("delete")
@STATE_DIR
@CONFIG
@click.argument("network")
def network_delete(state_dir: Path | None, config: Path | None, network: str) -> None:
    """Delete a network with its subnets, when no load balancer uses it."""
    from frontinus.cli import network as command

    raise SystemExit(command.run(config, _overrides(state_dir), command.delete(network)))


@network.group("subnet")
def network_subnet() -> None:
    """Subnets of a network."""


@network_subnet.command("create")
@STATE_DIR
@CONFIG
@click.option("--name", default="", help="What people call it. Default: its network in CIDR notation.")
@click.option("--gateway", help="Where amphorae send what is for other networks.")
@click.option("--pool", metavar="FIRST-LAST", help="Addresses to give. Default: all of the subnet.")
@click.option("--host-address", help="An address of this machine there, so that it reaches VIPs; may be the gateway's.")
@click.option("--route", "routes", multiple=True, metavar="CIDR=HOP", help="A further route of amphorae; repeatable.")
@click.argument("network")
@click.argument("cidr")
def network_subnet_create(
    state_dir: Path | None,
    config: Path | None,
    name: str,
    gateway: str | None,
    pool: str | None,
    host_address: str | None,
    routes: tuple[str, ...],
    network: str,
    cidr: str,
) -> None:
    """Make a subnet on a network, and print its id."""
    from frontinus.cli import network as command
    from frontinus.drivers.network.bridge.administration import SubnetWish

    wish = SubnetWish(cidr=cidr, name=name, gateway=gateway, pool=pool, host_address=host_address, routes=routes)
    raise SystemExit(command.run(config, _overrides(state_dir), command.create_subnet(network, wish)))


@network_subnet.command("delete")
@STATE_DIR
@CONFIG
@click.argument("subnet")
def network_subnet_delete(state_dir: Path | None, config: Path | None, subnet: str) -> None:
    """Delete a subnet, when no load balancer uses it."""
    from frontinus.cli import network as command

    raise SystemExit(command.run(config, _overrides(state_dir), command.delete_subnet(subnet)))


@main.command()
@STATE_DIR
@CONFIG
def status(state_dir: Path | None, config: Path | None) -> None:
    """Show receivers, whether the brake is on, suspects, and what is being replaced."""
    from frontinus.cli import maintenance as command

    raise SystemExit(command.show_status(config, _overrides(state_dir)))


@main.group()
def maintenance() -> None:
    """Marks under which no amphora is replaced, whatever falls silent. Changes of load balancers go on."""


TARGETS = (
    click.option("--amphora", "amphora", help="Of one amphora, by its id."),
    click.option("--load-balancer", "load_balancer", help="Of the amphorae of one load balancer, by its id."),
    click.option("--host", help="Of every amphora on a machine, by the name that compute gives it."),
    click.option("--installation", is_flag=True, help="Of everything."),
)


def _target_options(command: Any) -> Any:
    for option in reversed(TARGETS):
        command = option(command)
    return command


def _scope(**targets: str | bool | None) -> tuple[Any, str]:
    from frontinus.model.maintenance import MarkScope

    named = [(scope, target) for scope, target in targets.items() if target]
    if len(named) != 1:
        raise click.UsageError("name one of --amphora, --load-balancer, --host and --installation")
    ((scope, target),) = named
    return MarkScope(scope), "" if target is True else str(target)


@maintenance.command("on")
@STATE_DIR
@CONFIG
@_target_options
@click.option("--reason", required=True, help="Why, for whoever wonders later.")
@click.option("--for", "lasting", metavar="DURATION", help="As 30m, 2h or 1d. Until it is taken off otherwise.")
def maintenance_on(
    state_dir: Path | None, config: Path | None, reason: str, lasting: str | None, **targets: str | bool | None
) -> None:
    """Set a mark."""
    from frontinus.cli import maintenance as command

    scope, target = _scope(**targets)
    raise SystemExit(command.on(config, _overrides(state_dir), scope, target, reason, lasting))


@maintenance.command("off")
@STATE_DIR
@CONFIG
@_target_options
def maintenance_off(state_dir: Path | None, config: Path | None, **targets: str | bool | None) -> None:
    """Take a mark off. What died under it is replaced then."""
    from frontinus.cli import maintenance as command

    scope, target = _scope(**targets)
    raise SystemExit(command.off(config, _overrides(state_dir), scope, target))


@maintenance.command("list")
@STATE_DIR
@CONFIG
def maintenance_list(state_dir: Path | None, config: Path | None) -> None:
    """Show the marks that hold."""
    from frontinus.cli import maintenance as command

    raise SystemExit(command.list_(config, _overrides(state_dir)))


@main.group()
def ca() -> None:
    """The authority that vouches for controllers and amphorae."""


@ca.command("show")
@STATE_DIR
@CONFIG
def ca_show(state_dir: Path | None, config: Path | None) -> None:
    """Show who is trusted, who issues, and how many amphorae know it."""
    from frontinus.cli import ca as command

    raise SystemExit(command.run(config, _overrides(state_dir), command.show))


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

    raise SystemExit(command.run(config, _overrides(state_dir), command.rotate(timeout, one_step=step)))


main.add_command(rollout)


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
def adopt_octavia(
    state_dir: Path | None, config: Path | None, db: str | None, octavia_config: Path, dry_run: bool
) -> None:
    """Take over the load balancers and amphorae of an Octavia 19.0.

    Traffic goes on untouched until something is changed. Can be interrupted, and run again to go on."""
    from frontinus.cli import adopt as command

    raise SystemExit(
        command.run(config, _overrides(state_dir), db=db, octavia_config=octavia_config, carry_out=not dry_run)
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

    raise SystemExit(command.upgrade(config, _overrides(state_dir), check=check))


if __name__ == "__main__":
    main()
