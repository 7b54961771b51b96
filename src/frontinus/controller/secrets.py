"""Get what is behind the references of a load balancer, through the secret driver, before it is rendered.

What cannot be read is told with the object and field that name it; omission.py decides what goes on without it."""

from __future__ import annotations

import asyncio

from frontinus.drivers.secret.interface import SecretDriver
from frontinus.model.certificates import (
    NO_SECRETS,
    Authorities,
    Certificate,
    Revocations,
    SecretKind,
    Secrets,
    SecretUse,
    secret_uses,
)
from frontinus.model.errors import Invalid, Retry, Subject
from frontinus.model.tree import LoadBalancerTree


class SecretUnreadable(Invalid):
    """A reference cannot be used, however often it is tried: it waits for the user, or for a change of the store."""

    use: SecretUse


class SecretsOutOfReach(Retry):
    """The store cannot be asked now."""

    use: SecretUse


class Resolver:
    """Reads each reference once: what one convergence sees of the secrets does not change under it."""

    def __init__(self, driver: SecretDriver) -> None:
        self._driver = driver
        self._known: dict[tuple[SecretKind, str], Certificate | Authorities | Revocations] = {}
        self._failed: dict[tuple[SecretKind, str], Retry | Invalid] = {}

    def forget_failures(self) -> None:
        """What could not be read is asked for again: something has changed, or time has passed."""
        self._failed.clear()

    async def resolve(self, tree: LoadBalancerTree) -> Secrets:
        """What the tree's references lead to. Raises SecretUnreadable or SecretsOutOfReach, about the first object one
        of whose references leads nowhere."""
        uses = secret_uses(tree)
        if not uses:
            return NO_SECRETS
        wanted = {(use.kind, use.reference): use for use in uses}
        missing = [use for key, use in wanted.items() if key not in self._known and key not in self._failed]
        project_id = tree.load_balancer.project_id
        found = await asyncio.gather(*(self._driver.read(use, project_id) for use in missing), return_exceptions=True)
        for use, result in zip(missing, found, strict=True):
            if isinstance(result, Retry | Invalid):
                self._failed[use.kind, use.reference] = result
            elif isinstance(result, BaseException):
                raise result
            else:
                self._known[use.kind, use.reference] = result
        for key, use in wanted.items():
            if key in self._failed:
                raise _told(use, self._failed[key]) from self._failed[key]
        known = {key: self._known[key] for key in wanted}
        return Secrets(
            certificates={ref: x for (_, ref), x in known.items() if isinstance(x, Certificate)},
            authorities={ref: x for (_, ref), x in known.items() if isinstance(x, Authorities)},
            revocations={ref: x for (_, ref), x in known.items() if isinstance(x, Revocations)},
        )


def _told(use: SecretUse, cause: Retry | Invalid) -> SecretUnreadable | SecretsOutOfReach:
    error: SecretUnreadable | SecretsOutOfReach
    if isinstance(cause, Retry):
        error = SecretsOutOfReach(f"{use.field}: {cause.reason}", after=cause.after, code=cause.code)
    else:
        error = SecretUnreadable(use.field, str(cause))
    error.subject, error.use = Subject(use.object_kind, use.object_id), use
    return error
