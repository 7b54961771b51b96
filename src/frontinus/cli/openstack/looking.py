"""Ask OpenStack's services how things stand: one method for each question, each an HTTP GET or two. Nothing is changed (but
that a login makes a token), and nothing judged: judging.py does that. What a driver asks as well, it asks as the driver does.

Everything blocks, on purpose: the command that asks has nothing else to do, and Ctrl-C ends it at once. Every method raises
Retry when the service cannot be asked, and Refused when it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from openstack import exceptions as sdk
from requests import exceptions as requests

from frontinus.cli.openstack.seen import (
    Account,
    Answer,
    CatalogueEntry,
    Flavor,
    Host,
    Image,
    Network,
    Quota,
    SecurityGroup,
    Zone,
)
from frontinus.drivers.compute.nova.nova import MICROVERSION
from frontinus.drivers.network.neutron.facts import SubnetFacts
from frontinus.drivers.network.neutron.neutron import Neutron
from frontinus.drivers.openstack.cloud import Cloud
from frontinus.drivers.openstack.trouble import Refused
from frontinus.drivers.secret.barbican.barbican import WITH_CONSUMERS

_T = TypeVar("_T")
_JSON = {"Accept": "application/json"}


class Look:
    """As one account."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._neutron = Neutron(cloud)

    # Keystone

    def account(self) -> Account:
        """Logs in."""

        def question(identity: Any) -> Account:
            access = identity.session.auth.get_access(identity.session)
            catalogue = [
                CatalogueEntry(
                    type=str(service["type"]),
                    interface=str(x["interface"]),
                    region=str(x.get("region_id") or x.get("region") or ""),
                    url=str(x["url"]),
                )
                for service in access.service_catalog.catalog
                for x in service["endpoints"]
            ]
            return Account(
                user=str(access.username),
                user_id=str(access.user_id),
                project=str(access.project_name),
                project_id=str(access.project_id or ""),
                roles=frozenset(map(str, access.role_names)),
                catalogue=tuple(catalogue),
            )

        return self._cloud.call("identity", question)

    def region(self) -> str:
        """The one that clouds.yaml names."""
        return self._cloud.region()

    def token(self) -> str:
        found: object = self._cloud.call("identity", lambda identity: identity.session.get_token())
        return str(found)

    def clock(self) -> tuple[datetime | None, datetime, datetime]:
        """What Keystone's clock says, and ours before and after it was asked."""
        asked = datetime.now(UTC)
        date = self._cloud.call("identity", lambda identity: identity.get("/").headers.get("Date"))
        answered = datetime.now(UTC)
        try:
            told = parsedate_to_datetime(date) if isinstance(date, str) else None
        except ValueError:
            told = None
        return told, asked, answered

    def role_names(self) -> frozenset[str]:
        found = self._get("identity", "/roles")["roles"]
        return frozenset(str(x["name"]) for x in found)

    def roles_of_login(self, url: str, document: str, verify: str | bool) -> tuple[str, frozenset[str]]:
        """The user's id and roles of whoever logs in with this document (identity API, POST /auth/tokens). `verify`: by which
        authorities its certificate is checked, by those of the system, or not at all."""

        def question(identity: Any) -> Any:
            response = identity.session.post(
                f"{url}/auth/tokens",
                data=document,
                headers={"Content-Type": "application/json", **_JSON},
                authenticated=False,
                log=False,
                verify=verify,
            )
            return response.json()["token"]

        token = self._cloud.call("identity", question)
        return str(token["user"]["id"]), frozenset(str(x["name"]) for x in token.get("roles", ()))

    def behind(self, url: str) -> Answer:
        """What answers there, and whether it takes our token. No answer is an answer too."""
        base, token = url.rstrip("/"), self.token()

        def question(identity: Any) -> Answer:
            plain = identity.session.session  # a requests session: our token goes only where we mean it to
            # What clouds.yaml says of certificates (cacert) is handed on with each request, and not kept there.
            sure: Any = {"verify": identity.session.verify, "allow_redirects": False}
            sure["timeout"] = self._cloud.settings.timeout.total_seconds()
            try:
                first = plain.get(f"{base}/", headers=_JSON, **sure)
                if not _is_load_balancing(first):
                    return Answer(status=first.status_code)
                words = {**_JSON, "X-Auth-Token": token}
                second = plain.get(f"{base}/v2/lbaas/providers", headers=words, **sure)
            except requests.RequestException as error:
                return Answer(trouble=_in_short(error))
            # Whoever is known and may not (403) was known all the same.
            return Answer(status=second.status_code, is_ours=True, takes_tokens=second.status_code in (200, 403))

        return self._cloud.call("identity", question)

    # Nova and Glance

    def newest_microversion(self, service: str) -> tuple[int, int] | None:
        def question(proxy: Any) -> Any:
            data = proxy.get_endpoint_data()
            return None if data is None else data.max_microversion

        found = self._cloud.call(service, question)
        return None if found is None else (int(found[0]), int(found[1]))

    def servers(self) -> None:
        """Whether those of our project may be listed."""
        self._get("compute", "/servers", limit=1)

    def flavors(self) -> list[Flavor]:
        return self._list("compute", "/flavors/detail", "flavors", Flavor)

    def has_key(self, name: str) -> bool:
        try:
            self._get("compute", f"/os-keypairs/{quote(name, safe='')}")
        except Refused as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True

    def zones(self) -> list[Zone]:
        found = self._get("compute", "/os-availability-zone")["availabilityZoneInfo"]
        return [Zone(name=x["zoneName"], is_available=bool(x["zoneState"]["available"])) for x in found]

    def hosts(self) -> list[Host]:
        """Told to administrators only."""
        return self._list("compute", "/os-services", "services", Host, binary="nova-compute")

    def limits(self) -> Mapping[str, int]:
        absolute = self._get("compute", "/limits")["limits"]["absolute"]
        return {str(key): int(value) for key, value in absolute.items()}

    def images(self, tag: str) -> list[Image]:
        return self._list("image", "/images", "images", Image, tag=tag)

    # Neutron

    def extensions(self) -> frozenset[str]:
        return self._neutron.extensions()

    def networks(self, id_or_name: str) -> list[Network]:
        """As the driver finds it."""
        return [
            Network(
                id=x.id,
                name=x.name,
                admin_state_up=x.admin_state_up,
                subnets=tuple(self._neutron.subnets(network_id=x.id)),
            )
            for x in self._neutron.networks_called(id_or_name)
        ]

    def free_addresses(self, subnet: SubnetFacts) -> int | None:
        """None where Neutron cannot say."""
        return self._neutron.free_addresses(subnet.network_id).get(subnet.id)

    def security_groups(self, ids: tuple[str, ...]) -> list[SecurityGroup]:
        return self._list("network", "/security-groups", "security_groups", SecurityGroup, id=list(ids))

    def network_quotas(self, project_id: str, each: Mapping[str, int]) -> list[Quota]:
        quotas = self._get("network", f"/quotas/{project_id}/details.json")["quota"]
        return [
            Quota(
                name=name,
                limit=int(quotas[name]["limit"]),
                used=int(quotas[name]["used"]) + int(quotas[name].get("reserved") or 0),
                each=count,
            )
            for name, count in each.items()
            if name in quotas
        ]

    # Barbican

    def readable_secrets(self) -> tuple[int, bool]:
        """How many have an ACL that names our account; and whether secrets have consumers."""

        def question(key_manager: Any) -> Any:
            words = {**_JSON, **WITH_CONSUMERS}
            response = key_manager.get("/secrets", params={"acl_only": "true", "limit": 1}, headers=words)
            if response.status_code == HTTPStatus.NOT_ACCEPTABLE:
                return 0, False
            sdk.raise_from_response(response)
            document = response.json()
            count = int(document.get("total", len(document["secrets"])))
            return count, all(response.headers.get(key) == told for key, told in WITH_CONSUMERS.items())

        found: tuple[int, bool] = self._cloud.call("key_manager", question)
        return found

    # How all of them ask

    def _list(self, service: str, path: str, key: str, kind: type[_T], **parameters: object) -> list[_T]:
        found = self._cloud.listed(service, path, key, parameters, **_words(service))
        return msgspec.convert(found, list[kind], strict=False)  # type: ignore[valid-type]

    def _get(self, service: str, path: str, **parameters: object) -> Any:
        return self._cloud.request(service, "GET", path, params=parameters, **_words(service))


def _words(service: str) -> dict[str, Any]:
    return {"headers": _JSON} | ({"microversion": MICROVERSION} if service == "compute" else {})


def _is_load_balancing(response: Any) -> bool:
    """By its list of versions: v2.0 is told by every API of this kind, and stands under /v2."""
    try:
        versions = response.json()["versions"]
        return any(x["id"] == "v2.0" and x["links"][0]["href"].rstrip("/").endswith("/v2") for x in versions)
    except (ValueError, LookupError, TypeError):
        return False


def _in_short(error: Exception) -> str:
    """What a person reads of a request that came to nothing; requests wraps several errors into each other."""
    inner: BaseException = error
    while (below := inner.__cause__ or inner.__context__) is not None:
        inner = below
    return " ".join(str(inner).split())[:200] or type(error).__name__
