"""Changes of every kind under a constant load that must not notice (crowd.py).

`KINDS` is the table; a kind is one write of the API, made as often as one likes. `Stage.make` makes it and says how
HAProxy got there and how long that took until it was so in the data plane (sight.py). test_hitless.py asks for no error;
bench/change_latency.py prints figures."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from frontinus.drivers.secret.local.driver import LocalSecrets, LocalSecretsSettings
from frontinus.model.ids import ProjectId

from tests.acceptance.crowd import Crowd
from tests.acceptance.sight import Sight
from tests.acceptance.support import Api, Backend, Installation, free_port, serving, until

APPLIED = re.compile(r"change applied .*?action=(\w+) fallback=(.*?) took_ms=")
LOOK_EVERY_S, ASK_EVERY_S = 0.004, 0.03


def pem(name: str) -> bytes:
    """A fresh certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True)
class Made:
    """One change: HAProxy's action (`none` when nothing had to be pushed), and the time from the API's answer until it
    was so in the data plane, and until the API said ACTIVE. `effect_s` is None when nothing of it is to be seen there."""

    action: str
    effect_s: float | None
    settled_s: float


@dataclass
class Stage:
    """A load balancer with everything that the kinds change, under load. Use as a context."""

    installation: Installation
    api: Api = field(init=False)
    ids: dict[str, str] = field(default_factory=dict)
    crowd: Crowd = field(init=False)
    _ports: set[int] = field(default_factory=set)

    def __enter__(self) -> Self:
        self.api = self.installation.api()
        with ExitStack() as stack:
            self.crowd = stack.enter_context(Crowd())
            *self.backends, self.spare = (
                Backend(f"backend-{n}", port, stop=lambda: None) for n, port in enumerate(self.crowd.ports, 1)
            )
            self._set_up()
            (amphora_id,) = self.installation.amphora_ids()
            self._amphora = self.installation.state_dir / "amphorae" / amphora_id
            self._sight = stack.enter_context(Sight(self._amphora, self.ids["load_balancer"], self.vip))
            self.crowd.begin(
                self.vip,
                web_port=self.web_port,
                tls_port=self.tls_port,
                tcp_port=self.tcp_port,
                udp_port=self.udp_port,
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _set_up(self) -> None:
        self.web_port, self.tcp_port, self.other_port = self._port(), self._port(), self._port()
        load_balancer = self.api.web_load_balancer(self.backends, self.web_port)
        self.vip = load_balancer["vip_address"]
        self.ids = {
            "load_balancer": load_balancer["id"],
            "web": load_balancer["listeners"][0]["id"],
            "pool": load_balancer["pools"][0]["id"],
        }
        # The first network of a listener is structure; another one is content.
        self.api.update(f"listeners/{self.ids['web']}", "listener", allowed_cidrs=["127.0.0.0/8"])
        self.ids["second"] = self._pool("HTTP", self.backends)
        self.ids["third"] = self._pool("HTTP", self.backends)
        self._listener("tcp", "TCP", self.tcp_port, self._pool("TCP", self.backends))
        self._listener("other", "HTTP", self.other_port, self.ids["second"])
        self._create_asked_listener()
        self.create_udp_listener()
        self._create_tls_listener()
        self.create_member()
        self.create_monitor("second")
        self.create_policy("standing", action="REDIRECT_TO_POOL", redirect_pool_id=self.ids["third"])
        self.create_rule("standing")
        self.api.settled(self.ids["load_balancer"])
        serving(self.vip, self.web_port)
        serving(self.vip, self.tcp_port)

    def _pool(self, protocol: str, members: list[Backend]) -> str:
        pool = self.api.create(
            "pools",
            "pool",
            loadbalancer_id=self.ids["load_balancer"],
            protocol=protocol,
            lb_algorithm="ROUND_ROBIN",
        )
        for server in members:
            self.api.create(f"pools/{pool['id']}/members", "member", address="127.0.0.1", protocol_port=server.port)
        return str(pool["id"])

    def _listener(self, name: str, protocol: str, port: int, pool_id: str | None) -> None:
        made = self.api.create(
            "listeners",
            "listener",
            loadbalancer_id=self.ids["load_balancer"],
            protocol=protocol,
            protocol_port=port,
            default_pool_id=pool_id,
        )
        self.ids[name] = made["id"]

    def _port(self) -> int:
        """Free, and never given out before: the kernel may name one that a listener has on the VIP address."""
        port = until(lambda: next((x for x in [free_port()] if x not in self._ports), None), 5, "no port is free")
        assert port is not None
        self._ports.add(port)
        return port

    # ---------------------------------------------------------------- one change

    def make(self, kind: Kind, turn: int) -> Made:
        """Make the change for the `turn`-th time. What has to be there before is made first, and not measured."""
        if kind.before is not None:
            kind.before(self, turn)
            self.api.settled(self.ids["load_balancer"])
        log = self._amphora / "agent.log"
        offset = log.stat().st_size
        certificates_of = (self.tls_port, kind.certificates_of) if kind.certificates_of else None
        last = until(lambda: self._sight.look(certificates_of, datagrams=kind.datagrams), 5, "HAProxy does not answer")
        kind.change(self, turn)
        answered = time.perf_counter()
        in_effect: float | None = None
        asked_at = 0.0

        def look() -> None:
            nonlocal in_effect, last
            seen = self._sight.look(certificates_of, datagrams=kind.datagrams)
            if seen is not None and seen != last:
                last, in_effect = seen, time.perf_counter() - answered

        def applied() -> set[str]:
            with log.open() as file:
                file.seek(offset)
                return {match[1] for match in APPLIED.finditer(file.read())}

        def is_settled() -> bool:
            """Looks often and asks the API seldom, which shares the processor with what is measured."""
            nonlocal asked_at
            look()
            if time.perf_counter() - asked_at < ASK_EVERY_S:
                return False
            status = self.api.load_balancer(self.ids["load_balancer"])["provisioning_status"]
            asked_at = time.perf_counter()
            return bool(status == "ACTIVE") and (not kind.noticed_later or bool(in_effect and applied()))

        until(is_settled, 20, f"{kind.name}: not settled", pause=LOOK_EVERY_S)
        settled = time.perf_counter() - answered
        look()  # it may have come between the last look and the API's answer
        return Made("+".join(sorted(applied())) or "none", in_effect, settled)

    # ---------------------------------------------------------------- what the kinds do

    def update(self, collection: str, key: str, which: str, /, **attributes: object) -> None:
        self.api.update(f"{collection}/{self.ids[which]}", key, **attributes)

    def create_listener(self) -> None:
        self._listener("fresh", "HTTP", self._port(), self.ids["pool"])

    def _create_tls_listener(self) -> None:
        self._secrets = LocalSecrets(LocalSecretsSettings(state_dir=self.installation.state_dir))
        project = self._project()
        self.certificates = [self._secrets.put(pem(f"{x}.example.com"), project) for x in ("one", "two", "three")]
        self.tls_port = self._port()
        made = self.api.create(
            "listeners",
            "listener",
            loadbalancer_id=self.ids["load_balancer"],
            protocol="TERMINATED_HTTPS",
            protocol_port=self.tls_port,
            default_pool_id=self.ids["pool"],
            default_tls_container_ref=self.certificates[0],
        )
        self.ids["tls"] = made["id"]

    def _project(self) -> ProjectId:
        return ProjectId(self.api.load_balancer(self.ids["load_balancer"])["project_id"])

    def renew_certificate(self) -> None:
        """As an operator does: another certificate under the same reference."""
        shown = self.api.show(f"listeners/{self.ids['tls']}", "listener")
        self._secrets.replace(shown["default_tls_container_ref"], pem("renewed.example.com"), self._project())

    def _create_asked_listener(self) -> None:
        """The UDP listener that is under load."""
        self.udp_port = self._port()
        pool = self.ids["asked pool"] = self._pool("UDP", [])
        self.ids["asked members"] = f"pools/{pool}/members"
        for port in self.crowd.datagram_ports:
            self._create_asked_member(port)
        self._listener("asked", "UDP", self.udp_port, pool)

    def _create_asked_member(self, port: int) -> None:
        made = self.api.create(self.ids["asked members"], "member", address="127.0.0.1", protocol_port=port)
        self.ids["asked member"] = made["id"]

    def change_asked_members(self, turn: int) -> None:
        """The one that answers after 20 ms goes, or comes back."""
        if turn % 2 == 0:
            self.api.delete(f"{self.ids['asked members']}/{self.ids['asked member']}")
        else:
            self._create_asked_member(self.crowd.datagram_ports[1])

    def create_udp_listener(self) -> None:
        self._listener("udp", "UDP", self._port(), self._pool("UDP", self.backends))

    def create_prometheus_listener(self) -> None:
        self._listener("metrics", "PROMETHEUS", self._port(), None)

    def create_member(self) -> None:
        members = f"pools/{self.ids['pool']}/members"
        made = self.api.create(members, "member", address="127.0.0.1", protocol_port=self.spare.port)
        self.ids["member"] = made["id"]

    def delete_member(self) -> None:
        self.api.delete(self.member)

    @property
    def member(self) -> str:
        return f"pools/{self.ids['pool']}/members/{self.ids['member']}"

    def update_member(self, **attributes: object) -> None:
        self.api.update(self.member, "member", **attributes)

    def create_monitor(self, pool: str) -> None:
        made = self.api.create(
            "healthmonitors",
            "healthmonitor",
            pool_id=self.ids[pool],
            type="HTTP",
            delay=5,
            timeout=3,
            max_retries=2,
        )
        self.ids[f"monitor of {pool}"] = made["id"]

    def without_monitor(self) -> None:
        monitor_id = self.ids.pop("monitor of third", None)
        if monitor_id is not None:
            self.api.delete(f"healthmonitors/{monitor_id}")

    def with_monitor(self) -> None:
        if "monitor of third" not in self.ids:
            self.create_monitor("third")

    def update_monitor(self, **attributes: object) -> None:
        self.update("healthmonitors", "healthmonitor", "monitor of second", **attributes)

    def create_policy(self, name: str, **attributes: object) -> None:
        made = self.api.create("l7policies", "l7policy", listener_id=self.ids["web"], **attributes)
        self.ids[f"policy {name}"] = made["id"]

    def create_rule(self, policy: str) -> None:
        rules = f"l7policies/{self.ids[f'policy {policy}']}/rules"
        made = self.api.create(rules, "rule", type="PATH", compare_type="STARTS_WITH", value=f"/{policy}")
        self.ids[f"rule of {policy}"] = made["id"]

    def rule_path(self, policy: str) -> str:
        return f"l7policies/{self.ids[f'policy {policy}']}/rules/{self.ids[f'rule of {policy}']}"

    def replace_members(self, turn: int) -> None:
        """The members of the second pool, in one call: one of the three comes or goes."""
        servers = self.backends if turn % 2 else self.backends[:2]
        body = {"members": [{"address": "127.0.0.1", "protocol_port": x.port, "weight": 1 + turn % 2} for x in servers]}
        status, answer = self.api.call("PUT", f"/v2/lbaas/pools/{self.ids['second']}/members", body)
        assert status == 202, (status, answer)


@dataclass(frozen=True)
class Kind:
    """A kind of change. `change` gets the turn, and makes another value of it each time; `reload` says what HAProxy 2.6
    needs for it: `runtime` none, `reload`, or `none` when the amphora has nothing to do."""

    name: str
    action: str
    change: Callable[[Stage, int], object]
    before: Callable[[Stage, int], object] | None = None
    noticed_later: bool = False  # not asked of the API: the controller sees it when it looks
    datagrams: bool = False  # seen by the sockets that datagrams come to
    certificates_of: tuple[str, ...] = ()  # seen by the certificates that are shown to who asks for these names
    taken_back: bool = False  # by the second turn, and what comes after needs that


def _listener(**values: Callable[[int], object]) -> Callable[[Stage, int], object]:
    return lambda stage, turn: stage.update(
        "listeners", "listener", "web", **{key: value(turn) for key, value in values.items()}
    )


def _tls(**values: Callable[[int], object]) -> Callable[[Stage, int], object]:
    return lambda stage, turn: stage.update(
        "listeners", "listener", "tls", **{key: value(turn) for key, value in values.items()}
    )


def _pool(name: str = "pool", **values: Callable[[int], object]) -> Callable[[Stage, int], object]:
    return lambda stage, turn: stage.update(
        "pools", "pool", name, **{key: value(turn) for key, value in values.items()}
    )


def _monitor(**values: Callable[[int], object]) -> Callable[[Stage, int], object]:
    return lambda stage, turn: stage.update_monitor(**{key: value(turn) for key, value in values.items()})


def _member(**values: Callable[[int], object]) -> Callable[[Stage, int], object]:
    return lambda stage, turn: stage.update_member(**{key: value(turn) for key, value in values.items()})


def _policy(**values: Callable[[int], object]) -> Callable[[Stage, int], object]:
    return lambda stage, turn: stage.update(
        "l7policies", "l7policy", "policy standing", **{key: value(turn) for key, value in values.items()}
    )


def _even(one: object, other: object) -> Callable[[int], object]:
    return lambda turn: one if turn % 2 == 0 else other


def _burst(stage: Stage, turn: int) -> None:
    for number in range(20):
        stage.update_member(weight=100 + (turn + number) % 50)


KINDS = (
    Kind("listener: create", "reload", lambda stage, _: stage.create_listener()),
    Kind(
        "listener: delete",
        "reload",
        lambda stage, _: stage.api.delete(f"listeners/{stage.ids['fresh']}"),
        before=lambda stage, _: stage.create_listener(),
    ),
    Kind("listener: create, UDP", "reload", lambda stage, _: stage.create_udp_listener(), datagrams=True),
    Kind(
        "listener: delete, UDP",
        "reload",
        lambda stage, _: stage.api.delete(f"listeners/{stage.ids['udp']}"),
        before=lambda stage, _: stage.create_udp_listener(),
        datagrams=True,
    ),
    Kind(
        "listener: timeout_client_data, UDP",
        "reload",
        lambda stage, turn: stage.update("listeners", "listener", "asked", timeout_client_data=40_000 + turn % 2),
        datagrams=True,
    ),
    Kind(
        "member: delete and create, UDP",
        "reload",
        lambda stage, turn: stage.change_asked_members(turn),
        datagrams=True,
        taken_back=True,
    ),
    Kind("listener: create, PROMETHEUS", "reload", lambda stage, _: stage.create_prometheus_listener()),
    Kind("listener: name, tags", "none", _listener(name=lambda turn: f"web {turn}", tags=lambda turn: [f"t{turn}"])),
    Kind("listener: connection_limit", "runtime", _listener(connection_limit=_even(5_000, 6_000))),
    Kind("listener: timeout_client_data", "reload", _listener(timeout_client_data=_even(51_000, 52_000))),
    Kind("listener: timeout_member_connect", "reload", _listener(timeout_member_connect=_even(5_100, 5_200))),
    Kind("listener: timeout_member_data", "reload", _listener(timeout_member_data=_even(51_000, 52_000))),
    Kind("listener: timeout_tcp_inspect", "reload", _listener(timeout_tcp_inspect=_even(100, 200))),
    Kind("listener: insert_headers", "reload", _listener(insert_headers=_even({"X-Forwarded-For": "true"}, {}))),
    Kind(
        "listener: allowed_cidrs",
        "runtime",
        _listener(allowed_cidrs=_even(["127.0.0.0/8", "10.0.0.0/8"], ["127.0.0.0/8"])),
    ),
    Kind(
        "listener: default_pool_id",
        "reload",
        lambda stage, turn: stage.update(
            "listeners", "listener", "web", default_pool_id=stage.ids["second" if turn % 2 == 0 else "pool"]
        ),
        taken_back=True,
    ),
    Kind(
        "listener: admin_state_up (of another)",
        "reload",
        lambda stage, turn: stage.update("listeners", "listener", "other", admin_state_up=turn % 2 == 1),
        taken_back=True,
    ),
    Kind(
        "TLS listener: default_tls_container_ref",
        "reload",
        lambda stage, turn: stage.update(
            "listeners", "listener", "tls", default_tls_container_ref=stage.certificates[1 - turn % 2]
        ),
    ),
    Kind(
        "TLS listener: certificate renewed in the secret store",
        "runtime",
        lambda stage, _: stage.renew_certificate(),
        noticed_later=True,
        certificates_of=("one.example.com",),
    ),
    Kind(
        "TLS listener: sni_container_refs",
        "runtime",
        lambda stage, turn: stage.update(
            "listeners", "listener", "tls", sni_container_refs=stage.certificates[2:] if turn % 2 == 0 else []
        ),
        certificates_of=("three.example.com",),
    ),
    Kind("TLS listener: tls_versions", "reload", _tls(tls_versions=_even(["TLSv1.2"], ["TLSv1.2", "TLSv1.3"]))),
    Kind("TLS listener: alpn_protocols", "reload", _tls(alpn_protocols=_even(["http/1.1"], ["h2", "http/1.1"]))),
    Kind("TLS listener: hsts_max_age", "reload", _tls(hsts_max_age=_even(3_600, 7_200))),
    Kind("pool: create, not used yet", "none", lambda stage, _: stage.ids.update(fresh=stage._pool("HTTP", []))),
    Kind(
        "pool: delete, not used",
        "none",
        lambda stage, _: stage.api.delete(f"pools/{stage.ids['fresh']}"),
        before=lambda stage, _: stage.ids.update(fresh=stage._pool("HTTP", [])),
    ),
    Kind(
        "pool: lb_algorithm", "reload", _pool(lb_algorithm=_even("LEAST_CONNECTIONS", "ROUND_ROBIN")), taken_back=True
    ),
    Kind(
        "pool: admin_state_up (of another)",
        "reload",
        _pool("third", admin_state_up=_even(False, True)),
        taken_back=True,
    ),
    Kind(
        "pool: persistence by source",
        "reload",
        _pool(session_persistence=_even({"type": "SOURCE_IP"}, None)),
        taken_back=True,
    ),
    Kind(
        "pool: persistence by cookie",
        "reload",
        _pool(session_persistence=_even({"type": "HTTP_COOKIE"}, None)),
        taken_back=True,
    ),
    Kind(
        "pool: persistence by the member's cookie",
        "reload",
        _pool(session_persistence=_even({"type": "APP_COOKIE", "cookie_name": "session"}, None)),
        taken_back=True,
    ),
    Kind(
        "member: create",
        "runtime",
        lambda stage, _: stage.create_member(),
        before=lambda stage, _: stage.delete_member(),
    ),
    Kind(
        "member: delete",
        "runtime",
        lambda stage, turn: stage.api.delete(
            f"pools/{stage.ids['third']}/members/{stage.ids['leaving']}",
        ),
        before=lambda stage, turn: stage.ids.update(
            leaving=stage.api.create(
                f"pools/{stage.ids['third']}/members", "member", address="127.0.0.1", protocol_port=stage.spare.port
            )["id"]
        ),
    ),
    Kind("member: weight", "runtime", _member(weight=lambda turn: 2 + turn)),
    Kind("member: drain and back", "runtime", _member(weight=_even(0, 1)), taken_back=True),
    Kind("member: admin_state_up", "runtime", _member(admin_state_up=_even(False, True)), taken_back=True),
    Kind("member: backup", "reload", _member(backup=_even(True, False)), taken_back=True),
    Kind("member: name", "none", _member(name=lambda turn: f"spare {turn}")),
    Kind("member: replace all in one call", "runtime", lambda stage, turn: stage.replace_members(turn)),
    Kind("member: 20 edits in a row", "runtime", _burst),
    Kind(
        "monitor: create",
        "reload",
        lambda stage, _: stage.create_monitor("third"),
        before=lambda stage, _: stage.without_monitor(),
    ),
    Kind(
        "monitor: delete",
        "reload",
        lambda stage, _: stage.without_monitor(),
        before=lambda stage, _: stage.with_monitor(),
    ),
    Kind("monitor: delay", "reload", _monitor(delay=_even(6, 7))),
    Kind("monitor: timeout", "reload", _monitor(timeout=_even(2, 3))),
    Kind("monitor: max_retries", "reload", _monitor(max_retries=_even(3, 4))),
    Kind("monitor: max_retries_down", "reload", _monitor(max_retries_down=_even(4, 5))),
    Kind("monitor: url_path", "reload", _monitor(url_path=_even("/a", "/b"))),
    Kind("monitor: http_method", "reload", _monitor(http_method=_even("OPTIONS", "HEAD"))),
    Kind("monitor: expected_codes", "reload", _monitor(expected_codes=_even("200-204", "200"))),
    Kind("monitor: admin_state_up", "reload", _monitor(admin_state_up=_even(False, True)), taken_back=True),
    Kind("L7 policy: create", "reload", lambda stage, _: _policy_with_rule(stage)),
    Kind(
        "L7 policy: delete",
        "reload",
        lambda stage, _: stage.api.delete(f"l7policies/{stage.ids['policy fresh']}"),
        before=lambda stage, _: _policy_with_rule(stage),
    ),
    Kind("L7 policy: admin_state_up", "reload", _policy(admin_state_up=_even(False, True)), taken_back=True),
    Kind(
        "L7 policy: action",
        "reload",
        lambda stage, turn: stage.update(
            "l7policies",
            "l7policy",
            "policy standing",
            **(
                {"action": "REDIRECT_TO_URL", "redirect_url": f"http://example.com/{turn}"}
                if turn % 2 == 0
                else {"action": "REDIRECT_TO_POOL", "redirect_pool_id": stage.ids["third"]}
            ),
        ),
        taken_back=True,
    ),
    Kind("L7 rule: create", "reload", lambda stage, _: stage.create_rule("standing")),
    Kind(
        "L7 rule: value",
        "runtime",
        lambda stage, turn: stage.api.update(stage.rule_path("standing"), "rule", value=f"/standing{turn}"),
    ),
    Kind(
        "L7 rule: delete",
        "reload",
        lambda stage, _: stage.api.delete(stage.rule_path("standing")),
        before=lambda stage, _: stage.create_rule("standing"),
    ),
)
"""Left out: admin_state_up and deletion of the load balancer or of what the load uses, whose meaning is to end traffic."""


def _policy_with_rule(stage: Stage) -> None:
    stage.create_policy("fresh", action="REJECT")
    stage.create_rule("fresh")
