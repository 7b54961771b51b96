"""What the agent reads out of configuration texts, settings and haproxy's answers. Tables; nothing runs."""

import socket
from pathlib import Path

import pytest

from frontinus_amphora import binds, haproxy_cli, haproxy_text
from frontinus_amphora.haproxy_text import Bind, Listener
from frontinus_amphora.settings import (
    BadSettings,
    keep_our_section,
    parse_controllers,
    parse_settings,
    with_heartbeat_key,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "line, found",
    [
        ("bind 127.0.0.1:80", [("127.0.0.1", 80)]),
        ("bind 0.0.0.0:80 ssl crt-list /x/y.pem", [("0.0.0.0", 80)]),
        ("bind *:80", [("0.0.0.0", 80)]),
        ("bind :80", [("0.0.0.0", 80)]),
        ("bind :::80", [("::", 80)]),
        ("bind [::]:80 v4v6", [("::", 80)]),
        ("bind 2001:db8:0::1:443", [("2001:db8::1", 443)]),
        ("bind [2001:DB8::1]:443", [("2001:db8::1", 443)]),
        ("bind ipv6@:443", [("::", 443)]),
        ("bind ipv4@127.0.0.1:443", [("127.0.0.1", 443)]),
        ("bind 127.0.0.1:80,127.0.0.2:81", [("127.0.0.1", 80), ("127.0.0.2", 81)]),
        ("bind 127.0.0.1:80-82", [("127.0.0.1", 80), ("127.0.0.1", 81), ("127.0.0.1", 82)]),
        ("bind /run/x.sock", []),
        ("bind unix@/run/x:80", []),
        ("bind abns@x", []),
        ("bind quic4@127.0.0.1:443 ssl", []),
        ("bind fd@3", []),
        ("bind name.example:80", []),
        ('bind "${ADDRESS}:80"', []),
        ("bind 127.0.0.1:0", []),
        ("bind 127.0.0.1:99999", []),
        ("# bind 127.0.0.1:80", []),
        ("bind", []),
    ],
)
def test_bind_lines(line: str, found: list[tuple[str, int]]) -> None:
    read = haproxy_text.binds(f"global\n    stats socket x\nfrontend f\n    {line}\nbackend b\n    bind 127.0.0.9:9\n")
    assert [(bind.frontend, bind.address, bind.port) for bind in read] == [("f", *each) for each in found]


def test_binds_of_peers_and_log_forwarders_count() -> None:
    text = "peers p\n  peer me 127.0.0.1:1025\n  peer you 127.0.0.2:1025\nlog-forward l\n  bind 127.0.0.1:514\n"
    assert [(bind.frontend, bind.port) for bind in haproxy_text.binds(text, "me")] == [("p", 1025), ("l", 514)]


def test_binding_is_tried() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as haproxy's own
        taken.bind(("127.83.0.9", 0))
        taken.listen()
        port = taken.getsockname()[1]
        wanted = [Bind("a", "127.83.0.9", port), Bind("b", "127.83.0.10", port), Bind("c", "192.0.2.1", port)]
        refused = binds.refused_binds(wanted, [])
        assert [(bind.frontend, error) for bind, error in refused] == [("a", "EADDRINUSE"), ("c", "EADDRNOTAVAIL")]
        assert binds.refused_binds([wanted[0]], [wanted[0]]) == []
        everywhere = Bind("d", "0.0.0.0", port)
        assert [error for _, error in binds.refused_binds([everywhere], [])] == ["EADDRINUSE"]
        assert binds.refused_binds([everywhere], [wanted[0]]) == []  # it is our own that is in the way


def test_facts_of_a_text() -> None:
    text = """global
    stats socket /b/lb.sock mode 0666 level user  # mandatory
    server-state-base /b/
    server-state-file states
    user nobody
defaults
    default-server inter 5s check
frontend l2
    mode http
    bind 127.0.0.1:443 ssl crt-list /c/l2.pem
frontend l1
    bind 127.0.0.1:25
frontend prometheus-l3
    bind 127.0.0.1:9101
backend p:l1
    server m1 10.0.0.1:80 weight 1
    server m2 [2001:db8::2]:80 no-check
    server m3 name.example:80
backend p:l2
    default-server no-check
    server m1 10.0.0.1:80 check
    server m4 10.0.0.4:80
"""
    assert haproxy_text.stats_socket(text) == "/b/lb.sock"
    assert haproxy_text.server_state_file(text) == "/b/states"
    assert haproxy_text.names_user(text)
    assert haproxy_text.listeners(text) == [Listener("l1", "tcp", False), Listener("l2", "http", True)]
    assert haproxy_text.servers(text) == {"p:l1/m1": ("10.0.0.1", 80), "p:l2/m1": ("10.0.0.1", 80)}
    assert haproxy_text.without_group_lines("a\n  group x\ngroup\ngrouped\n") == "a\ngrouped\n"


