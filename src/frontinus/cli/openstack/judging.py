"""What the answers of OpenStack's services mean for Frontinus: values in, findings out. Pure.

Each function judges one thing and says what to do about it, as a command where there is one. None asks a service, or reads
settings or a clock: check.py passes what is wanted and what was seen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from frontinus.cli.openstack.seen import (
    INTERFACES,
    LOAD_BALANCER,
    UNLIMITED,
    Account,
    Answer,
    CatalogueEntry,
    Flavor,
    Host,
    Image,
    Network,
    Quota,
    SecurityGroup,
    Zone,
)
from frontinus.drivers.network.neutron.facts import SubnetFacts
from frontinus.model.findings import Finding, fine, trouble, warning

ROLES = (
    "load-balancer_observer",
    "load-balancer_global_observer",
    "load-balancer_member",
    "load-balancer_quota_admin",
    "load-balancer_admin",
)
"""By which Octavia's policy goes, and so ours (contract/rbac.yaml)."""

VALIDATES = frozenset({"admin", "service"})
"""Either lets an account validate others' tokens (Keystone's policy identity:validate_token)."""

CLOCK_OFF = timedelta(seconds=5)
"""Tokens and certificates have times; Keystone tells whole seconds, and its answer takes a moment."""

FEW = 10
"""So little room in a quota is told before there is none."""

MEMBERS_OF_GROUP = 2
"""A pair; of which one goes before its replacement comes."""


def clock(told: datetime | None, asked: datetime, answered: datetime) -> Finding:
    """`told`: what the service's clock said between `asked` and `answered`."""
    if told is None:
        return warning("keystone", "its answers have no Date, so clocks cannot be compared", "let NTP set both clocks")
    off = max(told - answered, asked - told - timedelta(seconds=1), timedelta(0))
    if off > CLOCK_OFF:
        ahead = "behind" if told > answered else "ahead of"
        return trouble(
            "keystone",
            f"this machine's clock is {off.total_seconds():.0f} s {ahead} Keystone's",
            "let NTP set both clocks: tokens and certificates have times",
        )
    return fine("keystone", "its clock and this machine's agree")


def account(who: Account, region: str) -> Finding:
    roles = ", ".join(sorted(who.roles)) or "none"
    return fine("keystone", f"logged in as {who.user}, project {who.project}, region {region}; roles: {roles}")


def validator(roles: Collection[str]) -> Finding:
    """Of the account that the API validates tokens as, when it could be tried with no token but its own, which every account
    may validate."""
    if VALIDATES & set(roles):
        return fine("keystone", "the API's account has a role by which it validates tokens")
    return trouble(
        "keystone",
        "the API's account has neither the role service nor admin, so Keystone will not validate tenants' tokens for it",
        "openstack role add --project PROJECT --user USER service",
    )


def rights(roles: Collection[str]) -> Finding:
    """Of the account that the drivers work as."""
    if "admin" in roles:
        return fine("neutron", "our account is an administrator: it may make ports with addresses, for tenants too")
    return warning(
        "neutron",
        "our account has not the role admin: whether it may make ports with addresses of their own, address pairs, and in "
        "tenants' projects, depends on Neutron's policy",
        "find out with --try; or openstack role add --project PROJECT --user USER admin",
    )


def catalogue_lacks(who: Account, needed: Collection[str], region: str) -> list[str]:
    """The types of service that the catalogue does not have there."""
    there = {x.type for x in who.catalogue if region in ("", x.region)}
    return [x for x in needed if x not in there and x not in {_OTHER_TYPES.get(y) for y in there}]


_OTHER_TYPES = {"volumev3": "block-storage"}


def roles_of_tenants(known: Collection[str]) -> Finding:
    missing = [x for x in ROLES if x not in known]
    if missing:
        return warning(
            "keystone",
            f"has no role {', '.join(missing)}; with member and reader it goes without them",
            "`frontinus openstack register` makes them",
        )
    return fine("keystone", "has the roles load-balancer_*")


