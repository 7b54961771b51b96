"""`frontinus api`, `controller` and `health`: parts of an installation that run apart, and the cohorts that controllers form.

The commands and their options; what they do is in serve.py, controllers.py and receipts.py, imported when one runs."""

from __future__ import annotations

from pathlib import Path

import click

from frontinus.cli.options import CONFIG, JSON, STATE_DIR, overrides

METRICS_PORT = click.option(
    "--metrics-port", type=click.IntRange(0, 65535), help="Serve /metrics on this port of loopback (default: nowhere)."
)


@click.command()
@STATE_DIR
@CONFIG
@click.option("--host", help="Address of the API. Anything but loopback needs authentication.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the API (default 9876; 0: any free one).")
def api(state_dir: Path | None, config: Path | None, host: str | None, port: int | None) -> None:
    """Run the API alone, one of any number, on a database server."""
    _run_part("api", config, overrides(state_dir, api={"bind_host": host, "bind_port": port}))


@click.group(invoke_without_command=True)
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

        raise SystemExit(command.run_provider(provider, config, overrides(state_dir)))
    written = overrides(state_dir, drivers={"amphora": driver}, metrics={"bind_port": metrics_port})
    _run_part("controller", config, written)


@controller.command("list")
@STATE_DIR
@CONFIG
@JSON
def controller_list(state_dir: Path | None, config: Path | None, as_json: bool) -> None:
    """Show the cohorts: state, how many load balancers each serves, and how many controllers of it live."""
    from frontinus.cli import controllers as command

    raise SystemExit(command.list_(config, overrides(state_dir), as_json=as_json))


@controller.command("show")
@STATE_DIR
@CONFIG
@JSON
@click.argument("driver")
@click.argument("version")
def controller_show(state_dir: Path | None, config: Path | None, as_json: bool, driver: str, version: str) -> None:
    """Show a cohort and its controllers."""
    from frontinus.cli import controllers as command

    raise SystemExit(command.show(config, overrides(state_dir), driver, version, as_json=as_json))


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

    raise SystemExit(command.drain(config, overrides(state_dir), driver, version, moves=moves))


@controller.command("resume")
@STATE_DIR
@CONFIG
@click.argument("driver")
@click.argument("version")
def controller_resume(state_dir: Path | None, config: Path | None, driver: str, version: str) -> None:
    """Have a draining cohort take new load balancers again."""
    from frontinus.cli import controllers as command

    raise SystemExit(command.resume(config, overrides(state_dir), driver, version))


@click.command()
@STATE_DIR
@CONFIG
@JSON
@click.argument("load_balancer")
def receipt(state_dir: Path | None, config: Path | None, as_json: bool, load_balancer: str) -> None:
    """Show what is live on the amphorae of a load balancer, since when, and whether it is what is wanted.

    LOAD_BALANCER is an id. Exit status 3 when something else is live than what is wanted."""
    from frontinus.cli import receipts as command

    raise SystemExit(command.show(config, overrides(state_dir), load_balancer, as_json=as_json))


@click.command()
@STATE_DIR
@CONFIG
@click.option("--host", help="Address that heartbeats are received on.")
@click.option("--port", type=click.IntRange(0, 65535), help="UDP port for heartbeats (default 5555).")
@METRICS_PORT
def health(
    state_dir: Path | None, config: Path | None, host: str | None, port: int | None, metrics_port: int | None
) -> None:
    """Run a health receiver alone, one of any number, on a database server."""
    written = overrides(state_dir, health={"bind_host": host, "bind_port": port}, metrics={"bind_port": metrics_port})
    _run_part("health", config, written)


def _run_part(part: str, config: Path | None, written: dict[str, object]) -> None:
    from frontinus.cli import serve as command

    raise SystemExit(command.run(part, config, written))
