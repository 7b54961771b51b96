"""What a service of OpenStack or openstacksdk said went wrong, in our own words. Pure.

    Retry              nobody answered, or the service is out of order, or does not take our account: it heals, or the
                       operator heals it, and whoever asked tries again
    └── Refused        the service understood, and will not: drivers say of those that they expect what they mean
                       (Invalid, Conflict); one that nobody expected heals like any other trouble

Addresses of services, which errors of openstacksdk tell, never get into a message: tenants read them.
Next: cloud.py, where every call passes through here."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from keystoneauth1 import exceptions as keystone
from openstack import exceptions as sdk
from requests import exceptions as requests

from frontinus.model.errors import Retry

FOREIGN = (keystone.ClientException, sdk.SDKException, requests.RequestException)
"""What openstacksdk raises for whatever happens outside of us."""

SOON_S, LATER_S = 2.0, 30.0
"""What may be over in a moment; what somebody must see to."""

NAME_OF = {
    "compute": "nova",
    "identity": "keystone",
    "image": "glance",
    "key_manager": "barbican",
    "network": "neutron",
    "placement": "placement",
}
"""Services by their type, as openstacksdk spells it; the names under which operators know them, and faults are told."""

_OUTAGES = ("unexpected", "internal server error", "contact site administrator")
"""What a service says with a 500 when it knows no more itself: Nova and Keystone, Neutron, Barbican."""

_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_UNHEARD = (keystone.ConnectionError, requests.ConnectionError, requests.Timeout)
"""Tenants read faults: which address it is that does not answer is for the log."""

_NOT_LET_IN = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class Refused(Retry):
    """The service refused what was asked. `status` is HTTP's; `kind` is the service's own word for the reason where it has
    one (Neutron: IpAddressAlreadyAllocated), else empty."""

    def __init__(self, service: str, status: int, kind: str, reason: str) -> None:
        super().__init__(f"{NAME_OF[service]} refused: {reason}", after=LATER_S, code=f"{NAME_OF[service]}-refused")
        self.status, self.kind = status, kind
        self.detail = reason
        """What the service said, without who said it."""


def is_outage(error: Exception) -> bool:
    """Whether the service itself is in trouble, and not just this question: what the breaker counts."""
    status = _status(error)
    return status is None or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and _failure(error) is None)


def _failure(error: Exception) -> str | None:
    """Of a 500 what went wrong with this one thing, where the service says so (Nova: a port that it could not attach); None
    of an outage."""
    if _status(error) != HTTPStatus.INTERNAL_SERVER_ERROR:
        return None
    reason = _told(error)[1]
    return None if any(x in reason.lower() for x in _OUTAGES) else reason or None


def told(service: str, error: Exception) -> Retry:
    """The error of ours for one of FOREIGN."""
    name, status = NAME_OF[service], _status(error)
    if failure := _failure(error):
        return Retry(f"{name} failed at this: {failure}; it is asked again", after=SOON_S, code=f"{name}-failed")
    if status is None or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
        return Retry(
            f"{name} cannot be asked: {why(error)}; it is asked again", after=SOON_S, code=f"{name}-unavailable"
        )
    kind, reason = _reason(error)
    if status in _NOT_LET_IN and "quota" not in reason.lower():
        return Retry(
            f"{name} does not let our account do this ({reason}); see that clouds.yaml names an account that may",
            after=LATER_S,
            code=f"{name}-forbidden",
        )
    return Refused(service, status, kind, reason)


def why(error: Exception) -> str:
    """Of an outage: how it shows."""
    status = _status(error)
    if status:
        return f"it answers {status}"
    return "it does not answer" if isinstance(error, _UNHEARD) else _words(error)


def _status(error: Exception) -> int | None:
    """The HTTP status of an answer; None where none came."""
    status: object = None
    if isinstance(error, sdk.HttpException):
        status = error.status_code
    elif isinstance(error, keystone.HttpError):
        status = error.http_status
    return status if isinstance(status, int) and status else None


def _reason(error: Exception) -> tuple[str, str]:
    """The service's word for the reason and what it says of it, or else what is known."""
    kind, reason = _told(error)
    if reason:
        return kind, reason
    if isinstance(error, sdk.HttpException) and error.status_code:
        return "", f"it answers {error.status_code}"  # its own words have the address
    return "", _words(error)


def _told(error: Exception) -> tuple[str, str]:
    """The same in the service's own document only; empty where there is none."""
    response = getattr(error, "response", None)
    document: Any = None
    if response is not None:
        try:
            document = response.json()
        except ValueError:
            pass  # an answer for people: its status is told
    if isinstance(document, dict) and isinstance(document.get("description"), str):
        return "", str(document["description"])  # Barbican's
    # {"NeutronError": {"type": …, "message": …}}, {"badRequest": {"message": …, "code": 400}}
    inner = next(iter(document.values()), None) if isinstance(document, dict) else None
    if isinstance(inner, dict) and isinstance(inner.get("message"), str):
        return str(inner.get("type") or ""), inner["message"]
    return "", ""


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