def entries(catalogue: Iterable[CatalogueEntry], region: str) -> tuple[list[Finding], list[CatalogueEntry]]:
    """What is the matter with our entry as such, and the endpoints that it has, each URL once."""
    found = [x for x in catalogue if x.type == LOAD_BALANCER and region in ("", x.region)]
    if not found:
        lack = f"has no {LOAD_BALANCER} in region {region}: clients do not find Frontinus"
        return [warning("catalogue", lack, "frontinus openstack register --url URL")], []
    findings = []
    for interface in INTERFACES:
        urls = sorted({x.url for x in found if x.interface == interface})
        if len(urls) > 1:
            findings.append(
                trouble(
                    "catalogue",
                    f"has several {interface} endpoints of {LOAD_BALANCER}, and clients take any: {', '.join(urls)}",
                    "openstack endpoint set --disable ID of all but one",
                )
            )
    if not any(x.interface == "public" for x in found):
        findings.append(
            trouble("catalogue", f"{LOAD_BALANCER} has no public endpoint", "frontinus openstack register --url URL")
        )
    by_url = {x.url: x for x in sorted(found, key=lambda x: INTERFACES[::-1].index(x.interface))}
    return findings, [by_url[x] for x in sorted(by_url)]


def entry(endpoint: CatalogueEntry, answer: Answer) -> Finding:
    """`answer` came when we asked with our own token."""
    where = f"the {endpoint.interface} endpoint {endpoint.url}"
    again = "start `frontinus api` there, or `frontinus openstack register` with the right URL"
    if answer.trouble:
        return trouble("catalogue", f"{where} cannot be reached from here: {answer.trouble}", again)
    if not answer.is_ours:
        told = f"behind {where} is no load-balancer API (HTTP {answer.status})"
        return trouble("catalogue", told, again)
    if not answer.takes_tokens:
        told = f"{where} answers, and does not take our token (HTTP {answer.status})"
        return trouble("catalogue", told, 'set api.auth = "keystone" there, with this Keystone in [api.keystone]')
    return fine("catalogue", f"{where} answers, and takes tokens of this Keystone")


def microversion(service: str, newest: tuple[int, int] | None, needed: str) -> Finding:
    wanted = tuple(int(x) for x in needed.split("."))
    if newest is None or newest < wanted:
        found = "none" if newest is None else f"{newest[0]}.{newest[1]} at most"
        return trouble(service, f"speaks microversion {found}; {needed} is needed", "upgrade it")
    return fine(service, f"answers, and speaks microversion {newest[0]}.{newest[1]} ({needed} is needed)")


def flavor(wanted: str, known: Iterable[Flavor]) -> tuple[Finding, Flavor | None]:
    found = next((x for x in known if wanted in (x.id, x.name)), None)
    if found is None:
        advice = "openstack flavor create, or set driver_options.nova.flavor; one that is private needs `flavor set --project`"
        return trouble("nova", f"our account sees no flavor {wanted!r}", advice), None
    return fine("nova", f"flavor {found.name}: {found.vcpus} vCPU, {found.ram} MiB, {found.disk} GiB"), found


def image(tag: str, owner: str, tagged: Sequence[Image], chosen: Flavor | None, *, from_volume: bool) -> Finding:
    """`tagged`: every image with the tag that our account sees, whoever owns it."""
    usable = [x for x in tagged if x.owner == owner and x.status == "active"]
    if not usable:
        advice = f"openstack image create --tag {tag} …, as project {owner}"
        for found in tagged:
            if found.owner != owner:
                told = (
                    f"image {found.name or found.id} has the tag {tag!r}, and is project {found.owner}'s, not {owner}'s"
                )
                return trouble("glance", told, "set driver_options.nova.image_owner to that project, if you trust it")
            told = f"image {found.name or found.id} with the tag {tag!r} is {found.status}, not active"
            return trouble("glance", told, advice)
        return trouble("glance", f"has no image with the tag {tag!r} of project {owner}", advice)
    newest = max(usable, key=lambda x: x.created_at)
    name = newest.name or newest.id
    if chosen is not None and chosen.ram < newest.min_ram:
        told = f"image {name} needs {newest.min_ram} MiB of memory, and flavor {chosen.name} has {chosen.ram}"
        return trouble("glance", told, "choose a larger flavor")
    if chosen is not None and not from_volume and 0 < chosen.disk < newest.min_disk:
        told = f"image {name} needs {newest.min_disk} GiB of disk, and flavor {chosen.name} has {chosen.disk}"
        return trouble("glance", told, "choose a larger flavor, or set driver_options.nova.volume_size_gib")
    made = f"{newest.created_at:%Y-%m-%d %H:%M}"
    return fine("glance", f"amphorae are made from image {name} of {made} ({newest.visibility})")


