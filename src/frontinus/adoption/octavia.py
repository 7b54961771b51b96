"""What of an Octavia can be taken over, and what cannot and why. Pure: rows in, values and reasons out.

Ids, projects, names, tags, times and statuses are kept. A load balancer is taken over whole or left alone: with every
object and every amphora, settled, and such that our driver could carry it as it is. Its amphorae are marked as speaking
Octavia's plain protocol and get a receipt, so that nothing is pushed until something is changed. The columns are those of
octavia 19.0's models. Next: insert_headers.py, store/adoption.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import msgspec

from frontinus.adoption.insert_headers import read_insert_headers
from frontinus.adoption.snapshot import Row, Snapshot
from frontinus.model.capabilities import Capabilities, require
from frontinus.model.compatibility import DATAGRAM_LISTENERS
from frontinus.model.enums import AmphoraRole, AmphoraStatus, Kind, ProvisioningStatus, Topology
from frontinus.model.errors import CallerError, FrontinusError, Unsupported
from frontinus.model.ids import AvailabilityZoneProfileId, FlavorId, FlavorProfileId, ProjectId
from frontinus.model.network import check_additional_subnets
from frontinus.model.offers import (
    AvailabilityZone,
    AvailabilityZoneProfile,
    Flavor,
    FlavorProfile,
    placement_of,
    read_availability_zone_data,
    read_flavor_data,
)
from frontinus.model.placement import Placement
from frontinus.model.tree import (
    ADOPTED,
    AdditionalVip,
    Amphora,
    HealthMonitor,
    L7Policy,
    L7Rule,
    Listener,
    LoadBalancer,
    LoadBalancerTree,
    Member,
    Pool,
    Receipt,
    SessionPersistence,
    Vip,
)
from frontinus.model.validation import validate

PROVIDERS = frozenset({"amphora", "octavia", "amphorav2"})
"""The names of Octavia's own provider."""

DRIVER_VERSION = "octavia"
"""What stands in the receipts of amphorae that nobody of us has pushed to."""

RENEWED_BEFORE = timedelta(days=14)
"""How long before the end of an amphora's certificate Octavia renews it (house_keeping.cert_expiry_buffer)."""

_AMPHORAE = {Topology.SINGLE: ["STANDALONE"], Topology.ACTIVE_STANDBY: ["BACKUP", "MASTER"]}
_GONE = frozenset({"DELETED"})
_T = TypeVar("_T")


class LeftAlone(msgspec.Struct, frozen=True, kw_only=True):
    """Something of Octavia's that is not taken over."""

    kind: str
    id: str
    name: str
    reason: str


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is taken over, of which an operator should know more."""

    kind: str
    id: str
    name: str
    text: str


Offer = Flavor | FlavorProfile | AvailabilityZone | AvailabilityZoneProfile


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """`offers` come before who stands on them; `quotas` are the limits of projects, None where the default holds."""

    trees: tuple[LoadBalancerTree, ...]
    offers: tuple[Offer, ...]
    quotas: Mapping[ProjectId, Mapping[Kind, int | None]]
    left_alone: tuple[LeftAlone, ...]
    notes: tuple[Note, ...]


def judge(snapshot: Snapshot, capabilities: Capabilities, identity_digest: str, now: datetime) -> Findings:
    """Every load balancer, amphora, flavor, availability zone and quota that is there, as one or the other.

    `capabilities` are of the drivers that will carry them, `identity_digest` is of Octavia's authorities."""
    trees: list[LoadBalancerTree] = []
    left: list[LeftAlone] = []
    notes: list[Note] = []
    reader = _Reader(snapshot, identity_digest, now)
    for row in snapshot.rows("load_balancer"):
        if row["provisioning_status"] in _GONE:
            continue
        try:
            tree = reader.tree(row)
            validate(tree)
            require(tree, capabilities)
        except (FrontinusError, ValueError) as error:
            left.append(_left("load balancer", row, _in_words(error)))
            continue
        trees.append(tree)
        notes += _notes(tree)
    offers, unoffered = _offers(snapshot, now)
    taken = {x.id for tree in trees for x in tree.amphorae}
    left += [
        _left("amphora", x, f"it is {x['status']} and of no load balancer: remove it in Octavia")
        for x in snapshot.rows("amphora")
        if x["status"] not in _GONE and x["id"] not in taken and x["load_balancer_id"] is None
    ]
    return Findings(
        trees=tuple(trees),
        offers=offers,
        quotas={ProjectId(x["project_id"]): _limits(x) for x in snapshot.rows("quotas")},
        left_alone=(*left, *unoffered),
        notes=tuple(notes),
    )


