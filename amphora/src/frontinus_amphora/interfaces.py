"""The interfaces of an amphora that owns them: told by the controller, kept on disk, brought about in the kernel.

One file holds what was told, by MAC. Bringing an interface there changes only what differs, so that it can be repeated
at any time and disturbs nothing. What an interface shall have: plugs.py; how the kernel is asked: iproute.py.
"""

import json
import re
import threading

from frontinus_amphora import files, iproute, kernel, plugs
from frontinus_amphora.announce import announce
from frontinus_amphora.errors import AgentError, Missing
from frontinus_amphora.iproute import PROTOCOL, Link
from frontinus_amphora.log import log
from frontinus_amphora.plugs import RULE_PRIORITY, VIP_TABLE, Plug

_OURS = re.compile(r"eth[0-9]+")
_EVERYWHERE = {
    # haproxy listens on a VIP also while the other amphora of a pair holds it.
    "net/ipv4/ip_nonlocal_bind": "1",
    "net/ipv6/ip_nonlocal_bind": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    # Who closes a connection first keeps its port for a minute, which with TCP listeners is often us, towards a member: its
    # 28,000 ports would be used up by 470 connections a second, and it be down for a check that finds none. A port is given
    # again after a second, where timestamps tell old packets from new (RFC 6191).
    "net/ipv4/tcp_tw_reuse": "1",
}
_PER_INTERFACE = {
    # Loose: answers from members on one network may come by another.
    "net/ipv4/conf/{name}/rp_filter": "2",
    # Whose an address is, only its interface says.
    "net/ipv4/conf/{name}/arp_ignore": "1",
    "net/ipv4/conf/{name}/arp_announce": "2",
    # Addresses are the controller's: none is taken from a router, and none waits for a collision to be excluded.
    "net/ipv6/conf/{name}/accept_ra": "0",
    "net/ipv6/conf/{name}/autoconf": "0",
    "net/ipv6/conf/{name}/accept_dad": "0",
}


class Interfaces:
    """Any thread may call; one change at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._plugs = self._load()  # guarded by the lock

    def plug_vip(self, plug: Plug) -> str:
        """Configure the interface of the VIPs; its name. Further addresses that it was given stay. Raises AgentError."""
        with self._lock:
            before = self._plugs.get(plug.mac)
            return self._plug(plug if before is None else plug._replace(fixed=before.fixed))

    def plug_network(self, plug: Plug) -> str:
        """Configure a further interface, or further addresses of the VIPs'; its name. Raises AgentError."""
        with self._lock:
            before = self._plugs.get(plug.mac)
            return self._plug(plug if before is None or plug.is_vip else before._replace(fixed=plug.fixed))

    def restore(self) -> None:
        """After a start of the agent: whatever was told and is not so any more is made so again."""
        with self._lock:
            present = {link.mac for link in iproute.links()}
            for plug in list(self._plugs.values()):
                if plug.mac not in present:
                    continue  # detached while nobody looked; forgotten with the next change
                try:
                    self._configure(plug)
                except AgentError as error:
                    log("interface not restored", mac=plug.mac, error=str(error))

    def _plug(self, plug: Plug) -> str:
        name = self._configure(plug)
        present = {link.mac for link in iproute.links()}
        self._plugs = {mac: x for mac, x in self._plugs.items() if mac in present} | {plug.mac: plug}
        content = json.dumps([plugs.to_json(x) for x in self._plugs.values()])
        files.write_atomically(self._path, content.encode(), durable=True)
        return name

    def _load(self) -> dict[str, Plug]:
        content = files.read(self._path)
        if content is None:
            return {}
        try:
            return {plug.mac: plug for plug in map(plugs.from_json, json.loads(content))}
        except (KeyError, TypeError, ValueError) as error:
            # The controller tells again what it is about; until then what the kernel has goes on.
            log("interfaces are not known any more", path=self._path, error=repr(error))
            return {}

    def _configure(self, plug: Plug) -> str:
        link = self._named(_find(plug.mac), plug)
        kernel.prefer(_EVERYWHERE)
        kernel.prefer({key.format(name=link.name): value for key, value in _PER_INTERFACE.items()})
        held, wanted = iproute.addresses(link.name), plugs.wanted_addresses(plug)
        commands: list[list[str]] = []
        if plug.mtu is not None and link.mtu != plug.mtu:
            commands.append(["link", "set", "dev", link.name, "mtu", str(plug.mtu)])
        if not link.is_up:
            commands.append(["link", "set", "dev", link.name, "up"])
        iproute.change(commands)
        stale = held - wanted - plugs.vip_addresses(plug)
        for family in (4, 6):
            new = wanted - held
            iproute.change(_address_changes(link.name, new, stale, plugs.vip_addresses(plug), family), family)
            # Routes second: a gateway must be within reach when it is named.
            iproute.change([*_route_changes(link.name, plug, family), *_rule_changes(plug, family)], family)
        new_vips = sorted((wanted - held) & plugs.vip_addresses(plug))
        if new_vips:
            announce(link.name, link.mac, [x.partition("/")[0] for x in new_vips])
        return link.name

    def _named(self, link: Link, plug: Plug) -> Link:
        """The link under a name of ours: eth1 is the VIPs', eth2 and on are for members; as Octavia has it."""
        if _OURS.fullmatch(link.name):
            return link
        taken = {x.name for x in iproute.links()}
        numbers = (n for n in range(1 if plug.is_vip else 2, 1000) if f"eth{n}" not in taken)
        name = f"eth{next(numbers)}"
        iproute.change([["link", "set", "dev", link.name, "down"], ["link", "set", "dev", link.name, "name", name]])
        return link._replace(name=name, is_up=False)