def zone(wanted: str, known: Iterable[Zone]) -> Finding:
    names = {x.name: x.is_available for x in known}
    if names.get(wanted):
        return fine("nova", f"availability zone {wanted} takes servers")
    told = "takes no servers now" if wanted in names else "does not exist"
    others = ", ".join(sorted(name for name, is_available in names.items() if is_available)) or "none"
    advice = f"set driver_options.nova.availability_zone; available: {others}"
    return trouble("nova", f"availability zone {wanted!r} {told}", advice)


def hosts(known: Iterable[Host], policy: str, zone_name: str | None) -> Finding:
    """`policy`: how the amphorae of a pair are kept apart."""
    able = sorted({x.host for x in known if x.takes_servers and zone_name in (None, x.zone)})
    where = "" if zone_name is None else f" in zone {zone_name}"
    if not able:
        return trouble("nova", f"no host takes servers{where}", "openstack compute service list")
    if len(able) == 1 and policy == "anti-affinity":
        return trouble(
            "nova",
            f"one host takes servers{where}, and with anti-affinity no pair can be made on it",
            'set driver_options.nova.server_groups = "soft-anti-affinity", or add hosts',
        )
    if len(able) == 1:
        told = f"one host takes servers{where}: both amphorae of a pair die with it"
        return warning("nova", told, "add hosts")
    return fine("nova", f"{len(able)} hosts take servers{where}; pairs are kept apart by {policy}")


_OPTIONS = {"port": "ports", "security_group": "secgroups", "security_group_rule": "secgroup-rules"}
"""Of `openstack quota set`, where it calls a quota otherwise than the service."""


def room(service: str, what: str, quotas: Sequence[Quota], project: str, command: str) -> Finding:
    """For how many more of `what` the quotas of our project leave room."""
    limited = [(x.room, x) for x in quotas if x.room is not None]
    if not limited:
        return fine(service, f"no quota limits how many {what} there are")
    left, least = min(limited, key=lambda x: x[0])
    told = f"quotas leave room for {left} more {what} ({least.name}: {least.used} of {least.limit} used)"
    if left >= FEW:
        return fine(service, told)
    advice = command.format(name=_OPTIONS.get(least.name) or least.name.replace("_", "-"), project=project)
    return (warning if left else trouble)(service, told, advice)


def members_of_group(limit: int, project: str) -> Finding | None:
    """None where it is enough."""
    if limit == UNLIMITED or limit >= MEMBERS_OF_GROUP:
        return None
    told = f"a server group may have {limit} servers, and a pair is {MEMBERS_OF_GROUP}"
    return trouble("nova", told, f"openstack quota set --server-group-members {MEMBERS_OF_GROUP} {project}")


def extensions(known: Collection[str], needed: Iterable[str], useful: dict[str, str]) -> list[Finding]:
    """`useful`: of those that it goes without, what is lost."""
    missing = [x for x in needed if x not in known]
    found = [trouble("neutron", f"has no extension {x}", "switch it on; it comes with ML2") for x in missing]
    found += [
        warning("neutron", f"has no extension {x}: {lost}", "switch it on, if you want it")
        for x, lost in useful.items()
        if x not in known
    ]
    return found or [fine("neutron", "answers, and has the extensions that are needed")]