@pytest.mark.parametrize("end", ["\x85", "\u2028", "\u2029"], ids=["next-line", "line", "paragraph"])
def test_what_a_tenant_wrote_begins_no_line(end: str) -> None:
    """haproxy ends a line at a line feed alone; a cookie of an application may have any of these in its name."""
    name = end.join(
        ["x", "global", "stats\u3000socket\u3000evil", "server-state-file\u3000agent.conf", "user\u3000root", ""]
    )
    text = f"backend p:l1\n    stick match 'req.cook(\"{name}\"),sha1'\n"
    assert haproxy_text.stats_socket(text) is None
    assert haproxy_text.server_state_file(text) is None
    assert not haproxy_text.names_user(text)
    assert haproxy_text.without_group_lines(f"a '{end}group'\n") == f"a '{end}group'\n"


def test_empty_text_has_no_facts() -> None:
    assert haproxy_text.stats_socket("") is None
    assert haproxy_text.server_state_file("") is None
    assert haproxy_text.binds("") == []


def test_peer_name() -> None:
    """base64 of the SHA-1 of the id, made a word that haproxy takes (contract: upload_haproxy_config)."""
    assert haproxy_text.peer_name("5b2d9c5e-6d39-4a0c-9f0f-8a7f9d1c2e01").isascii()
    for number in range(200):
        name = haproxy_text.peer_name(str(number))
        assert len(name) == 27
        assert not name.startswith("-")
        assert not set(name) & set("+/=")


HEADER = (
    "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight"
    " srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state"
    " bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr"
    " srv_agent_addr srv_agent_port"
)


@pytest.mark.parametrize(
    "row, kept",
    [
        pytest.param("2 0 10 10", "2 0 10 10", id="as it is"),
        pytest.param("0 0 10 10", "0 0 10 10", id="down stays down"),
        pytest.param("2 8 10 10", "2 0 10 10", id="drain by order is forgotten"),
        pytest.param("2 0 5 10", "2 0 10 10", id="weight by order is forgotten"),
        pytest.param("0 1 10 10", None, id="maintenance by order"),
        pytest.param("0 5 10 10", None, id="disabled in the old text"),
        pytest.param("2 4 10 10", "2 0 10 10", id="disabled in the old text, and let in since"),
        pytest.param("0 4 10 10", "0 0 10 10", id="disabled in the old text, let in since, and down"),
    ],
)
def test_server_states_are_settled(row: str, kept: str | None) -> None:
    servers = {"b/s": ("10.0.0.1", 80)}
    assert haproxy_cli.settle_states(states(("b", row)), servers) == states_kept(*([("b", kept)] if kept else []))
    for other in ({}, {"b/s": ("10.0.0.1", 81)}, {"b/s": ("10.0.0.2", 80)}):
        assert haproxy_cli.settle_states(states(("b", row)), other) == states_kept()


def test_a_new_listener_of_a_pool_learns_what_is_known_of_its_members() -> None:
    """From whichever backend of the pool there was, and one that has its own knows that."""
    servers = {f"{backend}/s": ("10.0.0.1", 80) for backend in ("p:new", "p:a", "other:a", "b")}
    told = states(("p:gone", "0 0 1 1"), ("p:a", "2 0 1 1"))
    assert haproxy_cli.settle_states(told, servers) == states_kept(("p:new", "0 0 1 1"), ("p:a", "2 0 1 1"))


def states(*rows: tuple[str, str]) -> str:
    """What haproxy says: backend and state of the server `s` in it. Checks in TLS, at another place."""
    lines = [f"2 {name} 1 s 10.0.0.1 {row} 0 1 0 2 0 0 0 0 - 80 - 1 8080 10.0.0.9 - 0\n" for name, row in rows]
    return f"1\n{HEADER}\n{''.join(lines)}\n"


def states_kept(*rows: tuple[str, str]) -> str:
    """What is given to the next one: nothing that it could take for an order."""
    return "".join([f"1\n{HEADER}\n", *(f"2 {name} 1 s 10.0.0.1 {row} 0 1 0 2 0 0 0 0 - 80 -\n" for name, row in rows)])


@pytest.mark.parametrize(
    "answer, done, later",
    [
        ("\n", True, False),
        ("New server registered.\n\n", True, False),
        ("Server deleted.\n", True, False),
        ("IP changed from '10.0.0.1' to '10.0.0.2' by 'stats socket command'\n", True, False),
        ("Transaction created for certificate /c/a.pem!\n", True, False),
        ("Committing /c/a.pem\nSuccess!\n", True, False),
        ("Committing /c/a.pem..\nSuccess!\n", True, False),
        ("Inserting certificate '/c/b.pem' in crt-list '/c/l.pem'.\nSuccess!\n", True, False),
        ("Entry '/c/b.pem' deleted in crtlist '/c/l.pem'!\n", True, False),
        ("Certificate '/c/b.pem' deleted!\n", True, False),
        ("No ongoing transaction!\n", False, False),
        ("No such server.\n", False, False),
        ("Already exists a server with the same name in backend.\n", False, False),
        ("Unknown command, but maybe ...\nServer deleted.\n", False, False),
        ("Can't commit /c/a.pem!\nFailed!\n", False, False),
        ("Server still has connections attached to it, cannot remove it.\n", False, True),
        ("Only servers in maintenance mode can be deleted.\n", False, False),
        (
            "This server cannot be removed at runtime due to other configuration elements pointing to it.\n",
            False,
            False,
        ),
    ],
)
def test_answers_of_haproxy(answer: str, done: bool, later: bool) -> None:
    assert (haproxy_cli.is_done(answer), haproxy_cli.is_not_yet(answer)) == (done, later)


