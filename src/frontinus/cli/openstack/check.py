"""`frontinus openstack check`: for each service of OpenStack what works for Frontinus and what is missing, and what to do.

Reads only, unless it is told to try (trying.py). What is asked, service by service, is decided here, as whom too; what the
answers mean is not, but in judging.py. Next: looking.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from starlette.datastructures import Headers

from frontinus.api.identity.keystone import KeystoneAuthentication
from frontinus.api.identity.login import find_login
from frontinus.api.settings import ApiSettings, Authentication
from frontinus.cli.findings import show_all
from frontinus.cli.openstack import judging, trying
from frontinus.cli.openstack.looking import Look
from frontinus.cli.openstack.seen import Account, Flavor, Quota
from frontinus.cli.output import settings_or_exit, start_logging
from frontinus.drivers.amphora.agent.settings import AgentDriverSettings
from frontinus.drivers.compute.nova.nova import MICROVERSION
from frontinus.drivers.compute.nova.settings import NO_GROUPS, NovaSettings
from frontinus.drivers.network.neutron import choice, rules
from frontinus.drivers.network.neutron.driver import NEEDED, USEFUL, NeutronSettings
from frontinus.drivers.openstack.cloud import Cloud, in_this_thread
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.drivers.secret.barbican.driver import BarbicanSettings
from frontinus.main import check as check_settings
from frontinus.model.errors import FrontinusError, Invalid, Retry
from frontinus.model.findings import Finding, fine, trouble, warning
from frontinus.model.ports import AllowedTraffic, TrafficProtocol
from frontinus.settings import Settings

_RULES_OF_GROUP = 2
"""That Neutron puts into every security group by itself: everything may leave."""
_RULES_OF_VIP = 4
"""Of a load balancer with a listener or two, beside these and ICMP."""
_CLOUDS_YAML = "see [openstack] and clouds.yaml"
_TYPES = {"nova": ("compute", "image"), "neutron": ("network",), "barbican": ("key-manager",)}
"""Types of service that each driver asks."""


@dataclass(frozen=True)
class _Wanted:
    """The settings of those drivers that ask OpenStack; None for one that is not used."""

    nova: NovaSettings | None
    neutron: NeutronSettings | None
    barbican: BarbicanSettings | None
    amphora: object

    def types(self) -> list[str]:
        return [x for name, types in _TYPES.items() if getattr(self, name) is not None for x in types]


def run(file: Path | None, overrides: dict[str, object], *, as_cloud: str | None, tries: bool, as_json: bool) -> int:
    """Exit status 0 when there is no trouble, else 1; 2 for settings that cannot be."""
    settings = settings_or_exit(file, overrides)
    start_logging(settings.log)  # of what serves and is used here; standard output is for the findings
    with in_this_thread():
        return show_all(_examine(settings, as_cloud, tries=tries), as_json=as_json)


def _examine(settings: Settings, as_cloud: str | None, *, tries: bool) -> Iterator[Finding]:
    clouds: dict[OpenStackSettings, Cloud] = {}

    def look(asked: OpenStackSettings) -> Look:
        if asked not in clouds:
            clouds[asked] = Cloud(asked)
        return Look(clouds[asked])

    try:
        wanted = _wanted(settings)
        ours = look(settings.openstack)
        above = ours if as_cloud is None else look(replace(settings.openstack, cloud=as_cloud))
        yield fine("settings", "can work together")
        try:
            who, region = ours.account(), ours.region()
        except Retry as lack:
            yield trouble("keystone", lack.reason, _CLOUDS_YAML)
            return
        if as_cloud is not None:
            try:
                tenant: str | None = above.account().project_id
            except Retry as lack:
                yield trouble("keystone", f"--os-cloud {as_cloud}: {lack.reason}", _CLOUDS_YAML)
                above, tenant = ours, None
        else:
            tenant = None
        yield from _told("keystone", _keystone(settings.api, who, region, ours, above))
        lacking = judging.catalogue_lacks(who, wanted.types(), region)
        for name in lacking:
            yield trouble(
                "catalogue",
                f"has no {name} in region {region}",
                "openstack endpoint create, or see region_name in clouds.yaml",
            )
        yield from _told("catalogue", _entry(who, region, ours))
        if wanted.nova is not None and not set(_TYPES["nova"]) & set(lacking):
            yield from _told("nova", _nova(wanted.nova, who, look(wanted.nova.openstack), above))
        if wanted.neutron is not None and not set(_TYPES["neutron"]) & set(lacking):
            yield from _told(
                "neutron", _neutron(wanted, wanted.neutron, who, look(wanted.neutron.openstack), above, tries=tries)
            )
        if wanted.barbican is not None and not set(_TYPES["barbican"]) & set(lacking):
            yield from _told("barbican", _barbican(settings.api, look(wanted.barbican.openstack)))
        yield from _not_used(settings, wanted)
        if tries and not lacking:
            yield from trying.tried(
                clouds[settings.openstack], wanted.nova, wanted.neutron, tenant, is_admin="admin" in who.roles
            )
    except Invalid as error:
        yield trouble("settings", str(error), "correct it; `frontinus config check` prints every setting")
    finally:
        for cloud in clouds.values():
            asyncio.run(cloud.close())


def _wanted(settings: Settings) -> _Wanted:
    """Raises Invalid."""
    chosen = check_settings(settings)
    names = settings.drivers

    def of(kind: str, name: str) -> object:
        return chosen.get(name) if getattr(names, kind) == name else None

    nova, neutron, barbican = of("compute", "nova"), of("network", "neutron"), of("secret", "barbican")
    return _Wanted(
        nova=nova if isinstance(nova, NovaSettings) else None,
        neutron=neutron if isinstance(neutron, NeutronSettings) else None,
        barbican=barbican if isinstance(barbican, BarbicanSettings) else None,
        amphora=chosen.get(names.amphora),
    )


def _told(subject: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """What a service does not answer at all ends what is asked of it, and is a finding."""
    try:
        yield from findings
    except Retry as lack:
        yield trouble(subject, lack.reason, _CLOUDS_YAML)


def _may_see(subject: str, what: str, question: Callable[[Look], Finding], askers: Sequence[Look]) -> Iterator[Finding]:
    """The first account that may see it is asked. That none may is a warning: it may be in order all the same."""
    for asker in askers:
        try:
            yield question(asker)
        except Retry as lack:
            if not lack.code.endswith("-forbidden"):
                raise
        else:
            return
    yield warning(
        subject, f"our account may not see {what}", "name an administrator's entry of clouds.yaml: --os-cloud"
    )


# Keystone, and what it says of us


def _keystone(api: ApiSettings, who: Account, region: str, ours: Look, above: Look) -> Iterator[Finding]:
    yield judging.account(who, region)
    if not who.project_id:
        yield trouble("keystone", "our account works in no project", "name one in clouds.yaml")
    yield judging.clock(*ours.clock())
    if api.auth is not Authentication.KEYSTONE:
        yield warning(
            "keystone",
            f"the API does not ask it who calls (api.auth is {api.auth.value})",
            'set api.auth = "keystone", and [api.keystone]',
        )
    else:
        yield from _validation(api, who, ours, above)
    yield from _may_see(
        "keystone",
        "which roles there are",
        lambda asker: judging.roles_of_tenants(asker.role_names()),
        (ours, above),
    )


def _validation(api: ApiSettings, who: Account, ours: Look, above: Look) -> Iterator[Finding]:
    """Whether the API can validate tokens, in the way that it does. A user may always validate a token of his own, which
    would prove nothing, so it is tried with another's where we have one."""
    try:
        login = find_login(api.keystone)
        user_id, roles = ours.roles_of_login(
            login.auth_url,
            login.request.reveal(),
            str(login.ca_file) if login.verify and login.ca_file is not None else login.verify,
        )
        token = next((x.token() for x in (ours, above) if x.account().user_id != user_id), None)
        if token is None:
            yield judging.validator(roles)
            return
        asyncio.run(_authenticate(api, token))
    except Invalid as error:
        yield trouble("keystone", str(error), "see [api.keystone] and clouds.yaml")
    except FrontinusError as error:
        yield trouble(
            "keystone",
            f"tokens cannot be validated as the API's account does it: {error}",
            "openstack role add --project PROJECT --user USER service; see [api.keystone]",
        )
    else:
        yield fine("keystone", "the API's account validates others' tokens")


