"""Load balancers: create (with everything below in one call), update, delete, failover, status tree, statistics."""

from __future__ import annotations

import structlog
from msgspec.structs import replace
from starlette.responses import Response

from frontinus.api import whole_tree
from frontinus.api.calls import Call, empty_response, json_response
from frontinus.api.changes import Edit, change, look_for_room, not_found, require_room
from frontinus.api.choices import Choices, hold_choices, read_choices, refuse_network, refuse_switched_off_vip
from frontinus.api.commits import commit
from frontinus.api.etags import object_response
from frontinus.api.fields import LOAD_BALANCER
from frontinus.api.handlers.references import (
    port_references,
    require_secrets_of_tree,
    require_subnets,
    tenant_of,
    vip_references,
)
from frontinus.api.honour import require_honoured
from frontinus.api.placing import capabilities_for, capabilities_of, place
from frontinus.api.rendering import (
    render_object,
    render_receipt,
    render_statistics,
    render_status_tree,
    render_whole_tree,
)
from frontinus.api.requests import Asked, Operation, decode, parse_body
from frontinus.api.wire_types import lenient_boolean
from frontinus.api.written import Written
from frontinus.model import edits
from frontinus.model.cohorts import CohortName
from frontinus.model.enums import Kind
from frontinus.model.errors import Conflict, FrontinusError, Invalid, Unconfirmed, Unsupported
from frontinus.model.heartbeat import Counters
from frontinus.model.house_rules import check_house_rules
from frontinus.model.ids import LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId, new_id
from frontinus.model.network import VipRequest
from frontinus.model.receipts import receipts_of
from frontinus.model.tree import LoadBalancer, LoadBalancerTree, Vip
from frontinus.model.validation import check_allowed_cidrs, validate, validate_load_balancer
from frontinus.store import amphorae, cohorts, listing, providers, statistics, trees
from frontinus.store.engine import Transaction

log = structlog.get_logger(__name__)


async def create(call: Call) -> Response:
    """Judge everything that can be judged without an address, get the address, write the tree."""
    api = call.api
    asked = parse_body(LOAD_BALANCER, Operation.CREATE, call.body)
    request = _vip_request(asked)
    refuse_switched_off_vip(request, api.settings)

    def judge(tx: Transaction) -> tuple[LoadBalancerTree, Choices, CohortName | None]:
        choices = read_choices(tx, api.settings, asked, lambda x: capabilities_of(tx, api, x).foreign is not None)
        load_balancer = choices.applied(_new_load_balancer(asked, call))
        sriov_members = bool(choices.flavor.allow_member_sriov)
        wanted = whole_tree.new_tree(
            asked, load_balancer, load_balancer.created_at, api.settings.defaults, sriov_members=sriov_members
        )
        validate(wanted)
        check_house_rules(None, wanted, api.settings.house_rules)
        capabilities, cohort = place(tx, api, choices.provider)
        choices.require(capabilities)
        require_honoured(wanted, capabilities)
        look_for_room(tx, call, wanted)
        return wanted, choices, cohort

    wanted, choices, cohort = await api.store.read(judge)
    project_id = wanted.load_balancer.project_id
    await api.network.require_access(tenant_of(call, project_id), vip_references(request, wanted.load_balancer))
    await _require_network(call, request, choices)
    await require_subnets(call, project_id, whole_tree.asked_members(asked))
    await require_secrets_of_tree(call, wanted)
    policy_given = "vip_qos_policy_id" in asked.given
    return await _store_with_vip(call, wanted, request, choices, cohort, policy_given=policy_given)


async def _require_network(call: Call, request: VipRequest, choices: Choices) -> None:
    """Refuse a network on which no VIP may be, where that can be known before an address is taken."""
    network_id = request.network_id
    if network_id is None and request.subnet_id is not None and request.port_id is None:
        settings = call.api.settings
        if choices.zone.valid_vip_networks is None and not (
            settings.valid_vip_networks or settings.denylist_vip_networks
        ):
            return
        network_id = (await call.api.network.get_subnet(request.subnet_id)).network_id
    if network_id is not None:
        refuse_network(network_id, choices, call.api.settings)


