"""`frontinus network …`: the commands and their options; what they do is in network.py, imported when one runs."""

from __future__ import annotations

from pathlib import Path

import click

from frontinus.cli.options import CONFIG, JSON, STATE_DIR, overrides


@click.group()
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

    raise SystemExit(command.run(config, overrides(state_dir), command.create(name, bridge, mtu)))


@network.command("list")
@STATE_DIR
@CONFIG
@JSON
def network_list(state_dir: Path | None, config: Path | None, as_json: bool) -> None:
    """Show the networks: id, name, bridge, subnets."""
    from frontinus.cli import network as command

    raise SystemExit(command.run(config, overrides(state_dir), command.list_(as_json=as_json)))


@network.command("show")
@STATE_DIR
@CONFIG
@JSON
@click.argument("network")
def network_show(state_dir: Path | None, config: Path | None, as_json: bool, network: str) -> None:
    """Show a network and its subnets, and how much of them is used."""
    from frontinus.cli import network as command

    raise SystemExit(command.run(config, overrides(state_dir), command.show(network, as_json=as_json)))


@network.command("delete")
@STATE_DIR
@CONFIG
@click.argument("network")
def network_delete(state_dir: Path | None, config: Path | None, network: str) -> None:
    """Delete a network with its subnets, when no load balancer uses it."""
    from frontinus.cli import network as command

    raise SystemExit(command.run(config, overrides(state_dir), command.delete(network)))


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
    raise SystemExit(command.run(config, overrides(state_dir), command.create_subnet(network, wish)))


@network_subnet.command("delete")
@STATE_DIR
@CONFIG
@click.argument("subnet")
def network_subnet_delete(state_dir: Path | None, config: Path | None, subnet: str) -> None:
    """Delete a subnet, when no load balancer uses it."""
    from frontinus.cli import network as command

    raise SystemExit(command.run(config, overrides(state_dir), command.delete_subnet(subnet)))
