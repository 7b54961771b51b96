"""What the controller can do, as small frozen values: they can be printed, compared and replayed.

Each step is safe to repeat. plan.py makes them, act.py carries them out."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeAlias

import msgspec

from frontinus.controller.restraint import Hold
from frontinus.model.enums import AmphoraRole, FaultPhase
from frontinus.model.ids import AmphoraId


class RecordAmphora(msgspec.Struct, frozen=True):
    """Write the row of a new amphora, before anything is made under its name."""

    amphora_id: AmphoraId
    role: AmphoraRole


class BeginReplacement(msgspec.Struct, frozen=True):
    """Move the generation, so that the replacement shows as PENDING_UPDATE and ends in a receipt of its own. `counted`: it
    takes one of the turns of the installation, as every replacement does that nobody asked for."""

    counted: bool = False


class BuildAmphora(msgspec.Struct, frozen=True):
    """Have compute make the place and start the agent; also starts a dead agent again in place."""

    amphora_id: AmphoraId
    revive: bool = False


class AwaitAgent(msgspec.Struct, frozen=True):
    """Wait until the agent answers."""

    amphora_id: AmphoraId


class ApplyConfiguration(msgspec.Struct, frozen=True):
    """Have the driver bring the amphora to what is wanted now."""

    amphora_id: AmphoraId


class IntroducePeer(msgspec.Struct, frozen=True):
    """Have the driver tell an amphora that is too old for what is wanted who the other one of its pair is now."""

    amphora_id: AmphoraId


class WishReplacement(msgspec.Struct, frozen=True):
    """Write that the amphora is to be replaced, as if somebody had asked for it: it is too old for what is wanted."""

    amphora_id: AmphoraId


class PlugAmphora(msgspec.Struct, frozen=True):
    """Give the amphora the ports that the wanted tree needs and it has not, and have its agent configure them."""

    amphora_id: AmphoraId


class UnplugAmphora(msgspec.Struct, frozen=True):
    """Take from the amphora what ports and open ones the wanted tree needs no more."""

    amphora_id: AmphoraId


class DismissSuspicion(msgspec.Struct, frozen=True):
    """The amphora was silent but lives."""

    amphora_id: AmphoraId


class CondemnAmphora(msgspec.Struct, frozen=True):
    """Write that the amphora is to go, before it is touched. `counted` as in BeginReplacement."""

    amphora_id: AmphoraId
    counted: bool = False


class DestroyAmphora(msgspec.Struct, frozen=True):
    """Stop it, remove its place, and write that it is gone."""

    amphora_id: AmphoraId


class ForgetLoadBalancer(msgspec.Struct, frozen=True):
    """Give the address back to the network, and write that nothing is left outside."""


class RecordSettled(msgspec.Struct, frozen=True):
    """Everything of this generation is carried out: write it."""

    generation: int


class LookAgain(msgspec.Struct, frozen=True):
    """Nothing more can be done now: leave it, and be due again after this. `because` is shown as a fault: what is waited for
    may take long."""

    after: timedelta
    because: Hold | None = None


Step: TypeAlias = (
    RecordAmphora
    | BeginReplacement
    | BuildAmphora
    | AwaitAgent
    | PlugAmphora
    | ApplyConfiguration
    | IntroducePeer
    | WishReplacement
    | UnplugAmphora
    | DismissSuspicion
    | CondemnAmphora
    | DestroyAmphora
    | ForgetLoadBalancer
    | RecordSettled
    | LookAgain
)

PHASE_OF_STEP: dict[type[Step], FaultPhase] = {
    RecordAmphora: FaultPhase.INTERNAL,
    BeginReplacement: FaultPhase.INTERNAL,
    BuildAmphora: FaultPhase.COMPUTE,
    AwaitAgent: FaultPhase.COMPUTE,
    PlugAmphora: FaultPhase.NETWORK,
    ApplyConfiguration: FaultPhase.APPLY,
    IntroducePeer: FaultPhase.APPLY,
    WishReplacement: FaultPhase.INTERNAL,
    UnplugAmphora: FaultPhase.NETWORK,
    DismissSuspicion: FaultPhase.INTERNAL,
    CondemnAmphora: FaultPhase.INTERNAL,
    DestroyAmphora: FaultPhase.RETIRE,
    ForgetLoadBalancer: FaultPhase.NETWORK,
    RecordSettled: FaultPhase.INTERNAL,
    LookAgain: FaultPhase.COMPUTE,
}
"""Which phase a fault names when the step fails."""
