"""What the answers of OpenStack's services mean: one thing at a time, each with what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from frontinus.cli.openstack import judging
from frontinus.cli.openstack.seen import (
    Account,
    Answer,
    CatalogueEntry,
    Flavor,
    Host,
    Image,
    Network,
    Quota,
    Rule,
    SecurityGroup,
    Zone,
)
from frontinus.drivers.network.neutron.facts import SubnetFacts
from frontinus.model.findings import Finding, Grade
from frontinus.model.ids import NetworkId, SubnetId

NOON = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
OK, WARNING, TROUBLE = Grade.OK, Grade.WARNING, Grade.TROUBLE
OURS, THEIRS = "our-project", "their-project"
SMALL = Flavor(id="f1", name="small", vcpus=1, ram=256, disk=2)
PUBLIC = CatalogueEntry(type="load-balancer", interface="public", region="One", url="http://lb:9876")


def judged(finding: Finding) -> Grade:
    """Whatever is not in order says what to do."""
    assert bool(finding.advice) is (finding.grade is not OK), finding
    return finding.grade


@pytest.mark.parametrize(
    "grade, told, answered",
    [
        pytest.param(OK, NOON, NOON + SECOND, id="the same"),
        pytest.param(OK, NOON, NOON + 0.9 * SECOND, id="told in whole seconds"),
        pytest.param(OK, NOON + 3 * SECOND, NOON + 20 * SECOND, id="an answer that took long says nothing"),
        pytest.param(TROUBLE, NOON + 60 * SECOND, NOON + SECOND, id="we are behind"),
        pytest.param(TROUBLE, NOON - 60 * SECOND, NOON + SECOND, id="we are ahead"),
        pytest.param(WARNING, None, NOON, id="it does not say"),
    ],
)
def test_clocks(grade: Grade, told: datetime | None, answered: datetime) -> None:
    finding = judging.clock(told, NOON, answered)
    assert judged(finding) is grade
    if grade is TROUBLE and told is not None:
        assert ("behind" if told > answered else "ahead of") in finding.told


@pytest.mark.parametrize(
    "grade, roles",
    [
        pytest.param(OK, {"service"}, id="service"),
        pytest.param(OK, {"admin", "member"}, id="an administrator"),
        pytest.param(TROUBLE, {"member", "reader"}, id="a tenant"),
    ],
)
def test_who_may_validate_tokens(grade: Grade, roles: set[str]) -> None:
    assert judged(judging.validator(roles)) is grade


def test_a_role_that_is_missing_is_named() -> None:
    assert judged(judging.roles_of_tenants({*judging.ROLES, "member"})) is OK
    finding = judging.roles_of_tenants(set(judging.ROLES) - {"load-balancer_admin"})
    assert (judged(finding), "load-balancer_admin" in finding.told) == (WARNING, True)


def test_what_the_catalogue_lacks_is_looked_for_in_our_region() -> None:
    there = (
        CatalogueEntry(type="compute", interface="public", region="One", url="x"),
        CatalogueEntry(type="image", interface="public", region="Two", url="x"),
        CatalogueEntry(type="volumev3", interface="public", region="One", url="x"),
    )
    who = Account(user="u", user_id="1", project="p", project_id="2", roles=frozenset(), catalogue=there)
    assert judging.catalogue_lacks(who, ["compute", "image", "block-storage"], "One") == ["image"]


@pytest.mark.parametrize(
    "grades, urls, catalogue",
    [
        pytest.param([WARNING], [], [], id="there is none"),
        pytest.param([], ["http://lb:9876"], [PUBLIC], id="one"),
        pytest.param(
            [TROUBLE],
            ["http://lb:9876", "http://old:9876"],
            [PUBLIC, CatalogueEntry(type="load-balancer", interface="public", region="One", url="http://old:9876")],
            id="two public ones",
        ),
        pytest.param(
            [TROUBLE],
            ["http://lb:9876"],
            [CatalogueEntry(type="load-balancer", interface="admin", region="One", url="http://lb:9876")],
            id="none is public",
        ),
        pytest.param(
            [WARNING],
            [],
            [CatalogueEntry(type="load-balancer", interface="public", region="Two", url="http://lb:9876")],
            id="of another region",
        ),
    ],
)
def test_entries_of_the_catalogue(grades: list[Grade], urls: list[str], catalogue: list[CatalogueEntry]) -> None:
    findings, endpoints = judging.entries(catalogue, "One")
    assert ([judged(x) for x in findings], [x.url for x in endpoints]) == (grades, urls)


@pytest.mark.parametrize(
    "grade, answer",
    [
        pytest.param(OK, Answer(status=200, is_ours=True, takes_tokens=True), id="it answers"),
        pytest.param(TROUBLE, Answer(trouble="Connection refused"), id="nobody listens"),
        pytest.param(TROUBLE, Answer(status=404), id="something else answers"),
        pytest.param(TROUBLE, Answer(status=401, is_ours=True), id="it asks another Keystone"),
    ],
)
def test_what_stands_behind_an_entry(grade: Grade, answer: Answer) -> None:
    finding = judging.entry(PUBLIC, answer)
    assert (judged(finding), PUBLIC.url in finding.told) == (grade, True)


@pytest.mark.parametrize(
    "grade, newest",
    [
        pytest.param(OK, (2, 69), id="just new enough"),
        pytest.param(OK, (3, 1), id="newer"),
        pytest.param(TROUBLE, (2, 9), id="2.9 is older than 2.69"),
        pytest.param(TROUBLE, None, id="none"),
    ],
)
def test_microversions(grade: Grade, newest: tuple[int, int] | None) -> None:
    assert judged(judging.microversion("nova", newest, "2.69")) is grade


@pytest.mark.parametrize(
    "grade, wanted", [pytest.param(OK, "f1", id="by id"), pytest.param(OK, "small", id="by name"), (TROUBLE, "large")]
)
def test_flavors(grade: Grade, wanted: str) -> None:
    finding, found = judging.flavor(wanted, [SMALL])
    assert (judged(finding), found) == (grade, SMALL if grade is OK else None)


def image(**facts: object) -> Image:
    known = {"id": "i", "name": "amphora", "owner": OURS, "status": "active", "visibility": "private"}
    return Image(created_at=NOON, **{**known, **facts})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "grade, word, images",
    [
        pytest.param(OK, "amphora of", [image()], id="ours"),
        pytest.param(TROUBLE, "no image", [], id="none with the tag"),
        pytest.param(TROUBLE, THEIRS, [image(owner=THEIRS)], id="another project's"),
        pytest.param(TROUBLE, "queued", [image(status="queued")], id="not uploaded"),
        pytest.param(OK, "amphora of", [image(owner=THEIRS), image(status="queued"), image()], id="one of them is"),
        pytest.param(TROUBLE, "512 MiB", [image(min_ram=512)], id="too little memory"),
        pytest.param(TROUBLE, "3 GiB", [image(min_disk=3)], id="too little disk"),
        pytest.param(OK, "(public)", [image(visibility="public")], id="everybody may read it"),
    ],
)
def test_images(grade: Grade, word: str, images: list[Image]) -> None:
    finding = judging.image("amphora-image", OURS, images, SMALL, from_volume=False)
    assert (judged(finding), word in finding.told) == (grade, True), finding


def test_a_volume_is_as_large_as_it_must_be() -> None:
    assert judged(judging.image("amphora-image", OURS, [image(min_disk=3)], SMALL, from_volume=True)) is OK


def test_the_newest_image_counts() -> None:
    old = Image(id="o", name="old", owner=OURS, status="active", min_ram=512, created_at=NOON - SECOND)
    images = [old, image(name="new"), old]
    assert judged(judging.image("amphora-image", OURS, images, SMALL, from_volume=False)) is OK


@pytest.mark.parametrize(
    "grade, wanted",
    [pytest.param(OK, "a", id="there"), pytest.param(TROUBLE, "b", id="closed"), pytest.param(TROUBLE, "c", id="none")],
)
def test_zones(grade: Grade, wanted: str) -> None:
    assert (
        judged(judging.zone(wanted, [Zone(name="a", is_available=True), Zone(name="b", is_available=False)])) is grade
    )


def host(name: str, *, status: str = "enabled", state: str = "up", zone: str = "nova") -> Host:
    return Host(host=name, zone=zone, status=status, state=state)


@pytest.mark.parametrize(
    "grade, hosts, policy, zone",
    [
        pytest.param(OK, [host("a"), host("b")], "anti-affinity", None, id="two"),
        pytest.param(WARNING, [host("a")], "soft-anti-affinity", None, id="one, if need be"),
        pytest.param(TROUBLE, [host("a")], "anti-affinity", None, id="one, and it must be two"),
        pytest.param(TROUBLE, [host("a", state="down")], "none", None, id="none is up"),
        pytest.param(
            TROUBLE, [host("a"), host("b", status="disabled")], "anti-affinity", None, id="the other is disabled"
        ),
        pytest.param(TROUBLE, [host("a"), host("b", zone="z")], "anti-affinity", "z", id="the other is elsewhere"),
    ],
)
def test_hosts(grade: Grade, hosts: list[Host], policy: str, zone: str | None) -> None:
    assert judged(judging.hosts(hosts, policy, zone)) is grade


@pytest.mark.parametrize(
    "grade, word, quotas",
    [
        pytest.param(OK, "no quota", [Quota(name="instances", limit=-1, used=5, each=1)], id="unlimited"),
        pytest.param(
            OK,
            "room for 10 more",
            [Quota(name="instances", limit=10, used=0, each=1), Quota(name="ram", limit=51_200, used=0, each=256)],
            id="enough",
        ),
        pytest.param(
            WARNING,
            "room for 2 more amphorae (ram: 1000 of 1600",
            [Quota(name="instances", limit=10, used=0, each=1), Quota(name="ram", limit=1_600, used=1_000, each=256)],
            id="the scarcest is told",
        ),
        pytest.param(TROUBLE, "room for 0", [Quota(name="instances", limit=10, used=12, each=1)], id="over quota"),
        pytest.param(OK, "no quota", [Quota(name="cores", limit=0, used=0, each=0)], id="none of it is needed"),
    ],
)
def test_quotas(grade: Grade, word: str, quotas: list[Quota]) -> None:
    finding = judging.room("nova", "amphorae", quotas, OURS, "openstack quota set --{name} NUMBER {project}")
    assert (judged(finding), word in finding.told) == (grade, True), finding


@pytest.mark.parametrize(
    "name, option",
    [("server_groups", "server-groups"), ("security_group_rule", "secgroup-rules"), ("port", "ports")],
)
def test_a_quota_is_raised_by_a_command_that_names_it(name: str, option: str) -> None:
    full = [Quota(name=name, limit=10, used=10, each=1)]
    finding = judging.room("nova", "load balancers", full, OURS, "openstack quota set --{name} NUMBER {project}")
    assert finding.advice == f"openstack quota set --{option} NUMBER {OURS}"


@pytest.mark.parametrize("is_enough, limit", [(True, -1), (True, 2), (False, 1)])
def test_a_pair_has_room_in_a_group(is_enough: bool, limit: int) -> None:
    assert (judging.members_of_group(limit, OURS) is None) is is_enough


@pytest.mark.parametrize(
    "grades, known",
    [
        pytest.param([OK], {"port-security", "qos"}, id="all"),
        pytest.param([WARNING], {"port-security"}, id="without one that is useful"),
        pytest.param([TROUBLE, WARNING], set(), id="without any"),
    ],
)
def test_extensions(grades: list[Grade], known: set[str]) -> None:
    found = judging.extensions(known, ("port-security",), {"qos": "no policies"})
    assert [judged(x) for x in found] == grades


SUBNET = SubnetFacts(id=SubnetId("s"), network_id=NetworkId("n"), name="", cidr="10.0.0.0/24", ip_version=4)


@pytest.mark.parametrize(
    "grade, networks",
    [
        pytest.param(OK, [Network(id="n", subnets=(SUBNET,))], id="one"),
        pytest.param(TROUBLE, [], id="none"),
        pytest.param(TROUBLE, [Network(id="n"), Network(id="m")], id="two of the name"),
        pytest.param(TROUBLE, [Network(id="n")], id="without a subnet"),
        pytest.param(TROUBLE, [Network(id="n", subnets=(SUBNET,), admin_state_up=False)], id="switched off"),
    ],
)
def test_management_networks(grade: Grade, networks: list[Network]) -> None:
    assert judged(judging.management_network("lb-mgmt-net", networks)) is grade


@pytest.mark.parametrize("grade, free", [(OK, 10), (WARNING, 9), (TROUBLE, 0), (None, None)])
def test_free_addresses(grade: Grade | None, free: int | None) -> None:
    found = judging.free_addresses(SUBNET, free)
    assert (None if found is None else judged(found)) is grade


def group(*rules: Rule, project_id: str = OURS) -> SecurityGroup:
    return SecurityGroup(id="g", name="lb-mgmt", project_id=project_id, security_group_rules=rules)


OUT = Rule(direction="egress")
AGENT = Rule(direction="ingress", protocol="tcp", port_range_min=9443, port_range_max=9443)


@pytest.mark.parametrize(
    "grades, known",
    [
        pytest.param([OK], [group(OUT, AGENT)], id="both ways"),
        pytest.param([OK], [group(OUT, Rule(direction="ingress"))], id="everything"),
        pytest.param(
            [OK],
            [group(OUT, Rule(direction="ingress", protocol="tcp", port_range_min=9000, port_range_max=9999))],
            id="a range",
        ),
        pytest.param([TROUBLE], [], id="it is not there"),
        pytest.param([TROUBLE], [group(OUT)], id="agents cannot be reached"),
        pytest.param([TROUBLE], [group(AGENT)], id="heartbeats cannot leave"),
        pytest.param([TROUBLE], [group(OUT, AGENT, project_id=THEIRS)], id="another project's"),
        pytest.param(
            [TROUBLE],
            [group(OUT, Rule(direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22))],
            id="another port",
        ),
    ],
)
def test_security_groups_for_management(grades: list[Grade], known: list[SecurityGroup]) -> None:
    found = judging.management_groups(("g",), known, OURS, 9443)
    assert [judged(x) for x in found] == grades


@pytest.mark.parametrize(
    "grade, destinations",
    [
        pytest.param(OK, ("10.64.0.1:5555", "[fd00::1]:5555"), id="of the management network"),
        pytest.param(TROUBLE, ("127.0.0.1:5555",), id="loopback"),
        pytest.param(TROUBLE, ("10.64.0.1:5555", "0.0.0.0:5555"), id="one of them is none"),
        pytest.param(TROUBLE, (), id="nobody"),
    ],
)
def test_heartbeats(grade: Grade, destinations: tuple[str, ...]) -> None:
    assert judged(judging.heartbeats(destinations)) is grade


@pytest.mark.parametrize("grade, has_consumers", [(OK, True), (TROUBLE, False)])
def test_secrets(grade: Grade, has_consumers: bool) -> None:
    assert judged(judging.secrets(3, has_consumers)) is grade


@pytest.mark.parametrize("grade, roles", [(OK, {"admin"}), (WARNING, {"service", "member"})])
def test_what_only_trying_tells_is_said_to_be_so(grade: Grade, roles: set[str]) -> None:
    assert judged(judging.rights(roles)) is grade