def management_network(wanted: str, found: Sequence[Network]) -> Finding:
    setting = "set driver_options.neutron.management_network to the id of one"
    if not found:
        return trouble("neutron", f"our account sees no network {wanted!r}", f"openstack network create, or {setting}")
    if len(found) > 1:
        return trouble("neutron", f"{len(found)} networks are called {wanted!r}", setting)
    if not found[0].subnets:
        told = f"the management network {wanted} has no subnet"
        return trouble("neutron", told, f"openstack subnet create --network {found[0].id} --subnet-range CIDR NAME")
    if not found[0].admin_state_up:
        told = f"the management network {wanted} is switched off"
        return trouble("neutron", told, f"openstack network set --enable {found[0].id}")
    ranges = ", ".join(x.cidr for x in found[0].subnets)
    return fine("neutron", f"the management network {wanted} is there: {ranges}")


def free_addresses(subnet: SubnetFacts, free: int | None) -> Finding | None:
    """Of the subnet that amphorae are managed on; None where nothing is to be said."""
    if free is None:
        return None
    told = f"{free} addresses are free on the management subnet {subnet.cidr}"
    if free >= FEW:
        return fine("neutron", told)
    advice = "widen its allocation pools, or name another driver_options.neutron.management_network"
    return (warning if free else trouble)("neutron", told, advice)


def management_groups(
    wanted: Sequence[str], known: Iterable[SecurityGroup], project_id: str, agent_port: int
) -> list[Finding]:
    """Of the security groups that let controllers in to agents, where the settings name some."""
    by_id = {x.id: x for x in known}
    found = []
    setting = "see driver_options.neutron.management_security_groups"
    for each in wanted:
        group = by_id.get(each)
        if group is None:
            found.append(trouble("neutron", f"our account sees no security group {each}", setting))
        elif group.project_id != project_id:
            told = f"security group {group.name} is of project {group.project_id}, not ours"
            found.append(trouble("neutron", told, setting))
    groups = [by_id[x] for x in wanted if x in by_id]
    if groups and not any(_lets_in(group, agent_port) for group in groups):
        told = f"no security group for management lets TCP port {agent_port} of agents in"
        command = (
            f"openstack security group rule create --ingress --protocol tcp --dst-port {agent_port} {groups[0].id}"
        )
        found.append(trouble("neutron", told, command))
    if groups and not any(_lets_heartbeats_out(group) for group in groups):
        told = "no security group for management lets heartbeats (UDP) out"
        command = f"openstack security group rule create --egress --protocol udp {groups[0].id}"
        found.append(trouble("neutron", told, command))
    if wanted and not found:
        names = ", ".join(x.name for x in groups)
        found.append(fine("neutron", f"security groups for management let agents be reached: {names}"))
    return found


def _lets_in(group: SecurityGroup, port: int) -> bool:
    return any(
        x.direction == "ingress"
        and x.protocol in (None, "tcp", "6")
        and (x.port_range_min is None or x.port_range_min <= port <= (x.port_range_max or port))
        for x in group.security_group_rules
    )


def _lets_heartbeats_out(group: SecurityGroup) -> bool:
    return any(x.direction == "egress" and x.protocol in (None, "udp", "17") for x in group.security_group_rules)


def secrets(count: int, has_consumers: bool) -> Finding:
    if not has_consumers:
        told = "answers without consumers of secrets (its API 1.1)"
        return trouble("barbican", told, "upgrade it to 2023.1 or later")
    return fine("barbican", f"answers; {count} secrets have an ACL that lets our account read them")


def heartbeats(destinations: Sequence[str]) -> Finding:
    nowhere = [x for x in destinations if x.startswith(("127.", "0.0.0.0:", "[::1]:", "[::]:"))]
    if nowhere or not destinations:
        return trouble(
            "heartbeats",
            f"amphorae would send them to {', '.join(nowhere) or 'nobody'}, where servers reach no receiver",
            "set heartbeat_destinations in [driver_options.haproxy] to the receivers' addresses for the management network",
        )
    return fine("heartbeats", f"amphorae send them to {', '.join(destinations)}")
