"""The secret driver whose store is Barbican: a certificate container, a PKCS#12 secret, or a secret with PEM text.

Our account reads what ACLs let it, and nothing else. Whoever names a secret and may write its ACL lets our account in by
that, as with Octavia: it is written with his token. But the ACL does not say for whom we read: whoever knows the URL could name
it for a load balancer of his own. So a project must have named it by a user whom Barbican shows it to, asked with his own token
(`require_access`); that this was so is recorded in Barbican, as a consumer with the project in its name (names.py), and without
such a record nothing is read for a project.

Each method is one piece of blocking work in a thread (drivers/openstack/cloud.py). Nothing but the spelling of references is
kept between calls: no secret, and no token of a user's. Next: barbican.py, names.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import Any, ClassVar

from openstack.connection import Connection

from frontinus.drivers.openstack.cloud import Cloud
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.drivers.openstack.trouble import Refused
from frontinus.drivers.secret.barbican.barbican import Barbican, NotReadable
from frontinus.drivers.secret.barbican.names import Collection, Marks, Place, place_of
from frontinus.drivers.secret.bundle import Bundle, first_end, parse_bundle
from frontinus.drivers.secret.forms import as_pem
from frontinus.drivers.secret.interface import SecretDriver
from frontinus.model.certificates import (
    Authorities,
    Certificate,
    Revocations,
    SecretConsumer,
    SecretKind,
    SecretUse,
)
from frontinus.model.errors import Invalid, Retry
from frontinus.model.findings import Finding, fine, trouble
from frontinus.model.ids import LoadBalancerId, ProjectId
from frontinus.model.network import Tenant

_OPENS_KEY = "private_key_passphrase"
_IN_ORDER = ("certificate", "intermediates", "private_key")
"""Secrets of a certificate container, by the names that Barbican gives them."""

_WHOLE = "certificate"
"""The part that a secret is which stands for itself."""


@dataclass(frozen=True)
class BarbicanSettings:
    """[driver_options.barbican]. Which cloud it is, is in [openstack]."""

    watch_interval: timedelta = timedelta(seconds=10)
    """How often Barbican is asked what changed among the secrets that our account may read. Of many controllers about two
    ask each time."""

    openstack: OpenStackSettings = field(default_factory=OpenStackSettings)
    """As in [openstack], unless it is written here too."""

    def check(self) -> None:
        """Raises Invalid naming the setting that cannot be."""
        if self.watch_interval <= timedelta(0):
            raise Invalid("watch_interval", "must be more than 0")
        self.openstack.check()


class BarbicanSecrets(SecretDriver):
    """See drivers/secret/interface.py, whose docstrings are the law."""

    name: ClassVar[str] = "barbican"
    keeps_consumers: ClassVar[bool] = True
    Settings: ClassVar[type[BarbicanSettings]] = BarbicanSettings

    def __init__(
        self, settings: BarbicanSettings, connect: Callable[[OpenStackSettings], Connection] | None = None
    ) -> None:
        """Asks nothing yet. Raises Invalid naming the setting that cannot be."""
        settings.check()
        self._settings = settings
        self._cloud = Cloud(settings.openstack, connect)
        self._barbican = Barbican(self._cloud)
        self._marks = Marks(settings.openstack.installation)
        self._spelled: dict[Place, set[str]] = defaultdict(set)
        self._seen: dict[Place, str] = {}

    @property
    def watch_interval(self) -> timedelta:
        return self._settings.watch_interval

    async def require_access(
        self, tenant: Tenant, load_balancer_id: LoadBalancerId, references: Mapping[str, str]
    ) -> None:
        def work(token: str) -> None:
            account = self._cloud.user_id()
            for reference, named_in in references.items():
                consumer = SecretConsumer(
                    reference=reference, project_id=tenant.project_id, load_balancer_id=load_balancer_id
                )
                try:
                    for place in self._shown_to_tenant(reference, token)[0]:
                        self._let_in(place, account, token)
                    self._register(consumer)
                except Invalid as error:
                    raise Invalid(named_in, str(error)) from error
                except Refused as refused:  # what Barbican will not do for this user it will not do later
                    raise Invalid(named_in, f"{reference}: Barbican refuses: {refused.detail}") from refused

        if not references:
            return
        token = _token_of(tenant, next(iter(references.values())))
        await self._cloud.run(lambda: work(token))

    async def shown_to(
        self, tenant: Tenant, kind: SecretKind, reference: str
    ) -> Certificate | Authorities | Revocations:
        token = _token_of(tenant, reference)

        def work() -> Bundle:
            try:
                return self._bundle(reference, self._shown_to_tenant(reference, token)[1])
            except Refused as refused:
                raise Invalid(reference, f"Barbican refuses: {refused.detail}") from refused

        return _AS[kind](reference, await self._cloud.run(work))

    async def certificate(self, reference: str, project_id: ProjectId) -> Certificate:
        return _certificate(reference, await self._cloud.run(lambda: self._read(reference, project_id)))

    async def authorities(self, reference: str, project_id: ProjectId) -> Authorities:
        return _authorities(reference, await self._cloud.run(lambda: self._read(reference, project_id)))

    async def revocations(self, reference: str, project_id: ProjectId) -> Revocations:
        return _revocations(reference, await self._cloud.run(lambda: self._read(reference, project_id)))

    async def require_readable(self, use: SecretUse, project_id: ProjectId) -> None:
        _AS[use.kind](use.reference, await self._cloud.run(lambda: self._read(use.reference, None)))

    async def changes(self) -> frozenset[str]:
        """A secret's content never changes in Barbican. It can be deleted, end, or be shown to us no longer, or again. That a
        container is deleted whose secrets stay is not seen."""
        secrets = await self._cloud.run(self._barbican.readable)
        found: dict[Place, str] = {}
        for secret in secrets:
            version = f"{secret.get('updated')} {secret.get('status')} {secret.get('expiration')}"
            reference = str(secret["secret_ref"])
            for each in (reference, *(x.reference for x in self._consumers_of(secret))):
                place = place_of(each)
                self._spelled[place].add(each)
                found[place] = version
        before, self._seen = self._seen, found
        changed = (x for x in before.keys() | found.keys() if before.get(x) != found.get(x))
        return frozenset(reference for x in changed for reference in self._spelled[x])

    def forget_changes(self) -> None:
        self._seen = {}

    async def list_consumers(self) -> tuple[SecretConsumer, ...]:
        secrets = await self._cloud.run(self._barbican.readable)
        return tuple(dict.fromkeys(consumer for secret in secrets for consumer in self._consumers_of(secret)))

    def canonical(self, reference: str) -> str:
        try:
            return place_of(reference).path
        except Invalid:
            return reference

    async def register(self, consumer: SecretConsumer) -> None:
        await self._cloud.run(lambda: self._register(consumer))

    async def unregister(self, consumer: SecretConsumer) -> None:
        await self._cloud.run(lambda: self._unregister(consumer))

    async def examine(self) -> tuple[Finding, ...]:
        try:
            count = len(await self._cloud.run(self._barbican.readable))
        except Retry as unreachable:
            return (trouble("barbican", unreachable.reason, "see [openstack] and clouds.yaml"),)
        return (fine("barbican", f"answers; {count} secrets let our account read them by their ACL"),)

    async def close(self) -> None:
        await self._cloud.close()

    # What runs in a thread

    def _shown_to_tenant(self, reference: str, token: str) -> tuple[tuple[Place, ...], dict[str, bytes]]:
        """Everything behind the reference, all of which he may read, and the content by its part in it. Raises Invalid naming
        it."""
        place = place_of(reference)
        try:
            if place.collection is Collection.SECRETS:
                return (place,), {_WHOLE: self._barbican.payload(place, token)}
            parts = _parts(reference, self._barbican.show(place, token))
            content = {name: self._barbican.payload(secret, token) for name, secret in parts.items()}
        except NotReadable as answer:
            if answer.status == HTTPStatus.UNAUTHORIZED:
                raise Invalid(
                    reference, "Barbican does not accept the token (any more); ask with a new one"
                ) from answer
            raise Invalid(reference, "does not exist, or the project may not read it") from answer
        return (place, *parts.values()), content

    def _let_in(self, place: Place, account: str, token: str) -> None:
        """Our account may read it, if who has the token can see to that; if not, reading it will tell."""
        try:
            self._barbican.show(place)
        except NotReadable:
            try:
                self._barbican.let_read(place, account, token)
            except NotReadable:
                return

    def _read(self, reference: str, project_id: ProjectId | None) -> Bundle:
        """What is behind it; without a project, whoever's it is. Raises Invalid naming the reference, and Retry."""
        place = place_of(reference)
        try:
            shown = self._barbican.show(place)
            if project_id is not None and not any(
                self._marks.is_for(project_id, x) for x in shown.get("consumers", ())
            ):
                raise Invalid(reference, "no user of this project with the right to read it has named it")
            if place.collection is Collection.CONTAINERS:
                parts = {name: self._barbican.payload(x) for name, x in _parts(reference, shown).items()}
            else:
                parts = {_WHOLE: self._barbican.payload(place)}
        except NotReadable as answer:
            raise self._told(reference, answer) from answer
        self._spelled[place].add(reference)
        return self._bundle(reference, parts)

    @staticmethod
    def _bundle(reference: str, parts: dict[str, bytes]) -> Bundle:
        passphrase = parts.pop(_OPENS_KEY, None)
        content = b"\n".join(as_pem(parts[name]) for name in _IN_ORDER if name in parts)
        try:
            return parse_bundle(content, None if passphrase is None else passphrase.decode(errors="replace"))
        except Invalid as error:
            raise Invalid(reference, error.reason) from error

    def _register(self, consumer: SecretConsumer) -> None:
        place = place_of(consumer.reference)
        try:
            if place.collection is Collection.SECRETS:
                self._barbican.register(place, self._marks.of_secret(consumer))
                return
            leaf = _leaf(consumer.reference, self._barbican.show(place))
            # First that by which it is found again, should we be killed in between.
            self._barbican.register(leaf, self._marks.of_secret(consumer, place.id))
            self._barbican.register(place, self._marks.of_container(consumer))
        except NotReadable as answer:
            raise self._told(consumer.reference, answer) from answer

    def _unregister(self, consumer: SecretConsumer) -> None:
        place = place_of(consumer.reference)
        if place.collection is Collection.SECRETS:
            self._forget(place, self._marks.of_secret(consumer))
            return
        self._forget(place, self._marks.of_container(consumer))
        mark = self._marks.of_secret(consumer, place.id)
        # Looked for among all: a container that was deleted does not say any more which secret it was.
        for secret in self._barbican.readable():
            if any({key: x.get(key) for key in mark} == mark for x in secret.get("consumers", ())):
                self._forget(place_of(str(secret["secret_ref"])), mark)

    def _forget(self, place: Place, mark: Mapping[str, str]) -> None:
        try:
            self._barbican.unregister(place, mark)
        except NotReadable:
            pass  # its owner has taken our access away, and can remove what he sees there himself

    def _consumers_of(self, secret: Mapping[str, Any]) -> Sequence[SecretConsumer]:
        found = (self._marks.read(str(secret["secret_ref"]), x) for x in secret.get("consumers", ()))
        return [x for x in found if x is not None]

    def _told(self, reference: str, answer: NotReadable) -> Invalid | Retry:
        if answer.status == HTTPStatus.UNAUTHORIZED:
            return Retry("barbican does not accept our account", after=30, code="barbican-forbidden")
        if answer.status == HTTPStatus.FORBIDDEN:
            what = f"its part {answer.place.path}" if answer.place != place_of(reference) else "it"
            return Invalid(
                reference,
                f"our account may not read {what}: let it by the ACL (`openstack acl user add --user "
                "ACCOUNT REFERENCE`), of a container and of each secret in it",
            )
        return Invalid(reference, f"Barbican has no such {answer.place.collection.value.removesuffix('s')}")