async def _store_with_vip(
    call: Call,
    wanted: LoadBalancerTree,
    request: VipRequest,
    choices: Choices,
    cohort: CohortName | None,
    *,
    policy_given: bool,
) -> Response:
    """Get the addresses and write the tree. The addresses are given back if it is certain that it was not stored."""
    network = call.api.network
    load_balancer = wanted.load_balancer
    get_vip = network.preview_vip if call.dry_run else network.allocate_vip
    allocated = await get_vip(load_balancer.id, load_balancer.project_id, request)
    try:
        tree = replace(
            wanted,
            load_balancer=replace(
                load_balancer,
                vip=allocated.vip,
                vip_port_owned=allocated.port_owned,
                additional_vips=allocated.additional,
                # Of a port that was brought its policy is the VIP's, unless another was asked for, or none.
                vip_qos_policy_id=load_balancer.vip_qos_policy_id if policy_given else allocated.qos_policy_id,
            ),
        )
        if len(allocated.additional) != len(request.additional):
            raise Unsupported("load_balancer.additional_vips", "the network gives a load balancer one address")
        refuse_network(allocated.vip.network_id, choices, call.api.settings)
        validate_load_balancer(tree.load_balancer)
        for listener in tree.listeners:
            check_allowed_cidrs(listener, tree.load_balancer)

        def work(tx: Transaction) -> Written:
            hold_choices(tx, tree.load_balancer)
            require_room(tx, call, None, tree)
            trees.create_tree(tx, tree, cohort)
            shown = render_object(tree, tree.load_balancer)
            return Written(answer=object_response(LOAD_BALANCER, shown, 201, body=render_whole_tree(tree)), after=tree)

        return await commit(call, work)
    except Unconfirmed:
        raise  # a load balancer may have the address now; if none has, the sweeper gives it back
    except Exception:  # whatever happened. Who is cancelled leaves it to the sweeper too: its commit may be on its way
        if call.dry_run:
            raise
        try:
            await network.release_vip(
                load_balancer.id,
                allocated.vip,
                port_owned=allocated.port_owned,
                additional=allocated.additional,
            )
        except FrontinusError as error:
            # The sweeper gives it back later; what went wrong first is what the caller shall read.
            log.warning("vip not released", load_balancer_id=load_balancer.id, reason=str(error))
        raise


def _new_load_balancer(asked: Asked, call: Call) -> LoadBalancer:
    """With addresses that are only what was asked for; the network decides later."""
    extra = asked.extra
    project_id = extra.get("tenant_id") or extra.get("project_id") or call.identity.project_id
    if not project_id:
        raise Invalid(f"{asked.path}.project_id", "is required, since the token has no project")
    return LoadBalancer(
        id=LoadBalancerId(new_id()),
        project_id=ProjectId(project_id),
        vip=Vip(
            address=extra["vip_address"] or "",
            subnet_id=SubnetId(extra["vip_subnet_id"] or ""),
            network_id=NetworkId(extra["vip_network_id"] or ""),
            port_id=PortId(extra["vip_port_id"] or ""),
        ),
        created_at=call.api.clock(),
        **asked.values,
    )


def _vip_request(asked: Asked) -> VipRequest:
    extra = asked.extra
    if not (extra["vip_port_id"] or extra["vip_network_id"] or extra["vip_subnet_id"]):
        raise Invalid(f"{asked.path}.vip_subnet_id", "one of vip_port_id, vip_network_id and vip_subnet_id is required")
    return VipRequest(
        address=extra["vip_address"],
        subnet_id=extra["vip_subnet_id"],
        network_id=extra["vip_network_id"],
        port_id=extra["vip_port_id"],
        additional=asked.values["additional_vips"],
    )


