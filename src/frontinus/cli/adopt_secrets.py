"""Secrets of load balancers that an Octavia has built, asked of the secret driver: for `frontinus adopt octavia`.

Whether a project may use them Octavia's API has asked when they were named; what is asked here is whether we can read them."""

from __future__ import annotations

from collections.abc import Sequence

from frontinus.adoption.octavia import LeftAlone
from frontinus.cli.output import in_words
from frontinus.drivers.secret.interface import SecretDriver
from frontinus.model.certificates import SecretConsumer, secret_uses
from frontinus.model.errors import CallerError, Retry
from frontinus.model.tree import LoadBalancerTree


async def sort_by_readable(
    trees: Sequence[LoadBalancerTree], secret: SecretDriver
) -> tuple[list[LoadBalancerTree], list[LeftAlone]]:
    """Those whose certificates our secret driver can read: the others could not be pushed."""
    readable: list[LoadBalancerTree] = []
    left: list[LeftAlone] = []
    for tree in trees:
        try:
            for use in secret_uses(tree):
                await secret.require_readable(use, tree.load_balancer.project_id)
        except (CallerError, Retry) as error:
            load_balancer = tree.load_balancer
            reason = f"a secret that it uses cannot be read by secret driver {secret.name}: {in_words(error)}"
            left.append(LeftAlone(kind="load balancer", id=load_balancer.id, name=load_balancer.name, reason=reason))
        else:
            readable.append(tree)
    return readable, left


async def register(tree: LoadBalancerTree, secret: SecretDriver) -> None:
    """As the consumer of its secrets, where their store keeps account: before it is here, since then a controller reads them.
    What is interrupted in between is taken away again by the controllers."""
    if secret.keeps_consumers:
        for reference in dict.fromkeys(use.reference for use in secret_uses(tree)):
            await secret.register(
                SecretConsumer(reference=reference, project_id=tree.load_balancer.project_id, load_balancer_id=tree.id)
            )
