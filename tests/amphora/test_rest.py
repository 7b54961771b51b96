"""Who may speak to the agent, the plain protocol's calls, and what malice gets."""

import contextlib
import datetime as dt
import hashlib
import json
import socket
import ssl
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.amphora.world import ADDRESS, SOURCES, Amphora, Controller, Member, Pki, free_port, get, serves, wait_for

pytestmark = pytest.mark.integration

LISTENER, POOL, ONE, TWO = (str(uuid.UUID(int=number)) for number in (1, 3, 11, 12))


# Who


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_controller_is_heard(amphora: Amphora, version: ssl.TLSVersion) -> None:
    assert amphora.controller(version=version).call("GET", "/1.0/info").status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_strangers_are_not(amphora: Amphora, pki: Pki, version: ssl.TLSVersion) -> None:
    for client in (None, pki.foreigner):
        with pytest.raises(OSError):  # noqa: PT011 - reset or TLS alert, as the version has it
            Controller(amphora.port, pki, client, version).call("GET", "/1.0/info")
    answer = amphora.controller(pki.impostor, version=version).call("GET", "/1.0/info")
    assert (answer.status, answer.json["http_code"]) == (403, 403)
    assert amphora.controller().call("GET", "/1.0/info").status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_is_good_for_one_thing(amphora: Amphora, pki: Pki, version: ssl.TLSVersion) -> None:
    """Of the right authority and under the controller's own name: for serving, or ended a minute ago."""
    controller = "controller.frontinus"
    for client in (
        pki.client_ca.issue("server", controller, usage=ExtendedKeyUsageOID.SERVER_AUTH),
        pki.client_ca.issue("expired", controller, ends=dt.timedelta(minutes=-1)),
    ):
        with pytest.raises(OSError):  # noqa: PT011 - reset or TLS alert, as the version has it
            Controller(amphora.port, pki, client, version).call("GET", "/1.0/info")
    good = pki.client_ca.issue("good", controller, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    assert amphora.controller(good, version=version).call("GET", "/1.0/info").status == 200


def test_another_amphora_is_no_controller(amphora: Amphora, pki: Pki) -> None:
    """Neither with what it serves under, nor if it got one for asking under its own name."""
    other = str(uuid.uuid4())
    of_other = pki.client_ca.issue("other-amphora", other, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    for path in ("/1.0/info", f"/frontinus/1/loadbalancer/{amphora.load_balancer_id}"):
        assert amphora.controller(of_other).call("GET", path).status == 403
    serving = pki.server_ca.issue("other-serving", other, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    with pytest.raises(OSError):  # noqa: PT011 - as above
        Controller(amphora.port, pki, serving).call("GET", "/1.0/info")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(amphora: Amphora, pki: Pki, version: ssl.TLSVersion) -> None:
    with pytest.raises(ssl.SSLError) as refused:
        Controller(amphora.port, pki, pki.client, version).call("GET", "/1.0/info")
    assert refused.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION", "the agent itself says so"


def test_silent_strangers_do_not_block_the_controller(amphora: Amphora) -> None:
    strangers = [socket.create_connection((ADDRESS, amphora.port)) for _ in range(20)]
    try:
        assert amphora.controller().call("GET", "/1.0/info").status == 200
    finally:
        for stranger in strangers:
            stranger.close()


def test_strangers_in_any_number_do_not_lock_the_controller_out(amphora: Amphora) -> None:
    with contextlib.ExitStack() as strangers:
        for _ in range(300):
            strangers.enter_context(socket.create_connection((ADDRESS, amphora.port)))
        assert amphora.controller().call("GET", "/1.0/info").status == 200


def test_idle_connection_is_closed(new_amphora: Callable[..., Amphora]) -> None:
    amphora = new_amphora(extra="idle_timeout = 0.2")
    controller = amphora.controller()
    controller.call("GET", "/")
    with controller.context.wrap_socket(socket.create_connection((ADDRESS, amphora.port))) as idle:
        idle.settimeout(5.0)
        assert idle.recv(1) == b""


def test_certificate_is_replaced_for_later_handshakes(amphora: Amphora, pki: Pki) -> None:
    controller = amphora.controller()
    fresh = pki.server_ca.issue_pem(amphora.id)
    broken = (
        fresh.split(b"-----BEGIN EC PRIVATE KEY-----")[0]
        + b"-----BEGIN EC PRIVATE KEY-----"
        + (pki.server_ca.issue_pem(amphora.id).split(b"-----BEGIN EC PRIVATE KEY-----")[1])
    )
    before = amphora.server_cert.read_bytes()
    for bad in (b"", b"nonsense", broken):
        assert controller.call("PUT", "/1.0/certificate", bad).status == 400
        assert amphora.server_cert.read_bytes() == before
    assert controller.call("PUT", "/1.0/certificate", fresh).status == 202
    with controller.context.wrap_socket(socket.create_connection((ADDRESS, amphora.port))) as later:
        seen = later.getpeercert(binary_form=True)
    assert seen == ssl.PEM_cert_to_DER_cert(fresh.decode().split("-----BEGIN EC")[0])
    assert amphora.server_cert.stat().st_mode & 0o777 == 0o600


def test_identity_is_replaced_as_a_whole_or_not_at_all(amphora: Amphora, pki: Pki) -> None:
    controller, ca_file = amphora.controller(), amphora.client_ca
    path, fresh = "/frontinus/1/identity", pki.server_ca.issue_pem(amphora.id).decode()
    trusted, before = ca_file.read_text(), (amphora.server_cert.read_bytes(), ca_file.read_bytes())
    bad: list[object] = [
        {},
        [],
        {"certificate": fresh},
        {"certificate": fresh, "client_ca": ""},
        {"certificate": fresh, "client_ca": "nonsense"},
        {"certificate": "nonsense", "client_ca": trusted},
        {"certificate": 1, "client_ca": trusted},
        {"certificate": fresh, "client_ca": trusted, "more": ""},
        {"certificate": fresh, "client_ca": trusted, "heartbeat_key": ""},
        {"certificate": fresh, "client_ca": trusted, "heartbeat_key": "k\n[frontinus]"},
        {"certificate": fresh, "client_ca": trusted, "heartbeat_key": 5},
    ]
    for body in bad:
        assert controller.call("PUT", path, json.dumps(body).encode()).status == 400, body
        assert (amphora.server_cert.read_bytes(), ca_file.read_bytes()) == before, body
        assert not list(ca_file.parent.glob("*.new")), body
    only_another = {"certificate": fresh, "client_ca": pki.server_ca.path.read_text()}
    assert controller.call("PUT", path, json.dumps(only_another).encode()).status == 200
    assert controller.call("GET", "/").status == 200, "connections that are there go on"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        amphora.controller().call("GET", "/")


# What


def test_discovery(amphora: Amphora) -> None:
    controller = amphora.controller()
    for path in ("/", "//"):
        answer = controller.call("GET", path)
        assert (answer.status, answer.json) == (200, {"api_version": "1.0"})
    extension = controller.call("GET", "/frontinus").json
    assert extension["extension"] == 1
    features = [
        "apply",
        "state",
        "heartbeat-envelope",
        "files",
        "prepared",
        "identity",
        "identity-heartbeat-key",
        "memory",
        "fence",
        "shut",
        "nginx",
        "datagrams",
        "vrrp",
    ]
    assert extension["features"] == features
    assert controller.call("GET", "/1.0/info").json["haproxy_version"] == extension["haproxy_version"]
    assert extension["haproxy_version"].split(".")[0].isdecimal()


def test_plain_life_of_a_load_balancer(amphora: Amphora, members: list[Member]) -> None:
    """What a plain controller does: upload, reload, upload again, reload, delete."""
    lb, port = amphora.load_balancer_id, free_port()
    text = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    controller = amphora.controller()
    assert controller.call("PUT", f"/1.0/loadbalancer/{lb}/reload").status == 404
    uploaded = controller.call("PUT", f"/1.0/loadbalancer/{amphora.id}/{lb}/haproxy", text)
    assert (uploaded.status, uploaded.json) == (202, {"message": "OK"})
    assert uploaded.headers["ETag"] == hashlib.md5(text.encode()).hexdigest()
    assert amphora.haproxies() == []
    assert controller.call("PUT", f"/1.0/loadbalancer/{lb}/reload").status == 202
    assert get(port) == "one"
    other = amphora.render({LISTENER: port}, {TWO: members[1].port}, pool_id=POOL)
    assert controller.call("PUT", f"/1.0/loadbalancer/{amphora.id}/{lb}/haproxy", f"{other}group x\n").status == 202
    assert get(port) == "one"
    assert controller.call("PUT", f"/1.0/loadbalancer/{lb}/reload").status == 202
    assert get(port) == "two"
    assert controller.call("GET", f"/1.0/loadbalancer/{lb}/haproxy").body.decode() == other
    assert controller.call("GET", "/1.0/listeners").json == [{"status": "ACTIVE", "uuid": LISTENER, "type": "HTTP"}]
    details = controller.call("GET", "/1.0/details").json
    assert (details["haproxy_count"], details["listeners"]) == (1, [LISTENER])
    assert details["memory"]["total"] > 0
    assert details["cpu_count"] > 0
    refused = controller.call("PUT", f"/1.0/loadbalancer/{amphora.id}/{lb}/haproxy", "nonsense\n")
    assert (refused.status, refused.json["message"]) == (400, "Invalid request")
    assert controller.call("PUT", f"/1.0/loadbalancer/{lb}/restart").status == 400
    for _ in range(2):
        assert controller.call("DELETE", f"/1.0/listeners/{lb}").status == 200
    assert serves(port) is None
    assert amphora.haproxies() == []
    assert [path.name for path in amphora.base.iterdir() if lb in path.name] == []
    assert controller.call("GET", f"/1.0/loadbalancer/{lb}/haproxy").status == 404


def test_upload_not_yet_loaded_is_not_unchanged(amphora: Amphora, members: list[Member]) -> None:
    lb, port = amphora.load_balancer_id, free_port()
    one = amphora.render({LISTENER: port}, {ONE: members[0].port}, pool_id=POOL)
    two = amphora.render({LISTENER: port}, {TWO: members[1].port}, pool_id=POOL)
    controller = amphora.controller()
    controller.apply(lb, one)
    controller.call("PUT", f"/1.0/loadbalancer/{amphora.id}/{lb}/haproxy", two)
    answer = controller.apply(lb, two)
    assert (answer.status, answer.json["action"]) == (200, "reload")
    assert get(port) == "two"


def test_certificates_come_and_go(amphora: Amphora) -> None:
    path = f"/1.0/loadbalancer/{amphora.load_balancer_id}/certificates"
    controller = amphora.controller()
    missing = controller.call("GET", f"{path}/a-b_1.pem")
    assert (missing.status, missing.headers["Content-Type"]) == (404, "application/json")
    digest = hashlib.md5(b"PEM").hexdigest()
    assert controller.call("PUT", f"{path}/a-b_1.pem", b"PEM").headers["ETag"] == digest
    assert controller.call("GET", f"{path}/a-b_1.pem").json == {"md5sum": digest}
    assert (amphora.certificates / amphora.load_balancer_id / "a-b_1.pem").read_bytes() == b"PEM"
    for _ in range(2):
        assert controller.call("DELETE", f"{path}/a-b_1.pem").status == 200
    assert controller.call("GET", f"{path}/a-b_1.pem").status == 404


def test_configuration_push_keeps_our_section(amphora: Amphora, pki: Pki) -> None:
    controller = amphora.controller()
    plain = amphora.text.partition("[frontinus]")[0]
    assert controller.call("PUT", "/1.0/config", plain).status == 202
    assert "controller_identity = controller.frontinus" in amphora.config.read_text()
    refused = controller.call("PUT", "/1.0/config", amphora.text + "surprise = 1\n")
    assert (refused.status, "surprise" in refused.json["details"]) == (500, True)
    amphora.kill()
    amphora.start()
    assert amphora.controller(pki.impostor).call("GET", "/").status == 403


def test_network_is_somebody_elses(new_amphora: Callable[..., Amphora]) -> None:
    vip = json.dumps({"subnet_cidr": "127.0.0.0/8", "gateway": None, "mac_address": "02:00:00:00:00:01"})
    amphora = new_amphora()
    controller = amphora.controller()
    assert controller.call("POST", f"/1.0/plug/vip/{ADDRESS}", vip).status == 202
    assert controller.call("POST", "/1.0/plug/vip/nonsense", vip).status == 400
    assert controller.call("POST", f"/1.0/plug/vip/{ADDRESS}", "{}").json["http_code"] == 400
    assert controller.call("POST", "/1.0/plug/network", vip).status == 202
    assert controller.call("GET", f"/1.0/interface/{ADDRESS}").json == {"message": "OK", "interface": "lo"}
    assert controller.call("GET", "/1.0/interface/192.0.2.1").status == 404
    assert controller.call("GET", "/1.0/interface/300.0.0.1").status == 400
    for method, path in (
        ("PUT", f"/1.0/listeners/{amphora.id}/{LISTENER}/udp_listener"),
        ("PUT", f"/1.0/interface/{ADDRESS}/rules"),
    ):
        answer = controller.call(method, path, "x")
        assert (answer.status, answer.json["http_code"]) == (500, 501), path
        assert "needs" in answer.json["details"]
    unmanaged = new_amphora(extra="")
    unmanaged.kill()
    unmanaged.config.write_text(unmanaged.text.replace("network = none", ""))
    assert unmanaged.start().controller().call("POST", f"/1.0/plug/vip/{ADDRESS}", vip).status == 500


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("PUT", "/1.0/loadbalancer/{lb}/certificates/..%2f..%2fx.pem", 400),
        ("PUT", "/1.0/loadbalancer/{lb}/certificates/..", 400),
        ("PUT", "/1.0/loadbalancer/{lb}/certificates/a.pem.sh", 400),
        ("PUT", "/1.0/loadbalancer/{lb}/certificates/.pem", 400),
        ("DELETE", "/1.0/loadbalancer/{lb}/certificates/x.pem%00", 400),
        ("PUT", "/1.0/loadbalancer/{lb}/certificates/../../agent.pem", 404),
        ("PUT", "/1.0/loadbalancer/../certificates/a.pem", 404),
        ("GET", "/1.0/loadbalancer/..%2f..%2fetc/haproxy", 404),
        ("DELETE", "/1.0/listeners/..", 404),
        ("PUT", "/frontinus/1/loadbalancer/{lb}/../x", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/1.0/listeners/{lb}", 405),
        ("POST", "/1.0/info", 405),
    ],
)
def test_paths_out_of_bounds(amphora: Amphora, method: str, path: str, status: int) -> None:
    before = things(amphora)
    answer = amphora.controller().call(method, path.replace("{lb}", amphora.load_balancer_id), b"x")
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json")
    assert things(amphora) == before


def things(amphora: Amphora) -> list[str]:
    """Every file but the ones that the agent is writing this moment."""
    return sorted(str(path) for path in amphora.directory.rglob("*") if path.suffix != ".tmp")


def test_malformed_requests_get_an_answer_and_hurt_nobody(amphora: Amphora) -> None:
    controller = amphora.controller()
    assert controller.call("PUT", "/1.0/config", b"\xff\xfe").status == 500
    upload = f"/1.0/loadbalancer/{amphora.id}/{amphora.load_balancer_id}/haproxy"
    assert controller.call("PUT", upload, b"\xff\xfe").status == 400
    assert controller.call("PUT", f"/frontinus/1/loadbalancer/{amphora.load_balancer_id}", "[" * 100_000).status == 400
    assert controller.call("PUT", upload, b"x" * ((32 << 20) + 1)).status == 413
    controller.close()
    for raw, status in (
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"505"),
        (b"PUT /1.0/config HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"PUT /1.0/config HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n", b"431"),
    ):
        with controller.context.wrap_socket(socket.create_connection((ADDRESS, amphora.port))) as connection:
            connection.settimeout(5)
            connection.sendall(raw)
            assert connection.recv(65536).split(b" ")[1] == status, raw[:40]
    assert "Traceback" not in amphora.log.read_text()
    assert controller.call("GET", "/").status == 200


def test_nothing_secret_in_the_log(amphora: Amphora, members: list[Member]) -> None:
    controller = amphora.controller()
    text = amphora.render({LISTENER: free_port()}, {ONE: members[0].port}, pool_id=POOL)
    controller.apply(amphora.load_balancer_id, text)
    wait_for(lambda: "change applied" in amphora.log.read_text())
    assert "insecure" not in amphora.log.read_text()


@pytest.mark.parametrize(
    "text, told",
    [
        pytest.param("[frontinus]\nsurprise = 1\n", "surprise", id="unknown key of ours"),
        pytest.param("[amphora_agent]\namphora_id = x\n", "amphora_id", id="no amphora"),
        pytest.param("nonsense", "INI", id="no INI"),
    ],
)
def test_bad_configuration_file_is_explained(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "agent.conf"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "frontinus_amphora", "--config", str(path)],
        env={"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_vrrp_that_makes_no_sense_changes_nothing(amphora: Amphora) -> None:
    """Least of all what the machine's kernel lets programs listen on."""
    before = Path("/proc/sys/net/ipv4/ip_nonlocal_bind").read_text()
    controller = amphora.controller()
    answer = controller.call("PUT", "/1.0/vrrp/upload", "nonsense")
    assert (answer.status, answer.json["message"]) == (400, "Invalid request")
    assert controller.call("PUT", "/1.0/vrrp/start").status == 404
    assert controller.call("PUT", "/1.0/vrrp/stop").status == 202
    assert Path("/proc/sys/net/ipv4/ip_nonlocal_bind").read_text() == before