async def update(call: Call) -> Response:
    api = call.api
    asked = parse_body(LOAD_BALANCER, Operation.UPDATE, call.body)
    await _require_port_references(call, asked)
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        after = edits.update_load_balancer(tree, replace(tree.load_balancer, **asked.values), now)
        return Edit(after=after, subject=tree.load_balancer)

    def answer(tree: LoadBalancerTree) -> Response:
        return object_response(LOAD_BALANCER, render_object(tree, tree.load_balancer))

    return await change(call, Kind.LOAD_BALANCER, _id(call), edit, answer)


async def _require_port_references(call: Call, asked: Asked) -> None:
    """What the change names of the network must be the project's to use."""
    named = port_references(asked.values.get("vip_sg_ids") or (), asked.values.get("vip_qos_policy_id"))
    if not named:
        return
    found = await call.api.store.read(lambda tx: listing.get_load_balancer(tx, _id(call)))
    if found is not None:
        await call.api.network.require_access(tenant_of(call, found.value.project_id), named)


async def delete(call: Call) -> Response:
    api = call.api
    cascade = lenient_boolean(call.argument("cascade") or "")
    now = api.clock()

    def edit(tree: LoadBalancerTree) -> Edit:
        wanted = tree.wanted()
        if not cascade and (wanted.listeners or wanted.pools):
            raise Invalid("load_balancer", "it has listeners or pools; delete them first, or ask with cascade=true")
        if tree.load_balancer.deletion_protection:
            raise Conflict("load_balancer.deletion_protection", "is true; set it to false first, then delete")
        after = edits.delete_load_balancer(tree, now)
        return Edit(after=after, subject=tree.load_balancer, removes=True, error_is_fine=True)

    return await change(call, Kind.LOAD_BALANCER, _id(call), edit, lambda _: empty_response(204))


async def failover(call: Call) -> Response:
    api = call.api
    if call.body:
        decode(call.body)
    now = api.clock()

    def mark(tx: Transaction) -> None:
        found = listing.get_load_balancer(tx, _id(call))
        if found is None:
            raise not_found(Kind.LOAD_BALANCER, _id(call))
        foreign = capabilities_for(tx, api, found.value).foreign
        if foreign is None:
            amphorae.request_replacement_of_all(tx, _id(call), now)
        elif foreign.fails_over:
            providers.request_failover(tx, _id(call), now)
        else:
            raise Unsupported("load_balancer", f"the provider {found.value.provider} does no failovers")

    def edit(tree: LoadBalancerTree) -> Edit:
        after = edits.request_failover(tree, now)
        return Edit(
            after=after,
            subject=tree.load_balancer,
            removes=True,
            error_is_fine=True,
            replaced=tuple(x.id for x in tree.amphorae),
            also=mark,
        )

    return await change(call, Kind.LOAD_BALANCER, _id(call), edit, lambda _: empty_response(202))


async def show_status(call: Call) -> Response:
    tree = await call.api.store.read(lambda tx: trees.read_tree(tx, _id(call)))
    if tree is None:
        raise not_found(Kind.LOAD_BALANCER, _id(call))
    return json_response({"statuses": {LOAD_BALANCER.item_key: render_status_tree(tree)}})


async def show_statistics(call: Call) -> Response:
    def work(tx: Transaction) -> Counters:
        if listing.get_load_balancer(tx, _id(call)) is None:
            raise not_found(Kind.LOAD_BALANCER, _id(call))
        return statistics.load_balancer_statistics(tx, _id(call))

    return json_response({"stats": render_statistics(await call.api.store.read(work))})


async def show_receipts(call: Call) -> Response:
    """What is live on each amphora, and whether it is what is wanted."""

    def read(tx: Transaction) -> tuple[LoadBalancerTree | None, CohortName | None]:
        return trees.read_tree(tx, _id(call)), cohorts.of(tx, _id(call))

    tree, cohort = await call.api.store.read(read)
    if tree is None:
        raise not_found(Kind.LOAD_BALANCER, _id(call))
    return json_response({"receipts": [render_receipt(x) for x in receipts_of(tree, cohort)]})


def _id(call: Call) -> LoadBalancerId:
    return LoadBalancerId(call.params[Kind.LOAD_BALANCER])
