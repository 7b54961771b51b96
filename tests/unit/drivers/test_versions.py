"""What each HAProxy version is given for the same change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from frontinus.drivers.amphora.agent.change import Change
from frontinus.drivers.amphora.haproxy.render import render
from frontinus.drivers.amphora.haproxy.settings import HaproxySettings
from frontinus.drivers.amphora.haproxy.versions import FIRST_WITH, for_version, parse_version, says, version_of
from frontinus.model.certificates import Secrets
from frontinus.model.enums import Kind, LbAlgorithm, ListenerProtocol
from frontinus.model.errors import Rejected, Subject
from frontinus.testing.certificates import TestAuthority

from tests.unit.drivers.test_diff import THIRTY, change, site
from tests.unit.drivers.trees import a_listener, a_member, a_pool, a_tree

SETTINGS = HaproxySettings(state_dir=Path("/nowhere"))
VERSIONS = ("2.4.22", "2.5.14", "2.6.12-1+deb12u4", "2.8.5", "2.9.1", "3.0.11", "3.2.4")
WITH_DYNAMIC_SERVERS = frozenset(VERSIONS[2:])

JOINS = change(site(a_member(), monitored=True), site(a_member(), a_member(31), monitored=True))
LEAVES = change(site(a_member(), a_member(31)), site(a_member(weight=9)))
REWEIGHTED = change(site(a_member()), site(a_member(weight=9)))
LIMITED = change(
    *(a_tree(listeners=[a_listener(connection_limit=x)], pools=[a_pool()], members=[a_member()]) for x in (5, 6))
)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("wanted", [JOINS, LEAVES], ids=["a member joins", "one leaves, another is reweighted"])
def test_members_come_and_go_by_commands_or_by_a_reload(version: str, wanted: Change) -> None:
    got = for_version(wanted, version)
    assert not wanted.reload
    if version in WITH_DYNAMIC_SERVERS:
        assert got == wanted
    else:
        assert got.reload
        assert set(got.commands) <= {x for x in wanted.commands if " weight 9" in x}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "offered, since", [(("http/1.1", "h2"), (3, 0)), (("h2",), (3, 0)), (("http/1.1",), (2, 6)), (None, (2, 6))]
)
def test_members_that_are_offered_http2_join_where_their_connections_are_kept(
    version: str, offered: tuple[str, ...] | None, since: tuple[int, int]
) -> None:
    pool = {"tls_enabled": True, "alpn_protocols": offered}
    monitored = [
        site(*x, monitored=True, pool=pool) for x in ([a_member(weight=1), a_member(31)], [a_member(weight=9)])
    ]
    joins, leaves = (change(*x) for x in (reversed(monitored), monitored))
    assert for_version(joins, version) == (
        joins if version_of(version) >= since else Change((f"set server {THIRTY} weight 1",), reload=True)
    )
    assert for_version(leaves, version).reload is (version_of(version) < (2, 6))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("wanted", [REWEIGHTED, LIMITED], ids=["weight", "connection limit"])
def test_what_every_version_can_do_needs_no_reload(version: str, wanted: Change) -> None:
    assert for_version(wanted, version) == wanted
    assert not wanted.reload
    assert wanted.commands


@pytest.mark.parametrize("version", ["", "unknown", "-"])
def test_an_unknown_version_is_tried(version: str) -> None:
    assert for_version(JOINS, version) == JOINS


@pytest.mark.parametrize(
    "text, version",
    [("2.6.12-1+deb12u4", (2, 6)), ("3.0-dev12", (3, 0)), ("2.10.1", (2, 10)), ("v2.6", None), ("", None)],
)
def test_versions_are_read(text: str, version: tuple[int, int] | None) -> None:
    assert parse_version(text) == version


def test_every_command_of_ours_is_in_the_table() -> None:
    """A new command without a version would be sent to HAProxys that do not know it."""
    for wanted in (JOINS, LEAVES, REWEIGHTED, LIMITED):
        for command in wanted.commands:
            assert any(re.match(rf"{known}\b", command) for known in FIRST_WITH), command


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("offered", [None, ("h2",)])
def test_a_listener_offers_over_tls_what_it_says_and_no_more(version: str, offered: tuple[str, ...] | None) -> None:
    secured = a_listener(
        protocol=ListenerProtocol.TERMINATED_HTTPS, default_tls_container_ref="local:a", alpn_protocols=offered
    )
    secrets = Secrets(certificates={"local:a": TestAuthority("any").issue("www.example.org")})
    text = render(a_tree(listeners=[secured]), SETTINGS, secrets, version=version_of(version)).text
    assert (" no-alpn" in text) is (offered is None and version_of(version) >= (2, 8))
    assert (" alpn h2" in text) is (offered is not None)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_an_old_version_cannot_balance_is_refused_by_name(version: str) -> None:
    tree = a_tree(listeners=[a_listener()], pools=[a_pool(lb_algorithm=LbAlgorithm.SOURCE_IP_PORT)])
    if says(version_of(version), "balance hash"):
        assert "balance hash" in render(tree, SETTINGS, version=version_of(version)).text
        return
    with pytest.raises(Rejected) as refused:
        render(tree, SETTINGS, version=version_of(version))
    assert (refused.value.field, refused.value.subject) == ("lb_algorithm", Subject(Kind.POOL, tree.pools[0].id))


@pytest.mark.parametrize("told", [None, "", "none", "fake"])
def test_an_amphora_that_nobody_asked_is_rendered_for_as_today(told: str | None) -> None:
    assert version_of(told) == (2, 6)