def _parts(reference: str, container: Mapping[str, Any]) -> dict[str, Place]:
    """The secrets of a certificate container by name. Raises Invalid."""
    if container.get("type") != "certificate":
        raise Invalid(reference, f"is a container of type {container.get('type')!r}; it must be certificate")
    return {str(x["name"]): place_of(str(x["secret_ref"])) for x in container.get("secret_refs", ())}


def _leaf(reference: str, container: Mapping[str, Any]) -> Place:
    leaf = _parts(reference, container).get("certificate")
    if leaf is None:
        raise Invalid(reference, "is a container without a certificate")
    return leaf


def _certificate(reference: str, bundle: Bundle) -> Certificate:
    found = bundle.certificate
    if found is None:
        raise Invalid(reference, "holds no private key; store the certificate together with its key")
    return Certificate(
        certificate=found.certificate,
        private_key=found.private_key,
        intermediates=found.intermediates,
        expires_at=first_end((found.certificate, *found.intermediates)),
    )


def _authorities(reference: str, bundle: Bundle) -> Authorities:
    own = bundle.certificate
    certificates = bundle.authorities if own is None else (own.certificate, *own.intermediates)
    if not certificates:
        raise Invalid(reference, "holds no certificate of an authority")
    return Authorities(certificates=certificates)


def _revocations(reference: str, bundle: Bundle) -> Revocations:
    if not bundle.lists:
        raise Invalid(reference, "holds no revocation list (X509 CRL)")
    return Revocations(lists=bundle.lists)


def _token_of(tenant: Tenant, named: str) -> str:
    if tenant.token is None:
        raise Invalid(named, "Barbican must be asked with a token of the user's own; set api.auth to keystone")
    return tenant.token.reveal()


_AS: Mapping[SecretKind, Callable[[str, Bundle], Certificate | Authorities | Revocations]] = {
    SecretKind.CERTIFICATE: _certificate,
    SecretKind.AUTHORITIES: _authorities,
    SecretKind.REVOCATIONS: _revocations,
}