class _Reader:
    """Rows in groups, so that each tree costs look-ups only."""

    def __init__(self, snapshot: Snapshot, identity_digest: str, now: datetime) -> None:
        self._identity_digest = identity_digest
        self._now = now
        self._of_load_balancer = {
            table: snapshot.by(table, "load_balancer_id")
            for table in ("vip", "additional_vip", "vip_security_group", "amphora", "listener", "pool")
        }
        self._of_listener = {x: snapshot.by(x, "listener_id") for x in ("listener_cidr", "sni", "l7policy")}
        self._of_pool = {x: snapshot.by(x, "pool_id") for x in ("session_persistence", "member", "health_monitor")}
        self._rules = snapshot.by("l7rule", "l7policy_id")
        flavors = {x["id"]: x.get("flavor_data") or "{}" for x in snapshot.rows("flavor_profile")}
        zones = {x["id"]: x.get("availability_zone_data") or "{}" for x in snapshot.rows("availability_zone_profile")}
        self._flavor_data = {x["id"]: flavors[x["flavor_profile_id"]] for x in snapshot.rows("flavor")}
        self._zone_data = {
            x["name"]: zones[x["availability_zone_profile_id"]] for x in snapshot.rows("availability_zone")
        }
        self._tags = {x: [y["tag"] for y in rows] for x, rows in snapshot.by("tags", "resource_id").items()}

    def tree(self, row: Row) -> LoadBalancerTree:
        """Raises Unsupported, Invalid or ValueError saying why it cannot be taken over."""
        if row["provider"] not in (None, *PROVIDERS):
            raise Unsupported("provider", f"it is of the provider {row['provider']}")
        if row["provisioning_status"] != ProvisioningStatus.ACTIVE:
            raise Unsupported(
                "provisioning_status",
                f"it is {row['provisioning_status']}: bring it to ACTIVE in Octavia first",
            )
        load_balancer = self._load_balancer(row)
        pools = self._of_load_balancer["pool"].get(row["id"], [])
        listeners = self._of_load_balancer["listener"].get(row["id"], [])
        policies = [y for x in listeners for y in self._of_listener["l7policy"].get(x["id"], [])]
        of_pools = {
            name: [(x, y) for x in pools for y in rows.get(x["id"], [])] for name, rows in self._of_pool.items()
        }
        persistence = {y["pool_id"]: y for _, y in of_pools["session_persistence"]}
        tree = LoadBalancerTree(
            load_balancer=load_balancer,
            pools=tuple(self._pool(x, persistence.get(x["id"])) for x in pools),
            listeners=tuple(self._listener(x) for x in listeners),
            members=tuple(self._member(x, load_balancer) for _, x in of_pools["member"]),
            health_monitors=tuple(self._health_monitor(x, load_balancer) for _, x in of_pools["health_monitor"]),
            l7_policies=tuple(self._l7_policy(x, load_balancer) for x in policies),
            l7_rules=tuple(self._l7_rule(x, load_balancer) for y in policies for x in self._rules.get(y["id"], [])),
            amphorae=tuple(self._amphorae(load_balancer)),
        )
        unsettled = next((x for x in tree.children() if x.provisioning_status is not ProvisioningStatus.ACTIVE), None)
        if unsettled is not None:
            raise Unsupported(
                "provisioning_status",
                f"its {_spoken(unsettled.kind)} {unsettled.id} is {unsettled.provisioning_status}",
            )
        return tree

    def _load_balancer(self, row: Row) -> LoadBalancer:
        vips = self._of_load_balancer["vip"].get(row["id"], [])
        if len(vips) != 1 or not all(vips[0][x] for x in ("ip_address", "subnet_id", "network_id", "port_id")):
            raise Unsupported("vip", "its VIP lacks an address, a port, a subnet or a network")
        vip = vips[0]
        additional = self._of_load_balancer["additional_vip"].get(row["id"], [])
        # A column that may be NULL in Octavia; the network driver is asked for the ports on it all the same.
        places = [(x["subnet_id"], x["network_id"] or vip["network_id"]) for x in additional]
        check_additional_subnets(_value(Vip, vip, address=vip["ip_address"]), places)
        security_groups = self._of_load_balancer["vip_security_group"].get(row["id"], [])
        return _value(
            LoadBalancer,
            row,
            description=row["description"] or "",
            admin_state_up=row["enabled"],
            vip=_value(Vip, vip, address=vip["ip_address"]),
            # All are on one port, Octavia's or the user's.
            additional_vips=tuple(
                AdditionalVip(
                    address=x["ip_address"],
                    subnet_id=x["subnet_id"],
                    port_id=x["port_id"] or vip["port_id"],
                    port_owned=bool(vip["octavia_owned"]),
                )
                for x in additional
            ),
            vip_qos_policy_id=vip["qos_policy_id"],
            vip_sg_ids=tuple(sorted(x["sg_id"] for x in security_groups)),
            vip_vnic_type=vip["vnic_type"] or "normal",
            vip_port_owned=bool(vip["octavia_owned"]),
            provider="octavia" if row["provider"] == "octavia" else "amphora",
            topology=row["topology"],
            placement=self._placement(row),
            tags=self._tags_of(row),
            generation=1,
            applied_generation=1,
        )

    def _placement(self, row: Row) -> Placement | None:
        """How the next amphorae are to be made. Raises Unsupported and Invalid for data that say nothing that we know."""
        flavor = self._flavor_data.get(row["flavor_id"], "{}")
        zone = self._zone_data.get(row["availability_zone"], "{}")
        return placement_of(
            read_flavor_data(flavor, "flavor_id"), read_availability_zone_data(zone, "availability_zone")
        )

    def _amphorae(self, load_balancer: LoadBalancer) -> Iterator[Amphora]:
        rows = [x for x in self._of_load_balancer["amphora"].get(load_balancer.id, []) if x["status"] not in _GONE]
        serving = sorted(x["role"] or "STANDALONE" for x in rows if x["status"] == AmphoraStatus.ALLOCATED)
        if serving != _AMPHORAE[load_balancer.topology] or len(rows) != len(serving):
            told = ", ".join(sorted(f"{x['role']} {x['status']}" for x in rows)) or "none"
            raise Unsupported(
                "amphora",
                f"its amphorae are not what {load_balancer.topology} takes ({told}): fail it over in Octavia first",
            )
        for row in rows:
            if not row["lb_network_ip"]:
                raise Unsupported("amphora", f"amphora {row['id']} has no address on the management network")
            expires_at = _utc(row["cert_expiration"])
            yield Amphora(
                id=row["id"],
                load_balancer_id=load_balancer.id,
                project_id=load_balancer.project_id,
                status=AmphoraStatus.ALLOCATED,
                role=AmphoraRole(row["role"] or "STANDALONE"),
                compute_id=row["compute_id"],
                management_address=row["lb_network_ip"],
                vrrp_address=row["vrrp_ip"],
                vrrp_port_id=row["vrrp_port_id"],
                vrrp_interface=row["vrrp_interface"],
                speaks_plain=True,
                receipt=Receipt(
                    generation=1,
                    digest="",
                    driver_version=DRIVER_VERSION,
                    applied_at=self._now,
                    action=ADOPTED,
                ),
                identity_digest=self._identity_digest,
                certificate_expires_at=expires_at,
                certificate_renew_at=None if expires_at is None else expires_at - RENEWED_BEFORE,
                # Counts as heard: those that are not any more are found silent when their time is over.
                seen_at=self._now,
                created_at=_utc(row["created_at"]) or self._now,
                updated_at=_utc(row["updated_at"]),
            )

    def _listener(self, row: Row) -> Listener:
        cidrs = self._of_listener["listener_cidr"].get(row["id"], [])
        certificates = sorted(
            self._of_listener["sni"].get(row["id"], []), key=lambda x: (x["position"] or 0, x["tls_container_id"])
        )
        return _value(
            Listener,
            row,
            description=row["description"] or "",
            admin_state_up=row["enabled"],
            tags=self._tags_of(row),
            connection_limit=-1 if row["connection_limit"] is None else row["connection_limit"],
            insert_headers=read_insert_headers(row["insert_headers"]),
            allowed_cidrs=tuple(x["cidr"] for x in cidrs),
            default_tls_container_ref=row["tls_certificate_id"],
            sni_container_refs=tuple(x["tls_container_id"] for x in certificates),
            client_ca_tls_container_ref=row["client_ca_tls_certificate_id"],
            client_crl_container_ref=row["client_crl_container_id"],
            tls_versions=_list(row["tls_versions"]),
            alpn_protocols=_list(row["alpn_protocols"]),
            changed_generation=1,
        )

    def _pool(self, row: Row, persistence: Row | None) -> Pool:
        return _value(
            Pool,
            row,
            description=row["description"] or "",
            admin_state_up=row["enabled"],
            tags=self._tags_of(row),
            session_persistence=None if persistence is None else _value(SessionPersistence, persistence),
            tls_container_ref=row["tls_certificate_id"],
            ca_tls_container_ref=row["ca_tls_certificate_id"],
            crl_container_ref=row["crl_container_id"],
            tls_versions=_list(row["tls_versions"]),
            alpn_protocols=_list(row["alpn_protocols"]),
            changed_generation=1,
        )

    def _member(self, row: Row, of: LoadBalancer) -> Member:
        return _value(
            Member,
            row,
            **self._below(row, of),
            address=row["ip_address"],
            vnic_type=row["vnic_type"] or "normal",
        )

    def _health_monitor(self, row: Row, of: LoadBalancer) -> HealthMonitor:
        return _value(
            HealthMonitor,
            row,
            **self._below(row, of),
            max_retries=row["rise_threshold"],
            max_retries_down=row["fall_threshold"],
        )

    def _l7_policy(self, row: Row, of: LoadBalancer) -> L7Policy:
        return _value(L7Policy, row, **self._below(row, of), description=row["description"] or "")

    def _l7_rule(self, row: Row, of: LoadBalancer) -> L7Rule:
        return _value(L7Rule, row, **self._below(row, of), l7_policy_id=row["l7policy_id"])

    def _below(self, row: Row, of: LoadBalancer) -> dict[str, Any]:
        """What rows lack that hang on a pool, a listener or a policy."""
        return {
            "load_balancer_id": of.id,
            "admin_state_up": row["enabled"],
            "tags": self._tags_of(row),
            "changed_generation": 1,
        }

    def _tags_of(self, row: Row) -> tuple[str, ...]:
        return tuple(sorted(self._tags.get(row["id"], ())))


