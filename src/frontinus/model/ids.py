"""Ids are types, so that a pool's id is never handed to something that wants a listener's.

All are lower-case UUID text except ProjectId, which is whatever the identity service calls a project."""

from typing import NewType
from uuid import uuid4

LoadBalancerId = NewType("LoadBalancerId", str)
ListenerId = NewType("ListenerId", str)
PoolId = NewType("PoolId", str)
MemberId = NewType("MemberId", str)
HealthMonitorId = NewType("HealthMonitorId", str)
L7PolicyId = NewType("L7PolicyId", str)
L7RuleId = NewType("L7RuleId", str)
AmphoraId = NewType("AmphoraId", str)
ProjectId = NewType("ProjectId", str)
SubnetId = NewType("SubnetId", str)
NetworkId = NewType("NetworkId", str)
PortId = NewType("PortId", str)
FlavorId = NewType("FlavorId", str)
FlavorProfileId = NewType("FlavorProfileId", str)
AvailabilityZoneProfileId = NewType("AvailabilityZoneProfileId", str)
ControllerId = NewType("ControllerId", str)
ReceiverId = NewType("ReceiverId", str)


def new_id() -> str:
    """A fresh random UUID (RFC 9562 version 4), lower case with dashes."""
    return str(uuid4())
