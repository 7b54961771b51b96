"""Amphorae that run and wait for a load balancer, so that a create or a replacement is only a configuration push.

They have no load balancer, so they stand apart from amphorae until one is taken: a fixed number of slots for each pool."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from frontinus.model.ids import AmphoraId, LoadBalancerId, NetworkId, PortId, ProjectId, SubnetId
from frontinus.model.placement import Placement
from frontinus.model.tree import Amphora, LoadBalancer, LoadBalancerTree, Vip


class SpareStatus(StrEnum):
    BUILDING = "building"
    READY = "ready"
    """Its agent answers: it may be taken."""
    LEAVING = "leaving"
    """It is being removed."""


class Spare(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a slot. `amphora` is as it will be recorded when it is taken; until then its own id stands for that of a
    load balancer. `touched_at` is when a controller last had to do with it."""

    pool: str
    slot: int
    amphora_id: AmphoraId
    status: SpareStatus
    amphora: Amphora
    touched_at: datetime


def waiting(amphora_id: AmphoraId, now: datetime) -> Amphora:
    """A spare amphora before it is built."""
    return Amphora(id=amphora_id, load_balancer_id=LoadBalancerId(amphora_id), project_id=ProjectId(""), created_at=now)


def tree_of(amphora: Amphora, placement: Placement | None = None) -> LoadBalancerTree:
    """What drivers are handed in place of the tree that a spare has not: nothing shall listen."""
    nowhere = Vip(address="", subnet_id=SubnetId(""), network_id=NetworkId(""), port_id=PortId(""))
    load_balancer = LoadBalancer(
        id=amphora.load_balancer_id,
        project_id=amphora.project_id,
        vip=nowhere,
        placement=placement,
        created_at=amphora.created_at,
    )
    return LoadBalancerTree(load_balancer=load_balancer, amphorae=(amphora,))