def _offers(snapshot: Snapshot, now: datetime) -> tuple[tuple[Offer, ...], list[LeftAlone]]:
    """Profiles of Octavia's own provider, and what stands on them."""
    offers: list[Offer] = []
    left: list[LeftAlone] = []
    profiles: list[tuple[str, str, Callable[[Row], Offer], Callable[[Row], Offer]]] = [
        (
            "flavor",
            "flavor_profile",
            lambda x: FlavorProfile(
                id=FlavorProfileId(x["id"]),
                name=x["name"] or "",
                provider_name=x["provider_name"],
                flavor_data=x["flavor_data"],
                created_at=now,
            ),
            lambda x: Flavor(
                id=FlavorId(x["id"]),
                name=x["name"],
                description=x["description"] or "",
                enabled=bool(x["enabled"]),
                flavor_profile_id=FlavorProfileId(x["flavor_profile_id"]),
                created_at=now,
            ),
        ),
        (
            "availability_zone",
            "availability_zone_profile",
            lambda x: AvailabilityZoneProfile(
                id=AvailabilityZoneProfileId(x["id"]),
                name=x["name"] or "",
                provider_name=x["provider_name"],
                availability_zone_data=x["availability_zone_data"],
                created_at=now,
            ),
            lambda x: AvailabilityZone(
                name=x["name"],
                description=x["description"] or "",
                enabled=bool(x["enabled"]),
                availability_zone_profile_id=AvailabilityZoneProfileId(x["availability_zone_profile_id"]),
                created_at=now,
            ),
        ),
    ]
    for table, profile_table, profile_of, offer_of in profiles:
        ours: set[str] = set()
        for row in snapshot.rows(profile_table):
            if row["provider_name"] in PROVIDERS:
                ours.add(row["id"])
                offers.append(profile_of(row))
            elif row["id"].strip("0-"):  # Octavia keeps a row of noughts for what was deleted
                left.append(
                    _left(profile_table.replace("_", " "), row, f"it is of the provider {row['provider_name']}")
                )
        for row in snapshot.rows(table):
            if row[f"{profile_table}_id"] in ours:
                offers.append(offer_of(row))
            elif row["name"] != "DELETED-PLACEHOLDER" and row["name"].strip("0-"):  # what it keeps for deleted ones
                left.append(_left(table.replace("_", " "), row, "it stands on a profile of another provider"))
    return tuple(offers), left