async def _authenticate(api: ApiSettings, token: str) -> None:
    authenticator = KeystoneAuthentication(api.keystone, lambda: datetime.now(UTC))
    try:
        await authenticator.authenticate(Headers({"x-auth-token": token}))
    finally:
        await authenticator.close()


def _entry(who: Account, region: str, ours: Look) -> Iterator[Finding]:
    findings, endpoints = judging.entries(who.catalogue, region)
    yield from findings
    for endpoint in endpoints:
        yield judging.entry(endpoint, ours.behind(endpoint.url))


# Services


def _nova(settings: NovaSettings, who: Account, ours: Look, above: Look) -> Iterator[Finding]:
    found = judging.microversion("nova", ours.newest_microversion("compute"), MICROVERSION)
    yield found
    if found.advice:
        return
    ours.servers()
    finding, flavor = judging.flavor(settings.flavor, ours.flavors())
    yield finding
    if settings.key_name is not None:
        if ours.has_key(settings.key_name):
            yield fine("nova", f"key pair {settings.key_name} is there")
        else:
            told = f"our account has no key pair {settings.key_name!r}"
            yield trouble("nova", told, "openstack keypair create, as our account; or set driver_options.nova.key_name")
    zone = settings.availability_zone
    in_zone = None if zone is None else judging.zone(zone, ours.zones())
    if in_zone is not None:
        yield in_zone
    if in_zone is None or not in_zone.advice:
        yield from _may_see(
            "nova",
            "how many hosts there are",
            lambda asker: judging.hosts(asker.hosts(), settings.server_groups, zone),
            (ours, above),
        )
    yield from _nova_quotas(settings, who, ours, flavor)
    yield from _told("glance", _glance(settings, who, ours, flavor))


