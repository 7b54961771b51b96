"""The table of everything that can be asked of the API. Routing, metrics and the OpenAPI document follow from it."""

from __future__ import annotations

from collections.abc import Iterator

from frontinus.api import network_compat
from frontinus.api.calls import Handler
from frontinus.api.fields import RESOURCES
from frontinus.api.handlers import (
    amphorae,
    health_monitors,
    l7,
    listeners,
    load_balancers,
    members,
    offers,
    pools,
    quotas,
    system,
)
from frontinus.api.reading import FIELDS, SOURCES, list_all, show
from frontinus.api.routing import Body, Operation, Place
from frontinus.model.enums import Kind

_LBAAS = "/v2/lbaas"
_SELECTABLE = frozenset({FIELDS})


def resource_operations() -> tuple[Operation, ...]:
    """Every operation on the resources of the contract."""
    return (
        *_crud(
            "loadbalancer",
            f"{_LBAAS}/loadbalancers",
            Kind.LOAD_BALANCER,
            create=load_balancers.create,
            update=load_balancers.update,
            delete=load_balancers.delete,
            delete_arguments=frozenset({"cascade"}),
        ),
        *_load_balancer_extras(),
        *_crud(
            "listener",
            f"{_LBAAS}/listeners",
            Kind.LISTENER,
            create=listeners.create,
            update=listeners.update,
            delete=listeners.delete,
        ),
        Operation(
            id="listener.stats",
            method="GET",
            path=f"{_LBAAS}/listeners/{{listener}}/stats",
            handler=listeners.show_statistics,
            summary="Traffic of a listener.",
            arguments=None,
        ),
        *_crud("pool", f"{_LBAAS}/pools", Kind.POOL, create=pools.create, update=pools.update, delete=pools.delete),
        *_crud(
            "member",
            f"{_LBAAS}/pools/{{pool}}/members",
            Kind.MEMBER,
            create=members.create,
            update=members.update,
            delete=members.delete,
        ),
        Operation(
            id="member.batch",
            method="PUT",
            path=f"{_LBAAS}/pools/{{pool}}/members",
            handler=members.update_batch,
            summary="Make a pool's members those of the request; with additive_only, remove none.",
            place=Place.COLLECTION,
            body=Body.REQUIRED,
            arguments=frozenset({"additive_only"}),
            resource="member",
            success=202,
        ),
        *_crud(
            "healthmonitor",
            f"{_LBAAS}/healthmonitors",
            Kind.HEALTH_MONITOR,
            create=health_monitors.create,
            update=health_monitors.update,
            delete=health_monitors.delete,
        ),
        *_crud(
            "l7policy",
            f"{_LBAAS}/l7policies",
            Kind.L7_POLICY,
            create=l7.create_policy,
            update=l7.update_policy,
            delete=l7.delete_policy,
        ),
        *_crud(
            "rule",
            f"{_LBAAS}/l7policies/{{l7_policy}}/rules",
            Kind.L7_RULE,
            create=l7.create_rule,
            update=l7.update_rule,
            delete=l7.delete_rule,
        ),
        *_quota_operations(),
        *_offer_operations(),
        *_amphora_operations(),
    )


def _quota_operations() -> Iterator[Operation]:
    collection = f"{_LBAAS}/quotas"
    item = f"{collection}/{{{Kind.QUOTA}}}"
    one = Place.ITEM
    yield Operation(
        "quota.list",
        "GET",
        collection,
        list_all(Kind.QUOTA),
        "List: projects with a quota of their own.",
        Place.COLLECTION,
        arguments=None,
        resource="quota",
    )
    yield Operation(
        "quota.show", "GET", item, quotas.show, "A project's quota.", one, arguments=_SELECTABLE, resource="quota"
    )
    yield Operation(
        "quota.update",
        "PUT",
        item,
        quotas.update,
        "Set limits of a project.",
        one,
        Body.REQUIRED,
        resource="quota",
        success=202,
    )
    yield Operation("quota.reset", "DELETE", item, quotas.reset, "Let the defaults hold again.", one, success=202)
    for suffix, path in (("", f"{item}/default"), (".of-clients", f"{collection}/defaults")):
        yield Operation(
            f"quota.defaults{suffix}",
            "GET",
            path,
            quotas.show_defaults,
            "The defaults, which projects have without a quota of their own.",
            arguments=_SELECTABLE,
            resource="quota",
        )


def _offer_operations() -> Iterator[Operation]:
    """What an operator offers to choose from, and what providers take in it."""
    for kind in (Kind.FLAVOR_PROFILE, Kind.FLAVOR, Kind.AVAILABILITY_ZONE_PROFILE, Kind.AVAILABILITY_ZONE):
        resource = SOURCES[kind].resource
        yield from _crud(
            resource.item_key,
            f"{_LBAAS}/{resource.segment}",
            kind,
            create=offers.create(kind),
            update=offers.update(kind),
            delete=offers.delete(kind),
        )
    providers = f"{_LBAAS}/providers"
    yield Operation(
        "provider.list",
        "GET",
        providers,
        system.list_providers,
        "Providers that may be asked for.",
        arguments=_SELECTABLE,
    )
    capabilities = (
        ("flavor_capabilities", offers.list_flavor_capabilities, "Keys that it takes in flavor data."),
        (
            "availability_zone_capabilities",
            offers.list_availability_zone_capabilities,
            "Keys that it takes in availability zone data.",
        ),
    )
    for word, handler, summary in capabilities:
        path = f"{providers}/{{provider}}/{word}"
        arguments = _SELECTABLE | {"name", "description"}
        yield Operation(f"provider.{word}", "GET", path, handler, summary, arguments=arguments)


