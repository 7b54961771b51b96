"""`frontinus network …`: the networks and subnets of the driver `bridge`, on this machine.

Works beside a running `frontinus up`, which sees what changed at its next request. Needs root, as bridges do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frontinus.cli.output import complain, in_words, say, settings_or_exit
from frontinus.drivers.network.bridge.administration import Administration, SubnetWish, find_network
from frontinus.drivers.network.bridge.driver import BridgeNetwork, BridgeSettings
from frontinus.drivers.network.bridge.records import NetworkRecord, State, SubnetRecord
from frontinus.main import check as check_settings
from frontinus.model.errors import FrontinusError, Invalid

Work = Callable[[Administration], int]


def run(file: Path | None, overrides: dict[str, object], work: Work) -> int:
    """Exit status of the work: 0; 1 when something is in the way, 2 for what can never be."""
    settings = settings_or_exit(file, overrides)
    try:
        found = check_settings(settings).get(BridgeNetwork.name)
        if not isinstance(found, BridgeSettings):
            complain(f"networks are made elsewhere: drivers.network is {settings.drivers.network!r}, not 'bridge'")
            return 2
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return work(Administration(BridgeNetwork(found).records))
    except Invalid as error:
        complain(str(error))
        return 2
    except (FrontinusError, OSError) as error:
        complain(in_words(error))
        return 1


def create(name: str, bridge: str | None, mtu: int) -> Work:
    def work(administration: Administration) -> int:
        say(administration.create_network(name, bridge=bridge, mtu=mtu).id)
        return 0

    return work


def list_(*, as_json: bool) -> Work:
    def work(administration: Administration) -> int:
        networks, state = administration.networks()
        if as_json:
            say(json.dumps([_network(x, state) for x in networks]))
            return 0
        for network in networks:
            cidrs = ", ".join(x.cidr for x in state.subnets_of(network.id))
            say("  ".join((network.id, network.name, network.bridge, cidrs or "no subnet")))
        return 0

    return work


def show(name_or_id: str, *, as_json: bool) -> Work:
    def work(administration: Administration) -> int:
        _, state = administration.networks()
        shown = _network(find_network(state, name_or_id), state)
        if as_json:
            say(json.dumps(shown))
            return 0
        subnets = shown.pop("subnets")
        for key, value in shown.items():
            say(f"{key:<14} {value}")
        for subnet in subnets:
            say("subnet")
            for key, value in subnet.items():
                if value not in (None, [], ""):
                    say(f"  {key:<14} {', '.join(value) if isinstance(value, list) else value}")
        return 0

    return work


def delete(name_or_id: str) -> Work:
    def work(administration: Administration) -> int:
        say(f"Network {administration.delete_network(name_or_id).name} is deleted.")
        return 0

    return work


def create_subnet(network: str, wish: SubnetWish) -> Work:
    def work(administration: Administration) -> int:
        say(administration.create_subnet(network, wish).id)
        return 0

    return work


def delete_subnet(name_or_id: str) -> Work:
    def work(administration: Administration) -> int:
        say(f"Subnet {administration.delete_subnet(name_or_id).name} is deleted.")
        return 0

    return work


def _network(network: NetworkRecord, state: State) -> dict[str, Any]:
    return {
        "id": network.id,
        "name": network.name,
        "bridge": network.bridge,
        "mtu": network.mtu,
        "ports": sum(x.port.network_id == network.id for x in state.ports.values()),
        "for_management": network.for_management,
        "subnets": [_subnet(x, state) for x in state.subnets_of(network.id)],
    }


def _subnet(subnet: SubnetRecord, state: State) -> dict[str, Any]:
    return {
        "id": subnet.id,
        "name": subnet.name,
        "cidr": subnet.cidr,
        "pool": f"{subnet.first}-{subnet.last}",
        "gateway": subnet.gateway,
        "host_address": subnet.host_address,
        "routes": [f"{x.destination}={x.next_hop}" for x in subnet.routes],
        "used": len(state.taken(subnet)),
    }