def _nova_quotas(settings: NovaSettings, who: Account, ours: Look, flavor: Flavor | None) -> Iterator[Finding]:
    limits = ours.limits()
    each = {"instances": 1} | ({} if flavor is None else {"cores": flavor.vcpus, "ram": flavor.ram})
    command = "openstack quota set --{name} NUMBER {project}"
    yield judging.room("nova", "amphorae", _of(limits, each), who.project_id, command)
    if settings.server_groups == NO_GROUPS:
        return
    yield judging.room("nova", "load balancers", _of(limits, {"server_groups": 1}), who.project_id, command)
    few = judging.members_of_group(limits.get("maxServerGroupMembers", -1), who.project_id)
    if few is not None:
        yield few


_LIMITS = {
    "instances": ("maxTotalInstances", "totalInstancesUsed"),
    "cores": ("maxTotalCores", "totalCoresUsed"),
    "ram": ("maxTotalRAMSize", "totalRAMUsed"),
    "server_groups": ("maxServerGroups", "totalServerGroupsUsed"),
}
"""By the name of the quota, what Nova's limits call it."""


def _of(limits: Mapping[str, int], each: Mapping[str, int]) -> list[Quota]:
    return [
        Quota(name=name, limit=limits.get(_LIMITS[name][0], -1), used=limits.get(_LIMITS[name][1], 0), each=count)
        for name, count in each.items()
    ]


def _glance(settings: NovaSettings, who: Account, ours: Look, flavor: Flavor | None) -> Iterator[Finding]:
    owner = settings.image_owner or who.project_id
    from_volume = settings.volume_size_gib is not None
    yield judging.image(settings.image_tag, owner, ours.images(settings.image_tag), flavor, from_volume=from_volume)
    if from_volume and judging.catalogue_lacks(who, ["block-storage"], ours.region()):
        told = "the catalogue has no block storage, and amphorae shall boot from volumes"
        yield trouble("nova", told, "leave driver_options.nova.volume_size_gib out, or install Cinder")


def _neutron(
    wanted: _Wanted, settings: NeutronSettings, who: Account, ours: Look, above: Look, *, tries: bool
) -> Iterator[Finding]:
    yield from judging.extensions(ours.extensions(), NEEDED, USEFUL)
    networks = ours.networks(settings.management_network)
    yield judging.management_network(settings.management_network, networks)
    subnet = choice.for_management(networks[0].subnets) if len(networks) == 1 else None
    free = None if subnet is None else judging.free_addresses(subnet, ours.free_addresses(subnet))
    if free is not None:
        yield free
    agent = wanted.amphora if isinstance(wanted.amphora, AgentDriverSettings) else None
    named = settings.management_security_groups
    if named:
        port = AgentDriverSettings.agent_port if agent is None else agent.agent_port
        yield from judging.management_groups(named, ours.security_groups(named), who.project_id, port)
    if agent is not None:
        yield judging.heartbeats(agent.heartbeat_destinations)
    yield from _may_see("neutron", "its quotas", lambda asker: _neutron_quotas(settings, who, asker), (ours, above))
    if not tries:
        yield judging.rights(who.roles)


def _neutron_quotas(settings: NeutronSettings, who: Account, ours: Look) -> Finding:
    """An amphora has a port for management and one on its VIP's network, each with a security group of its own unless the
    settings name some; ports on networks of members come on top, and VIPs count in their tenants' projects."""
    groups, count = 1, _RULES_OF_GROUP + _RULES_OF_VIP + len(rules.wanted((), ping=True))
    if not settings.management_security_groups:
        let_in = [AllowedTraffic(TrafficProtocol.TCP, x) for x in settings.management_ports]
        groups, count = 2, count + _RULES_OF_GROUP + len(rules.wanted(let_in, ping=True))
    each = {"port": 2, "security_group": groups, "security_group_rule": count}
    command = "openstack quota set --{name} NUMBER {project}"
    return judging.room("neutron", "amphorae", ours.network_quotas(who.project_id, each), who.project_id, command)


def _barbican(api: ApiSettings, ours: Look) -> Iterator[Finding]:
    try:
        yield judging.secrets(*ours.readable_secrets())
    except Retry as lack:
        if lack.code != "barbican-forbidden":
            raise
        told = "our account may not list secrets: it has none of the roles that Barbican asks for"
        yield trouble(
            "barbican", told, "openstack role add --project PROJECT --user USER observer (or creator, or admin)"
        )
        return
    if api.auth is not Authentication.KEYSTONE:
        yield trouble(
            "barbican",
            "certificates need tokens of Keystone: who names one must be able to read it himself",
            'set api.auth = "keystone"',
        )


def _not_used(settings: Settings, wanted: _Wanted) -> Iterator[Finding]:
    for name, kind in (("nova", "compute"), ("neutron", "network"), ("barbican", "secret")):
        if getattr(wanted, name) is None:
            yield fine(name, f"is not used: drivers.{kind} is {getattr(settings.drivers, kind)}")
