"""Every command of `openstack loadbalancer`, with every option that it has, against a running Frontinus.

Commands and options are those of the installed client; one that no story below tries fails the last test, unless it stands
in LEFT_OUT with its reason. What the driver cannot honour it must refuse with 501; `offered` lets both pass, because which
is which is the driver's own tests' matter. Everyday without a login; behind a real Keystone, as a tenant and as
administrator, in the long run: with a password and the catalog at first, then with the tokens that Keystone gave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.keystone_cloud import frontinus_behind, keystone_server
from tests.acceptance.openstack_cli import Cli, Tried, installed_commands
from tests.acceptance.support import Backend, Installation, free_port, spread, until

LEFT_OUT = {
    "--wait": "one loop of the client's, the same for every command; the stories wait with create, delete and failover",
}
"""Options that a command may have without a story, and why."""

CERTIFICATE = "6b0c7b5e-0000-4000-8000-0000000000ce"
NOBODY = "5ca1ab1e-0000-4000-8000-00000000dead"
ALL_TAGS = ("--tags", "a", "--any-tags", "a,b", "--not-tags", "x", "--not-any-tags", "x,y")


@dataclass
class Cloud:
    """Who types: somebody who has a project, and an administrator; without a login they are the same."""

    tenant: Cli
    admin: Cli
    project: str
    installation: Installation
    has_traffic: bool
    port: int = 0
    with_tokens: tuple[Cli, Cli] | None = None
    """The same two with tokens that they have already, where a login for each command costs more than the command."""

    def stay_logged_in(self) -> None:
        if self.with_tokens is not None:
            self.tenant, self.admin = self.with_tokens

    def settled(self, name: str = "web") -> None:
        until(
            lambda: self.tenant.ask("show", name)["provisioning_status"] == "ACTIVE", 30, f"{name} stays PENDING", 0.05
        )


@pytest.fixture
def plain_cloud(installation: Installation) -> Iterator[Cloud]:
    cli = Cli.without_login(installation.endpoint)
    try:
        yield Cloud(cli, cli, "default", installation, has_traffic=True, port=free_port())
    finally:
        cli.close()


@pytest.fixture
def keystone_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    tried = Tried()
    with keystone_server(tmp_path_factory.mktemp("keystone")) as keystone:
        project = keystone.add_user("alice", "one", "member", "reader")
        keystone.add_user("frontinus", "service", "service")
        with frontinus_behind(keystone, tmp_path_factory.mktemp("frontinus")) as installation:
            who = ("alice", "admin")
            typed = [Cli(keystone.login(x), tried) for x in who]
            stay = [Cli.with_token(installation.endpoint, keystone.token(x), tried) for x in who]
            try:
                yield Cloud(
                    typed[0],
                    typed[1],
                    project,
                    installation,
                    has_traffic=False,
                    port=8080,
                    with_tokens=(stay[0], stay[1]),
                )
            finally:
                for cli in (*typed, *stay):
                    cli.close()


def test_every_command(plain_cloud: Cloud, backends: list[Backend]) -> None:
    tell_all(plain_cloud, backends)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_command_behind_keystone(keystone_cloud: Cloud, backends: list[Backend]) -> None:
    tell_all(keystone_cloud, backends)
    assert "403" in keystone_cloud.tenant.refused("amphora", "list")
    assert "403" in keystone_cloud.tenant.refused("quota", "set", "--pool", "5", keystone_cloud.project)


def tell_all(cloud: Cloud, backends: list[Backend]) -> None:
    tell_of_offers(cloud)
    tell_of_quotas(cloud)
    cloud.stay_logged_in()
    tell_of_load_balancers(cloud)
    tell_of_listeners(cloud)
    tell_of_pools(cloud)
    tell_of_members(cloud, backends)
    tell_of_health_monitors(cloud)
    tell_of_traffic(cloud, backends)
    tell_of_policies(cloud)
    tell_of_rules(cloud)
    tell_of_amphorae(cloud)
    tell_of_ends(cloud)
    tried = cloud.tenant.tried
    assert tried.untried_commands() == set()
    assert {x for x in tried.untried_options() if x.split(" ")[-1] not in LEFT_OUT} == set()
    assert len(installed_commands()) >= 80, "the client has fewer commands than the one that this was written for"


def tell_of_offers(cloud: Cloud) -> None:
    admin, tenant = cloud.admin, cloud.tenant
    assert {x["name"] for x in tenant.ask("provider", "list")} >= {"amphora", "octavia"}
    keys = {x["name"] for x in admin.ask("provider", "capability", "list", "--flavor", "amphora")}
    assert "loadbalancer_topology" in keys
    admin.quiet("provider", "capability", "list", "--availability-zone", "amphora")
    data = '{"loadbalancer_topology": "SINGLE"}'
    profile = admin.ask(
        *("flavorprofile", "create", "--name", "single", "--provider", "amphora", "--flavor-data", data)
    )
    assert json.loads(profile["flavor_data"]) == json.loads(data)
    assert len(admin.ask("flavorprofile", "list", "--name", "single", "--provider", "amphora")) == 1
    admin.quiet(*("flavorprofile", "set", "--name", "one", "--provider", "amphora", "--flavor-data", data, "single"))
    assert admin.ask("flavorprofile", "show", "one")["provider_name"] == "amphora"
    made = admin.ask(
        *("flavor", "create", "--name", "small", "--flavorprofile", "one", "--description", "d", "--enable")
    )
    assert (made["enabled"], made["flavor_profile_id"]) == (True, profile["id"])
    admin.quiet("flavor", "create", "--name", "spare", "--flavorprofile", "one", "--disable")
    found = admin.ask("flavor", "list", "--name", "small", "--flavorprofile", profile["id"], "--enable")
    assert [x["name"] for x in found] == ["small"]
    assert [x["name"] for x in tenant.ask("flavor", "list", "--disable")] == ["spare"]
    admin.quiet("flavor", "set", "--name", "tiny", "--description", "e", "--disable", "small")
    admin.quiet("flavor", "set", "--enable", "tiny")
    admin.quiet("flavor", "unset", "--description", "tiny")
    assert tenant.ask("flavor", "show", "tiny")["description"] == ""
    assert "409" in admin.refused("flavorprofile", "delete", "one"), "it is used"
    admin.quiet("flavor", "delete", "spare")
    zone_data = "{}"
    profile = admin.ask(
        *("availabilityzoneprofile", "create", "--name", "here", "--provider", "amphora"),
        *("--availability-zone-data", zone_data),
    )
    assert len(admin.ask("availabilityzoneprofile", "list", "--name", "here", "--provider", "amphora")) == 1
    admin.quiet(
        *("availabilityzoneprofile", "set", "--name", "there", "--provider", "amphora"),
        *("--availability-zone-data", zone_data, "here"),
    )
    assert admin.ask("availabilityzoneprofile", "show", "there")["id"] == profile["id"]
    create = ("availabilityzone", "create", "--availabilityzoneprofile", "there")
    admin.quiet(*create, "--name", "east", "--description", "d", "--enable")
    admin.quiet(*create, "--name", "west", "--disable")
    found = admin.ask(
        "availabilityzone", "list", "--name", "east", "--availabilityzoneprofile", profile["id"], "--enable"
    )
    assert [x["name"] for x in found] == ["east"]
    assert [x["name"] for x in tenant.ask("availabilityzone", "list", "--disable")] == ["west"]
    admin.quiet("availabilityzone", "set", "--description", "e", "--disable", "east")
    admin.quiet("availabilityzone", "set", "--enable", "east")
    admin.quiet("availabilityzone", "unset", "--description", "east")
    assert tenant.ask("availabilityzone", "show", "east")["description"] == ""
    admin.quiet("availabilityzone", "delete", "west")


def tell_of_quotas(cloud: Cloud) -> None:
    admin = cloud.admin
    kinds = ("loadbalancer", "listener", "pool", "member", "healthmonitor", "l7policy", "l7rule")
    defaults = admin.ask("quota", "defaults", "show")
    assert defaults["load_balancer"] == -1
    admin.quiet("quota", "set", *(word for x in kinds for word in (f"--{x}", "1000")), cloud.project)
    shown = cloud.tenant.ask("quota", "show", cloud.project)
    assert {x for x in shown.values() if isinstance(x, int)} == {1000}
    assert len(admin.ask("quota", "list", "--project", cloud.project)) == 1
    admin.quiet("quota", "unset", *(f"--{x}" for x in kinds), cloud.project)
    assert admin.ask("quota", "show", cloud.project)["pool"] == -1
    admin.quiet("quota", "reset", cloud.project)


def tell_of_load_balancers(cloud: Cloud) -> None:
    tenant = cloud.tenant
    made = tenant.ask(
        *("create", "--name", "web", "--description", "d", "--vip-subnet-id", "loopback", "--enable"),
        *("--provider", "amphora", "--tag", "a", "--tag", "b", "--wait"),
    )
    assert (made["provisioning_status"], made["project_id"]) == ("ACTIVE", cloud.project)
    assert sorted(made["tags"]) == ["a", "b"]
    network = made["vip_network_id"]
    other = ("create", "--name", "other")
    of_project = cloud.admin.ask(
        *(*other, "--vip-network-id", network, "--disable", "--no-tag", "--project", cloud.project)
    )
    assert (of_project["admin_state_up"], of_project["project_id"]) == (False, cloud.project)
    for option, value in (
        ("--vip-port-id", NOBODY),
        ("--vip-qos-policy-id", NOBODY),
        ("--vip-sg-id", NOBODY),
        ("--vip-address", "203.0.113.9"),
    ):
        assert tenant.refused(*other, "--vip-subnet-id", "loopback", option, value)
    tenant.run(*other, "--vip-subnet-id", "loopback", "--additional-vip", "subnet-id=loopback")
    for option, value in (("--flavor", "tiny"), ("--availability-zone", "east")):
        status, output, error = tenant.run(*other, "--vip-subnet-id", "loopback", option, value, "-f", "json")
        assert status == 0 or "HTTP 400" in error or "HTTP 501" in error, error
        if status == 0:
            tenant.quiet("delete", json.loads(output)["id"])
    assert {x["name"] for x in tenant.ask("list")} >= {"web", "other"}
    found = tenant.ask(
        *("list", "--name", "web", "--enable", "--project", cloud.project, "--vip-network-id", network),
        *("--vip-subnet-id", "loopback", "--provisioning-status", "ACTIVE"),
        *("--operating-status", tenant.ask("show", "web")["operating_status"], "--provider", "amphora", *ALL_TAGS),
    )
    assert [x["name"] for x in found] == ["web"]
    assert tenant.ask("list", "--disable", "--name", "web") == []
    assert tenant.ask("list", "--flavor", "tiny", "--name", "web") == []
    assert tenant.ask("list", "--availability-zone", "east", "--name", "web") == []
    by_port = tenant.ask("list", "--vip-port-id", made["vip_port_id"])
    assert [x["id"] for x in by_port] == [made["id"]]
    for option in ("--vip-port-id", "--vip-qos-policy-id"):
        tenant.refused("list", option, NOBODY)  # the client looks for it first
    tenant.quiet("set", "--name", "shop", "--description", "e", "--disable", "--no-tag", "--tag", "c", "web")
    tenant.quiet("set", "--enable", "shop")
    shown = tenant.ask("show", "shop")
    assert (shown["admin_state_up"], shown["description"], shown["tags"]) == (True, "e", ["c"])
    assert tenant.refused("set", "--vip-qos-policy-id", NOBODY, "shop")
    assert tenant.refused("set", "--vip-sg-id", NOBODY, "shop")
    tenant.quiet("unset", "--name", "--description", "--all-tag", "--vip-qos-policy-id", "--vip-sg-id", made["id"])
    tenant.quiet("set", "--name", "web", "--tag", "a", made["id"])
    tenant.quiet("unset", "--tag", "a", "web")
    shown = tenant.ask("show", "web")
    assert (shown["description"], shown["tags"]) == ("", [])


HTTP_POOL = ("--protocol", "HTTP", "--lb-algorithm", "ROUND_ROBIN")
EXTRAS_OF_LISTENER = (
    ("--insert-headers", "X-Forwarded-For=true"),
    ("--allowed-cidr", "127.0.0.0/8"),
    ("--timeout-tcp-inspect", "0"),
)
LISTENER = (
    *("--connection-limit", "100", "--timeout-client-data", "40000", "--timeout-member-connect", "4000"),
    *("--timeout-member-data", "40000"),
)
TLS_OF_LISTENER = (
    *("--default-tls-container-ref", CERTIFICATE, "--sni-container-refs", CERTIFICATE, "--tls-ciphers", "AES256-SHA"),
    *("--tls-version", "TLSv1.2", "--alpn-protocol", "http/1.1", "--hsts-max-age", "10", "--hsts-include-subdomains"),
    *("--hsts-preload", "--client-ca-tls-container-ref", CERTIFICATE, "--client-authentication", "OPTIONAL"),
    *("--client-crl-container-ref", CERTIFICATE),
)


def tell_of_listeners(cloud: Cloud) -> None:
    tenant = cloud.tenant
    made = tenant.ask(
        *("listener", "create", "--name", "l", "--description", "d", "--protocol", "HTTP"),
        *("--protocol-port", str(cloud.port), "--enable", "--tag", "a", *LISTENER, "web"),
    )
    assert (made["connection_limit"], made["timeout_client_data"]) == (100, 40000)
    create = ("listener", "create", "--name", "tls", "--protocol", "TERMINATED_HTTPS", "--protocol-port", "8443")
    status, _, error = tenant.run(*create, *TLS_OF_LISTENER, "--disable", "--no-tag", "web")
    assert status == 0 or "HTTP 501" in error or "HTTP 400" in error, error
    if status == 0:
        tenant.quiet("listener", "delete", "tls")
    tenant.quiet("pool", "create", "--name", "first", *HTTP_POOL, "--loadbalancer", "web")
    for n, words in enumerate((*EXTRAS_OF_LISTENER, ("--default-pool", "first"))):
        protocol = ("--name", f"some-{n}", "--protocol", "HTTP", "--protocol-port", str(free_port()))
        if tenant.offered("listener", "create", *protocol, *words, "web"):
            tenant.quiet("listener", "delete", f"some-{n}")
    found = tenant.ask(
        *("listener", "list", "--name", "l", "--loadbalancer", "web", "--enable", "--project", cloud.project, *ALL_TAGS)
    )
    assert [x["name"] for x in found] == ["l"]
    assert tenant.ask("listener", "list", "--disable", "--name", "l") == []
    tenant.quiet("listener", "set", "--name", "m", "--description", "e", "--disable", "--tag", "b", *LISTENER, "l")
    tenant.quiet("listener", "set", "--enable", "--no-tag", "m")
    for words in (*EXTRAS_OF_LISTENER, ("--default-pool", "first")):
        tenant.offered("listener", "set", *words, "m")
    refused = tenant.refused("listener", "set", *TLS_OF_LISTENER, "m")
    assert "HTTP 400" in refused, "an HTTP listener does not terminate TLS"
    assert tenant.ask("listener", "show", "m")["description"] == "e"
    tenant.quiet(
        *("listener", "unset", "--description", "--connection-limit", "--default-pool", "--insert-headers"),
        *("--timeout-client-data", "--timeout-member-connect", "--timeout-member-data", "--timeout-tcp-inspect"),
        *("--default-tls-container-ref", "--sni-container-refs", "--client-ca-tls-container-ref"),
        *("--client-crl-container-ref", "--allowed-cidrs", "--hsts-max-age", "--hsts-include-subdomains"),
        *("--hsts-preload", "--all-tag", "m"),
    )
    for option in ("--client-authentication", "--tls-versions", "--tls-ciphers", "--alpn-protocols"):
        tenant.run("listener", "unset", option, "m")  # which have no meaning without TLS
    shown = tenant.ask("listener", "show", "m")
    assert (shown["connection_limit"], shown["timeout_client_data"], shown["description"]) == (-1, 50000, "")
    tenant.quiet("listener", "set", "--name", "l", "--tag", "a", "m")
    tenant.quiet("listener", "unset", "--name", "--tag", "a", made["id"])
    tenant.quiet("listener", "set", "--name", "l", made["id"])


TLS_OF_POOL = (
    *("--tls-container-ref", CERTIFICATE, "--ca-tls-container-ref", CERTIFICATE, "--crl-container-ref", CERTIFICATE),
    *("--enable-tls", "--tls-ciphers", "AES256-SHA", "--tls-version", "TLSv1.2", "--alpn-protocol", "http/1.1"),
)


def tell_of_pools(cloud: Cloud) -> None:
    tenant = cloud.tenant
    tenant.quiet("pool", "delete", "first")
    create = ("pool", "create", *HTTP_POOL)
    made = tenant.ask(*create, "--name", "p", "--description", "d", "--listener", "l", "--enable", "--tag", "a")
    spare = (*create, "--name", "spare", "--loadbalancer", "web", "--disable", "--no-tag", "--disable-tls")
    tenant.quiet(*spare)
    for words in (("--session-persistence", "type=SOURCE_IP"), TLS_OF_POOL):
        status, output, error = tenant.run(*create, "--name", "some", "--loadbalancer", "web", *words, "-f", "json")
        assert status == 0 or "HTTP 501" in error or "HTTP 400" in error, error
        if status == 0:
            tenant.quiet("pool", "delete", json.loads(output)["id"])
    assert [x["name"] for x in tenant.ask("pool", "list", "--loadbalancer", "web", *ALL_TAGS)] == ["p"]
    change = ("pool", "set", "--lb-algorithm", "LEAST_CONNECTIONS")
    tenant.quiet(*change, "--name", "q", "--description", "e", "--disable", "--disable-tls", "--tag", "b", "p")
    tenant.quiet("pool", "set", "--enable", "--no-tag", "q")
    for words in (("--session-persistence", "type=SOURCE_IP"), TLS_OF_POOL):
        status, _, error = tenant.run("pool", "set", *words, "spare")
        assert status == 0 or "HTTP 501" in error or "HTTP 400" in error, error
    tenant.quiet("pool", "set", "--disable-tls", "spare")
    assert tenant.ask("pool", "show", "q")["lb_algorithm"] == "LEAST_CONNECTIONS"
    tenant.quiet(
        *("pool", "unset", "--name", "--description", "--session-persistence", "--tls-container-ref"),
        *("--ca-tls-container-ref", "--crl-container-ref", "--tls-versions", "--tls-ciphers", "--alpn-protocols"),
        *("--all-tag", made["id"]),
    )
    tenant.quiet("pool", "set", "--name", "p", "--lb-algorithm", "ROUND_ROBIN", "--tag", "a", made["id"])
    tenant.quiet("pool", "unset", "--tag", "a", "p")
    assert tenant.ask("pool", "show", "p")["description"] == ""


def tell_of_members(cloud: Cloud, backends: list[Backend]) -> None:
    tenant = cloud.tenant
    create = ("member", "create", "--address", "127.0.0.1", "--protocol-port")
    for server in backends:
        tenant.quiet(*create, str(server.port), "--name", server.name, "--weight", "1", "--enable", "--tag", "a", "p")
    words = ("--monitor-port", "81", "--monitor-address", "127.0.0.1", "--enable-backup", "--disable", "--no-tag")
    spare = tenant.offered(*create, "80", "--name", "spare", *words, "p")
    tenant.quiet(*create, "81", "--name", "nowhere", "--subnet-id", "loopback", "--disable-backup", "--disable", "p")
    assert "HTTP 400" in tenant.refused(*create, "82", "--request-sriov", "p"), "its flavor does not allow it"
    assert {x["name"] for x in tenant.ask("member", "list", *ALL_TAGS, "p")} == {x.name for x in backends}
    tenant.quiet("member", "set", "--name", "n", "--weight", "3", "--disable", "--disable-backup", "p", "nowhere")
    tenant.offered("member", "set", "--monitor-port", "82", "--monitor-address", "127.0.0.1", "p", "n")
    tenant.offered("member", "set", "--enable-backup", "--no-tag", "--tag", "b", "p", "n")
    tenant.quiet("member", "set", "--enable", "p", "n")
    assert tenant.ask("member", "show", "p", "n")["weight"] == 3
    tenant.quiet(
        "member", "unset", "--weight", "--backup", "--monitor-address", "--monitor-port", "--tag", "b", "p", "n"
    )
    member = tenant.ask("member", "show", "p", "n")
    assert (member["weight"], member["backup"], member["monitor_port"]) == (1, False, None)
    tenant.quiet("member", "unset", "--name", "--all-tag", "p", member["id"])
    tenant.quiet("member", "delete", "p", member["id"])
    if spare:
        tenant.quiet("member", "delete", "p", "spare")


MONITOR = ("--delay", "1", "--timeout", "1", "--max-retries", "1", "--max-retries-down", "1")


def tell_of_health_monitors(cloud: Cloud) -> None:
    tenant = cloud.tenant
    of_http = ("--expected-codes", "200", "--http-method", "GET", "--url-path", "/")
    named = ("--http-version", "1.1", "--domain-name", "www.example.com")
    create = ("healthmonitor", "create", "--type", "HTTP", *MONITOR, *of_http)
    if tenant.offered(*create, *named, "--name", "some", "--disable", "--no-tag", "spare"):
        tenant.quiet("healthmonitor", "delete", "some")
    made = tenant.ask(*create, "--name", "h", "--enable", "--tag", "a", "p")
    assert [x["name"] for x in tenant.ask("healthmonitor", "list", *ALL_TAGS)] == ["h"]
    tenant.quiet("healthmonitor", "set", "--name", "g", *MONITOR, *of_http, "--disable", "--tag", "b", "h")
    tenant.offered("healthmonitor", "set", *named, "g")
    tenant.quiet("healthmonitor", "set", "--enable", "--no-tag", "--tag", "a", "g")
    assert tenant.ask("healthmonitor", "show", "g")["delay"] == 1
    tenant.quiet("healthmonitor", "unset", "--domain-name", "--http-version", "--tag", "a", "g")
    tenant.quiet("healthmonitor", "unset", "--expected-codes", "--http-method", "--max-retries-down", "--url-path", "g")
    assert tenant.ask("healthmonitor", "show", "g")["max_retries_down"] == 3
    tenant.quiet("healthmonitor", "unset", "--name", "--all-tag", "g")
    tenant.quiet("healthmonitor", "set", "--name", "h", made["id"])


def tell_of_traffic(cloud: Cloud, backends: list[Backend]) -> None:
    tenant = cloud.tenant
    cloud.settled()
    statuses = tenant.run("status", "show", "web")[1]  # JSON by itself
    listener = json.loads(statuses)["loadbalancer"]["listeners"][0]
    assert {x["name"] for x in listener["pools"][0]["members"]} == {x.name for x in backends}
    if cloud.has_traffic:
        vip = tenant.ask("show", "web")["vip_address"]
        assert spread(vip, cloud.port, 9) == {x.name: 3 for x in backends}
        counted = lambda: tenant.ask("stats", "show", "web")["total_connections"] >= 9  # noqa: E731
        until(counted, 30, "the statistics do not arrive", pause=0.3)
        assert tenant.ask("listener", "stats", "show", "l")["total_connections"] >= 9
    else:
        assert tenant.ask("stats", "show", "web")["total_connections"] == 0
        assert tenant.ask("listener", "stats", "show", "l")["total_connections"] == 0


def tell_of_policies(cloud: Cloud) -> None:
    tenant = cloud.tenant
    create = ("l7policy", "create", "--description", "d", "--tag", "a", "--enable")
    made = tenant.ask(*create, "--name", "y", "--action", "REJECT", "--position", "1", "l")
    to_url = ("--action", "REDIRECT_TO_URL", "--redirect-url", "http://www.example.com", "--redirect-http-code", "301")
    to_prefix = ("--action", "REDIRECT_PREFIX", "--redirect-prefix", "http://www.example.org")
    to_pool = ("--action", "REDIRECT_TO_POOL", "--redirect-pool", "spare")
    for n, words in enumerate((to_url, to_prefix, to_pool)):
        tenant.quiet("l7policy", "create", "--name", f"y{n}", *words, "--disable", "--no-tag", "l")
    assert [x["name"] for x in tenant.ask("l7policy", "list", "--listener", "l", *ALL_TAGS)] == ["y"]
    for words in (to_url, to_prefix, to_pool):
        tenant.quiet("l7policy", "set", *words, "y")
        action = words[1]
        assert tenant.ask("l7policy", "show", "y")["action"] == action
    change = ("l7policy", "set", "--name", "z", "--description", "e", "--position", "2", "--disable", "--tag", "b")
    tenant.quiet(*change, "--action", "REJECT", "y")
    tenant.quiet("l7policy", "set", "--enable", "--no-tag", "--tag", "a", "z")
    tenant.quiet("l7policy", "unset", "--description", "--redirect-http-code", "--tag", "a", "z")
    assert tenant.ask("l7policy", "show", "z")["description"] == ""
    tenant.quiet("l7policy", "unset", "--name", "--all-tag", "z")
    tenant.quiet("l7policy", "set", "--name", "y", made["id"])
    for n in range(3):
        tenant.quiet("l7policy", "delete", f"y{n}")


def tell_of_rules(cloud: Cloud) -> None:
    tenant = cloud.tenant
    header = ("--type", "HEADER", "--key", "X-Name", "--compare-type", "EQUAL_TO", "--value", "nobody")
    made = tenant.ask("l7rule", "create", *header, "--invert", "--enable", "--tag", "a", "y")
    assert (made["key"], made["invert"]) == ("X-Name", True)
    path = ("--type", "PATH", "--compare-type", "STARTS_WITH", "--value", "/nothing")
    tenant.quiet("l7rule", "create", *path, "--disable", "--no-tag", "y")
    assert [x["id"] for x in tenant.ask("l7rule", "list", *ALL_TAGS, "y")] == [made["id"]]
    tenant.quiet("l7rule", "set", *header, "--invert", "--disable", "--tag", "b", "y", made["id"])
    tenant.quiet("l7rule", "set", "--enable", "--no-tag", "--tag", "c", "y", made["id"])
    tenant.quiet("l7rule", "set", *path, "y", made["id"])
    tenant.quiet("l7rule", "unset", "--invert", "--tag", "c", "y", made["id"])
    shown = tenant.ask("l7rule", "show", "y", made["id"])
    assert (shown["type"], shown["key"], shown["invert"]) == ("PATH", None, False)
    tenant.run("l7rule", "unset", "--key", "y", made["id"])  # null, which the contract has as 400
    tenant.quiet("l7rule", "unset", "--all-tag", "y", made["id"])
    tenant.quiet("l7rule", "delete", "y", made["id"])


def tell_of_amphorae(cloud: Cloud) -> None:
    """An amphora is listed, shown, pushed to and replaced; so is a load balancer's, with the same VIP."""
    admin = cloud.admin
    cloud.settled()
    vip = admin.ask("show", "web")["vip_address"]

    def amphora() -> Any:
        words = ("amphora", "list", "--loadbalancer", "web", "--role", "STANDALONE", "--status", "ALLOCATED", "--long")
        (one,) = admin.ask(*words)
        return one

    first = amphora()
    assert admin.ask("amphora", "list", "--compute-id", NOBODY) == []
    assert admin.ask("amphora", "list", "--image-id", NOBODY) == []
    assert admin.ask("amphora", "show", first["id"])["ha_ip"] == vip
    listener = admin.ask("listener", "show", "l")["id"]
    status, output, _ = admin.run("amphora", "stats", "show", "--listener", listener, first["id"], "-f", "json")
    assert status == 0 or not cloud.has_traffic, output
    admin.quiet("amphora", "configure", first["id"])
    assert "409" in admin.refused("amphora", "delete", first["id"]), "it is not in ERROR"
    admin.quiet("amphora", "failover", "--wait", first["id"])
    second = amphora()
    assert second["id"] != first["id"]
    admin.quiet("failover", "--wait", "web")
    assert amphora()["id"] not in (first["id"], second["id"])
    assert admin.ask("show", "web")["vip_address"] == vip


def tell_of_ends(cloud: Cloud) -> None:
    tenant, admin = cloud.tenant, cloud.admin
    assert "HTTP 400" in tenant.refused("delete", "web"), "a load balancer with children needs --cascade"
    tenant.quiet("l7policy", "delete", "y")
    tenant.quiet("healthmonitor", "delete", "h")
    tenant.quiet("pool", "delete", "spare")
    tenant.quiet("listener", "delete", "l")
    tenant.quiet("delete", "--cascade", "--wait", "web")
    tenant.quiet("delete", "--wait", "other")
    assert tenant.ask("list") == []
    admin.quiet("flavor", "delete", "tiny")
    admin.quiet("flavorprofile", "delete", "one")
    admin.quiet("availabilityzone", "delete", "east")
    admin.quiet("availabilityzoneprofile", "delete", "there")
    assert cloud.installation.amphora_processes() == []