def _find(mac: str) -> Link:
    """Raises Missing in the words by which the controller knows that it may come yet."""
    for link in iproute.links():
        if link.mac == mac:
            return link
    raise Missing("No suitable network interface found", "No suitable network interface found")


def _address_changes(name: str, new: set[str], stale: set[str], vips: set[str], family: int) -> list[list[str]]:
    def flags(address: str) -> list[str]:
        # Of IPv6 addresses the one that is most like the other side's is sent from, which a VIP would be by its length; one
        # that is not preferred is sent from when there is no other.
        return ["nodad", *(["preferred_lft", "0"] if address in vips else [])] if family == 6 else []

    added, deleted = ([x for x in sorted(each) if (":" in x) == (family == 6)] for each in (new, stale))
    return [
        *(["address", "replace", x, "dev", name, *flags(x)] for x in added),
        *(["address", "delete", x, "dev", name] for x in deleted),
    ]


def _route_changes(name: str, plug: Plug, family: int) -> list[list[str]]:
    commands: list[list[str]] = []
    wanted = [route for route in plugs.wanted_routes(plug) if route.family == family]
    # What names no gateway first.
    for route in sorted(wanted, key=lambda x: x.via is not None):
        way = [] if route.via is None else ["via", route.via]
        flags = [] if route.via is None else ["onlink"]
        place = ["dev", name, "table", route.table, "protocol", str(PROTOCOL)]
        commands.append(["route", "replace", route.destination, *way, *place, *flags])
    kept = {(route.table, _as_listed(route.destination)) for route in wanted}
    for table, destination in sorted(iproute.our_routes(family, name) - kept):
        commands.append(["route", "delete", destination, "dev", name, "table", table])
    return commands


def _rule_changes(plug: Plug, family: int) -> list[list[str]]:
    """Only the VIPs' interface has rules: there is one of it."""
    if not plug.is_vip:
        return []
    held = {source for source, table in iproute.our_rules(family) if table == VIP_TABLE}
    wanted = {source for each, source in plugs.rule_sources(plug) if each == family}
    commands: list[list[str]] = []
    for source in sorted(wanted - held):
        words = ["from", source, "table", VIP_TABLE, "priority", RULE_PRIORITY, "protocol", str(PROTOCOL)]
        commands.append(["rule", "add", *words])
    end = ["table", VIP_TABLE, "priority", RULE_PRIORITY]
    return commands + [["rule", "delete", "from", source, *end] for source in sorted(held - wanted)]


def _as_listed(destination: str) -> str:
    """As `ip` lists it: a network of one address without its length."""
    address, _, length = destination.partition("/")
    return address if length == ("128" if ":" in address else "32") else destination