def _amphora_operations() -> Iterator[Operation]:
    collection = "/v2/octavia/amphorae"
    item = f"{collection}/{{{Kind.AMPHORA}}}"
    yield Operation(
        "amphora.list", "GET", collection, list_all(Kind.AMPHORA), "List: amphora.", arguments=None, resource="amphora"
    )
    yield Operation(
        "amphora.show", "GET", item, show(Kind.AMPHORA), "Show: amphora.", arguments=None, resource="amphora"
    )
    yield Operation("amphora.delete", "DELETE", item, amphorae.delete, "Remove an amphora in ERROR.", success=204)
    yield Operation(
        "amphora.stats", "GET", f"{item}/stats", amphorae.show_statistics, "Its traffic by listener.", arguments=None
    )
    orders = (
        ("config", amphorae.push_configuration, "Push its configuration again."),
        ("failover", amphorae.failover, "Replace it."),
    )
    for word, handler, summary in orders:
        yield Operation(f"amphora.{word}", "PUT", f"{item}/{word}", handler, summary, body=Body.OPTIONAL, success=202)


def system_operations() -> tuple[Operation, ...]:
    """Versions and health."""
    versions = {"versions": "/", "versions.v2": "/v2"}
    names = {"version.lbaas": "/v2/lbaas", "version.octavia": "/v2/octavia"}
    return (
        *(
            Operation(id_, "GET", path, system.show_versions, "Versions of the API.", arguments=None, plain=True)
            for id_, path in versions.items()
        ),
        *(
            Operation(id_, "GET", path, system.show_version_name, "The version's name.", arguments=None)
            for id_, path in names.items()
        ),
        *(
            Operation(
                f"healthcheck{suffix}",
                method,
                "/healthcheck",
                system.check_health,
                "Whether the API can work.",
                arguments=None,
                success=204,
                plain=True,
            )
            for method, suffix in (("GET", ""), ("HEAD", ".head"))
        ),
    )


def compat_operations() -> tuple[Operation, ...]:
    """Look-ups of other services' objects that clients send here when there is no catalog."""
    table: tuple[tuple[str, str, Handler], ...] = (
        ("compat.subnets", "/v2/subnets", network_compat.list_subnets),
        ("compat.subnet", "/v2/subnets/{subnet_id}", network_compat.show_subnet),
        ("compat.networks", "/v2/networks", network_compat.list_networks),
        ("compat.network", "/v2/networks/{network_id}", network_compat.show_network),
        ("compat.ports", "/v2/ports", network_compat.list_ports),
        ("compat.security_groups", "/v2/security-groups", network_compat.list_security_groups),
        ("compat.qos_policies", "/v2/qos/policies", network_compat.list_qos_policies),
        ("compat.projects", "/projects", network_compat.list_projects),
        ("compat.project", "/projects/{project_id}", network_compat.show_project),
    )
    return tuple(
        Operation(id_, "GET", path, handler, "Read-only look-up for clients without a catalog.", arguments=None)
        for id_, path, handler in table
    )


def collections_without_lbaas() -> frozenset[str]:
    """Collections that may be asked for directly below the version."""
    nested = {"member", "rule", "amphora"}
    return frozenset(x.segment for x in RESOURCES.values() if x.item_key not in nested) | {"providers"}


def _crud(
    name: str,
    path: str,
    kind: Kind,
    *,
    create: Handler,
    update: Handler,
    delete: Handler,
    delete_arguments: frozenset[str] = frozenset(),
) -> Iterator[Operation]:
    item = f"{path}/{{{kind}}}"
    collection, one = Place.COLLECTION, Place.ITEM
    yield Operation(
        f"{name}.list", "GET", path, list_all(kind), f"List: {name}.", collection, arguments=None, resource=name
    )
    yield Operation(
        f"{name}.create",
        "POST",
        path,
        create,
        f"Create: {name}.",
        collection,
        Body.REQUIRED,
        resource=name,
        success=201,
    )
    yield Operation(f"{name}.show", "GET", item, show(kind), f"Show: {name}.", one, arguments=None, resource=name)
    yield Operation(f"{name}.update", "PUT", item, update, f"Change: {name}.", one, Body.REQUIRED, resource=name)
    yield Operation(
        f"{name}.delete", "DELETE", item, delete, f"Delete: {name}.", one, arguments=delete_arguments, success=204
    )


def _load_balancer_extras() -> Iterator[Operation]:
    item = f"{_LBAAS}/loadbalancers/{{load_balancer}}"
    yield Operation(
        "loadbalancer.stats",
        "GET",
        f"{item}/stats",
        load_balancers.show_statistics,
        "Traffic of a load balancer: the sum of its listeners'.",
        arguments=None,
    )
    for suffix in ("status", "statuses"):
        yield Operation(
            f"loadbalancer.{suffix}",
            "GET",
            f"{item}/{suffix}",
            load_balancers.show_status,
            "Statuses of a load balancer and everything that takes part.",
            arguments=None,
        )
    yield Operation(
        "loadbalancer.receipts",
        "GET",
        f"{item}/receipts",
        load_balancers.show_receipts,
        "What is live on its amphorae, since when, and whether it is what is wanted.",
        arguments=None,
    )
    yield Operation(
        "loadbalancer.failover",
        "PUT",
        f"{item}/failover",
        load_balancers.failover,
        "Replace its amphorae.",
        body=Body.OPTIONAL,
        success=202,
    )
