"""The attributes of a load balancer."""

from __future__ import annotations

from operator import attrgetter

from frontinus.api.fields.rows import (
    NOTHING,
    Field,
    Resource,
    Rule,
    admin_state_up_row,
    children,
    description_row,
    filter_only,
    identity_rows,
    name_row,
    read_only,
    stored,
    tags_row,
)
from frontinus.api.wire_types import (
    AdditionalVips,
    Address,
    Boolean,
    Choice,
    Text,
    Texts,
    Uuid,
    WireType,
)
from frontinus.model.enums import (
    Kind,
    Topology,
    VnicType,
)


def _project_of_load_balancer() -> tuple[Field, ...]:
    return tuple(
        Field(
            wire=wire,
            attribute=wire,
            type=Text(36),
            doc="Whose it is. By default the project of the caller. tenant_id wins when both are sent.",
            create=Rule(),
            part=False,
            read=lambda value, _: value.project_id,
            column=column,
        )
        for wire, column in (("project_id", "project_id"), ("tenant_id", None))
    )


def _vip(wire: str, attribute: str, type_: WireType, doc: str) -> Field:
    part = attrgetter(f"vip.{attribute}")
    return Field(
        wire=wire,
        attribute=wire,
        type=type_,
        doc=doc,
        create=Rule(None, None),
        part=False,
        read=lambda value, _: part(value),
        column=wire,
    )


LOAD_BALANCER = Resource(
    kind=Kind.LOAD_BALANCER,
    item_key="loadbalancer",
    collection_key="loadbalancers",
    fields=(
        name_row(),
        description_row(),
        admin_state_up_row(),
        _vip("vip_address", "address", Address(), "The virtual address; by default the network gives one."),
        _vip("vip_port_id", "port_id", Uuid(), "A port that holds the address."),
        _vip("vip_subnet_id", "subnet_id", Uuid(), "The subnet of the address. Port, network or subnet is required."),
        _vip("vip_network_id", "network_id", Uuid(), "The network of the address."),
        stored(
            "vip_qos_policy_id",
            Uuid(),
            "A QoS policy for the VIP's port.",
            create=Rule(None, None),
            update=Rule(null=None),
        ),
        stored(
            "vip_sg_ids",
            Texts(Uuid()),
            "Security groups of the VIP's port.",
            create=Rule((), ()),
            update=Rule(null=()),
            column=False,
            since="2.29",
        ),
        stored(
            "additional_vips",
            AdditionalVips(),
            "Further addresses, each on a subnet of its own.",
            create=Rule(()),
            column=False,
            since="2.26",
        ),
        *_project_of_load_balancer(),
        children(
            "listeners",
            "listeners",
            "listener",
            "At create: whole listeners. In responses: their ids.",
            create=Rule((), ()),
        ),
        children(
            "pools",
            "pools",
            "pool",
            "At create: whole pools, which listeners name. In responses: their ids.",
            create=Rule((), ()),
        ),
        stored("provider", Text(64), "Which kind of amphora carries it.", create=Rule(NOTHING, "amphora"), part=False),
        tags_row(),
        stored(
            "deletion_protection",
            Boolean(),
            "Whether DELETE is refused; what hangs on it can be deleted. An addition of Frontinus.",
            create=Rule(False, False),
            update=Rule(null=False),
        ),
        stored("flavor_id", Uuid(), "A flavor.", create=Rule(None), since="2.6"),
        stored("availability_zone", Text(), "The name of a zone.", create=Rule(None), since="2.14"),
        read_only("vip_vnic_type", Choice(VnicType), "direct by a flavor with sriov_vip, else normal.", since="2.28"),
        filter_only("topology", "topology", Choice(Topology), "SINGLE, or a pair."),
        *identity_rows(),
    ),
)
