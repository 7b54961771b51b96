"""References as Octavia's clients write them, and the names under which we register as consumer. Pure.

A reference is the whole URL of a secret or a container of Barbican's. Only its last two parts are used: the host is asked
that the catalogue names, whatever stands in the reference.

Who uses what is recorded in Barbican itself, as its consumers, one for each load balancer. The record serves twice: the owner sees
who uses his secret, and we see for which project it may be read (driver.py). Of a container there are two: one of the
container, which is what counts, and one of the secret with its certificate, by which the container is found again, since
Barbican lists the secrets that our account may read and not the containers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from frontinus.model.certificates import SecretConsumer
from frontinus.model.errors import Invalid
from frontinus.model.ids import LoadBalancerId, ProjectId

RESOURCE_TYPE = "LOADBALANCER"
CONTAINER_CONSUMER = "frontinus"
"""Barbican takes names of 36 characters at most here, so that all else is in the URL."""

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_REFERENCE = re.compile(rf"https?://[!-~]+/(secrets|containers)/({_UUID})/?")
_LONGEST = 255


class Collection(StrEnum):
    SECRETS = "secrets"
    CONTAINERS = "containers"


class Place(msgspec.Struct, frozen=True):
    """Where in Barbican something is."""

    collection: Collection
    id: str

    @property
    def path(self) -> str:
        return f"/{self.collection}/{self.id}"


def place_of(reference: str) -> Place:
    """Raises Invalid naming the reference."""
    found = _REFERENCE.fullmatch(reference) if len(reference) <= _LONGEST else None
    if found is None:
        raise Invalid(reference, "is not the URL of a secret or a container in Barbican")
    return Place(Collection(found[1]), found[2])


class Marks:
    """What an installation calls itself in Barbican."""

    def __init__(self, installation: str) -> None:
        self._installation = installation
        self._prefix = f"frontinus-{installation}/"

    def of_secret(self, consumer: SecretConsumer, container_id: str | None = None) -> dict[str, str]:
        """The consumer of a secret; with `container_id`, of the certificate in a container."""
        service = self._service(consumer.project_id) + (f"/{container_id}" if container_id else "")
        return {"service": service, "resource_type": RESOURCE_TYPE, "resource_id": consumer.load_balancer_id}

    def of_container(self, consumer: SecretConsumer) -> dict[str, str]:
        url = f"{self._url(consumer.project_id)}{consumer.load_balancer_id}"
        return {"name": CONTAINER_CONSUMER, "URL": url}

    def is_for(self, project_id: ProjectId, consumer: Mapping[str, object]) -> bool:
        """Whether a consumer, of a container or of a secret itself, says that a load balancer of the project uses it."""
        if consumer.get("name") == CONTAINER_CONSUMER:
            return str(consumer.get("URL", "")).startswith(self._url(project_id))
        return consumer.get("service") == self._service(project_id)

    def _service(self, project_id: ProjectId) -> str:
        return f"{self._prefix}{project_id}"

    def _url(self, project_id: ProjectId) -> str:
        return f"lbaas://{self._installation}/{project_id}/loadbalancer/"

    def read(self, secret_ref: str, consumer: Mapping[str, object]) -> SecretConsumer | None:
        """Of a consumer of the secret: what we registered by it; None when it is not ours."""
        service = str(consumer.get("service", ""))
        if not service.startswith(self._prefix) or consumer.get("resource_type") != RESOURCE_TYPE:
            return None
        project_id, _, container_id = service.removeprefix(self._prefix).partition("/")
        reference = secret_ref
        if container_id:
            base = secret_ref.rpartition("/secrets/")[0]
            reference = f"{base}/{Collection.CONTAINERS}/{container_id}"
        return SecretConsumer(
            reference=reference,
            project_id=ProjectId(project_id),
            load_balancer_id=LoadBalancerId(str(consumer.get("resource_id", ""))),
        )