@pytest.mark.parametrize(
    "command, sent",
    [
        ("show info", "show info"),
        ("show info\n", "show info"),
        ("set ssl cert /a <<\nline\nline\n", "set ssl cert /a <<\nline\nline\n"),
        ("set ssl cert /a <<\nline\n\nshow info\n", None),
        ("set ssl cert /a <<", None),
        ("show info\nshow stat", None),
        ("show info; show stat", None),
        ("", None),
        ("\n", None),
        ("a\0b", None),
    ],
)
def test_one_command_is_one_command(command: str, sent: str | None) -> None:
    assert haproxy_cli.command_line(command) == sent


def test_show_proc_of_haproxy() -> None:
    text = """#<PID>          <type>          <reloads>       <uptime>        <version>
4233            master          2 [failed: 1]   0d00h02m53s     2.6.12
# workers
4349            worker          1               0d00h02m49s     2.6.12
# old workers
4236            worker          3               0d00h02m59s     2.6.12
# programs
"""
    assert haproxy_cli.parse_processes(text) == (4233, 2, 1, (4349,), (4236,))
    assert haproxy_cli.parse_processes("") is None


def test_controllers() -> None:
    assert parse_controllers("10.0.0.1:5555, [2001:db8::1]:5556") == (("10.0.0.1", 5555), ("2001:db8::1", 5556))
    assert parse_controllers("10.0.0.1:5555,nonsense,10.0.0.2:1") == (("10.0.0.1", 5555),)
    assert parse_controllers("") == ()


MINIMAL = "[amphora_agent]\namphora_id = 5b2d9c5e-6d39-4a0c-9f0f-8a7f9d1c2e01\n"


def test_settings_have_octavias_defaults() -> None:
    settings = parse_settings(MINIMAL, "/x")
    assert (settings.bind_host, settings.bind_port, settings.heartbeat_interval) == ("::", 9443, 10.0)
    assert (settings.heartbeat_format, settings.heartbeat_key, settings.controller_identity) == ("plain", "None", None)
    assert settings.base_cert_dir == "/var/lib/octavia/certs"


@pytest.mark.parametrize(
    "more",
    [
        "[frontinus]\nnetwork = maybe\n",
        "[health_manager]\nheartbeat_format = new\n",
        "[health_manager]\nheartbeat_interval = 0\n",
        "[haproxy_amphora]\nbind_port = 65536\n",
    ],
)
def test_settings_out_of_bounds(more: str) -> None:
    with pytest.raises(BadSettings):
        parse_settings(MINIMAL + more, "/x")


def test_our_section_survives_a_plain_push() -> None:
    old = "[a]\nx = 1\n[frontinus]\n# why\nnetwork = none\n\n[b]\ny = 2\n"
    assert keep_our_section("[a]\nx = 2\n", old) == "[a]\nx = 2\n\n[frontinus]\n# why\nnetwork = none\n\n"
    assert keep_our_section("[frontinus]\n", old) == "[frontinus]\n"
    assert keep_our_section("[a]\n", "[a]\n") == "[a]\n"


@pytest.mark.parametrize(
    "before, after",
    [
        pytest.param(
            "[a]\nheartbeat_key = x\n[health_manager]\nheartbeat_key = old\nother = 1\n\n[b]\ny = 2\n",
            "[a]\nheartbeat_key = x\n[health_manager]\nheartbeat_key = new\nother = 1\n\n[b]\ny = 2\n",
            id="that of its section",
        ),
        pytest.param("[health_manager]\nx = 1", "[health_manager]\nheartbeat_key = new\nx = 1", id="none before"),
        pytest.param("[a]\nx = 1\n", "[a]\nx = 1\n\n[health_manager]\nheartbeat_key = new\n", id="no section"),
        pytest.param(
            "[health_manager]\nheartbeat_key: 1\nheartbeat_key_length = 3\n",
            "[health_manager]\nheartbeat_key = new\nheartbeat_key_length = 3\n",
            id="a colon, and a longer name",
        ),
    ],
)
def test_a_heartbeat_key_is_replaced_and_nothing_else(before: str, after: str) -> None:
    assert with_heartbeat_key(before, "new") == after


def test_the_agent_needs_nothing_but_the_standard_library() -> None:
    import ast
    import sys

    import frontinus_amphora

    for path in Path(frontinus_amphora.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            for name in names:
                top = name.partition(".")[0]
                assert top == "frontinus_amphora" or top in sys.stdlib_module_names, (path.name, name)