_LIMITS = {
    Kind.LOAD_BALANCER: "load_balancer",
    Kind.LISTENER: "listener",
    Kind.POOL: "pool",
    Kind.MEMBER: "member",
    Kind.HEALTH_MONITOR: "health_monitor",
    Kind.L7_POLICY: "l7policy",
    Kind.L7_RULE: "l7rule",
}


def _limits(row: Row) -> dict[Kind, int | None]:
    return {kind: row[column] for kind, column in _LIMITS.items()}


def _notes(tree: LoadBalancerTree) -> Iterator[Note]:
    load_balancer = tree.load_balancer
    if any(x.protocol in DATAGRAM_LISTENERS for x in tree.listeners):
        yield Note(
            kind="load balancer",
            id=load_balancer.id,
            name=load_balancer.name,
            text="it has UDP listeners, which amphorae of Octavia are not told of by us: its first change replaces them",
        )


def _value(kind: type[_T], row: Row, **given: Any) -> _T:
    """The value with what `given` says, and else what the columns of the same name do; a column that is NULL is as if it were
    not there where the value has a default. Raises ValueError naming the column that does not fit."""
    fields = {x.name: x for x in msgspec.structs.fields(cast("type[msgspec.Struct]", kind))}
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in row and name not in given:
            found = row[name]
            if found is None and not field.required:
                continue
            values[name] = _utc(found) if isinstance(found, datetime) else found
    values.update(given)
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"{kind.__name__.lower()} {row.get('id', '')}: {error}") from error


def _list(text: str | None) -> tuple[str, ...] | None:
    """Octavia keeps such lists as text with commas."""
    return tuple(x for x in text.split(",") if x) if text else None


def _utc(moment: datetime | None) -> datetime | None:
    """Octavia writes UTC without saying so."""
    return None if moment is None else moment.replace(tzinfo=UTC)


def _left(kind: str, row: Row, reason: str) -> LeftAlone:
    return LeftAlone(
        kind=kind, id=str(row.get("id") or row.get("name")), name=str(row.get("name") or ""), reason=reason
    )


def _in_words(error: Exception) -> str:
    if isinstance(error, CallerError):
        of = "" if error.subject is None else f"{_spoken(error.subject.kind)} {error.subject.id}: "
        return (
            f"{of}{error.reason}" if isinstance(error, Unsupported) and not of else f"{of}{error.field}: {error.reason}"
        )
    return str(error)


def _spoken(kind: Kind) -> str:
    return kind.replace("_", " ")
