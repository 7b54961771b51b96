"""Ask a service of OpenStack: log in, wait so long and no longer, ask again where that is safe, and tell what went wrong in
our own words.

openstacksdk blocks, so each piece of work runs in a thread of its own pool; what it raises does not leave this room
(trouble.py). What changes something is never repeated here after it may have arrived: drivers look first, and converge.
No transaction of ours is open meanwhile: services are asked in threads of this pool alone (`call` sees to it), work is handed to
them by a coroutine, and a transaction is a plain function, which can await none (Store.transact sees to that).
Next: trouble.py, model/breaker.py, and drivers/network/neutron/ for how it is used."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

import structlog
from keystoneauth1.session import TCPKeepAliveAdapter
from openstack import exceptions as sdk
from openstack.config import OpenStackConfig
from openstack.connection import Connection
from openstack.proxy import Proxy
from requests import exceptions as requests
from urllib3.util import Retry as Retries

from frontinus.drivers.openstack import trouble
from frontinus.drivers.openstack.settings import OpenStackSettings
from frontinus.model.breaker import Breaker
from frontinus.model.errors import Bug, Invalid, Retry

log = structlog.get_logger()

_T = TypeVar("_T")
_THREADS = 16
_SAFE = frozenset({"GET", "HEAD"})
_COME_BACK = (502, 503, 504)
_HERE = threading.local()
"""`works`: this is a thread of a Cloud's, in which services may be asked."""


@contextmanager
def in_this_thread() -> Iterator[None]:
    """Meanwhile services may be asked in the calling thread: for a command that opens no transaction, has nothing to do but
    wait, and is to be ended by Ctrl-C at once."""
    before = getattr(_HERE, "works", False)
    _HERE.works = True
    try:
        yield
    finally:
        _HERE.works = before


class Cloud:
    """One account in one cloud, shared by whatever a driver does at the same time."""

    def __init__(self, settings: OpenStackSettings, connect: Callable[[OpenStackSettings], Connection] | None = None):
        """Reads clouds.yaml, asks nothing yet. `connect` makes the connection another way than from clouds.yaml. Raises
        Invalid naming the setting that cannot be."""
        settings.check()
        self.settings = settings
        self._connection = (connect or open_connection)(settings)
        self._threads = ThreadPoolExecutor(
            max_workers=_THREADS, thread_name_prefix="openstack", initializer=lambda: setattr(_HERE, "works", True)
        )
        self._finding = {name: threading.Lock() for name in trouble.NAME_OF}
        self._breakers = {
            name: Breaker(settings.breaker_threshold, settings.breaker_pause.total_seconds(), threading.Lock())
            for name in trouble.NAME_OF
        }
        self._last_seen: dict[str, str] = {}  # how each service failed last; one assignment of any thread's

    async def run(self, work: Callable[[], _T]) -> _T:
        """What `work` returns, done in a thread; each of its questions goes through `call`. Raises what it raises. Whoever is
        cancelled leaves the work to end by itself, as a process that is killed leaves it to whoever comes next."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def ask(self, service: str, question: Callable[[Any], _T]) -> _T:
        """One `call`, in a thread."""
        return await self.run(lambda: self.call(service, question))

    def call(self, service: str, question: Callable[[Any], _T]) -> _T:
        """What `question` returns, handed openstacksdk's proxy of the service (trouble.NAME_OF has their names). It asks one
        thing, and no generator leaves it. Blocks. Raises Retry when the service cannot be asked, and Refused when it will
        not do it."""
        if not getattr(_HERE, "works", False):
            raise Bug(f"{trouble.NAME_OF[service]} is asked outside of Cloud.run, where a transaction could be open")
        # Apart, so that Keystone's trouble is told as Keystone's. Without one of its own the call would log in by itself.
        self._watched("identity", self._connection.session.get_auth_headers)
        return self._watched(service, lambda: question(self._proxy(service)))

    def request(self, service: str, method: str, path: str, **words: Any) -> Any:
        """The document that is answered, None for none. Blocks. Raises as `call`; `words` are those of openstacksdk's proxies
        (`json`, `params`, `headers`, `microversion`)."""

        def question(proxy: Any) -> Any:
            response = proxy.request(path, method, **words)
            sdk.raise_from_response(response)
            require_whole(response)
            return response.json() if response.content else None

        return self.call(service, question)

    def listed(self, service: str, path: str, key: str, parameters: Mapping[str, object], **words: Any) -> list[Any]:
        """Everything in a list of Nova, Neutron or Glance, however many answers it takes: each gives as much at once as its
        operator lets it. Blocks. Raises as `call`."""
        found: list[Any] = []
        asked = dict(parameters)
        while True:
            answer = self.request(service, "GET", path, params=asked, **words)
            page = answer[key]
            found += page
            has_next = "next" in answer or any(x["rel"] == "next" for x in answer.get(f"{key}_links", ()))
            if not page or not has_next:
                return found
            # The link itself has the service's address as it sees it, which need not be one for us.
            asked["marker"] = page[-1]["id"]

    def delete(self, service: str, path: str, **words: Any) -> None:
        """The same for what shall not be there: what is not there is done already."""
        try:
            self.request(service, "DELETE", path, **words)
        except trouble.Refused as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise

    def _watched(self, service: str, question: Callable[[], _T]) -> _T:
        """What `question` returns, if the service's breaker lets it through."""
        breaker, name = self._breakers[service], trouble.NAME_OF[service]
        wait = breaker.refusal(time.monotonic())
        if wait is not None:
            raise Retry(
                f"{name} cannot be asked: {self._last_seen.get(service, 'it does not answer')}; it has failed "
                f"{self.settings.breaker_threshold} times in a row and is left alone for {wait:.0f} s",
                after=max(wait, 0.1),
                code=f"{name}-unavailable",
            )
        try:
            answer = question()
        except trouble.FOREIGN as error:
            if trouble.is_outage(error):
                self._last_seen[service] = trouble.why(error)
                breaker.failed(time.monotonic())
                log.warning("a service of OpenStack is out of order", service=name, reason=str(error))
            else:
                breaker.succeeded()
            raise trouble.told(service, error) from error
        breaker.succeeded()
        return answer

    def project_id(self) -> str:
        """Of the account: the project that what we own ourselves is in. Blocks. Raises Retry."""
        found = self.call("identity", lambda identity: identity.session.get_project_id(identity.session.auth))
        if not found:
            raise Retry(
                f"the account of cloud {self.settings.cloud!r} in clouds.yaml works in no project; name one there",
                after=trouble.LATER_S,
                code=f"{trouble.NAME_OF['identity']}-forbidden",
            )
        return str(found)

    def region(self) -> str:
        """The one that clouds.yaml names; empty where it names none, and any will do. Blocks. Raises Retry."""
        named: object = self.call("identity", lambda identity: identity.region_name)
        return str(named or "")

    def user_id(self) -> str:
        """Of the account. Blocks. Raises Retry."""
        return str(self.call("identity", lambda identity: identity.session.get_user_id(identity.session.auth)))

    async def close(self) -> None:
        """Waits for what is under way."""
        await asyncio.to_thread(self._threads.shutdown)
        self._connection.close()

    def _proxy(self, service: str) -> Proxy:
        # Where a service is, is found out when it is first asked, which two threads must not do at once.
        with self._finding[service]:
            proxy: Proxy = getattr(self._connection, service)
        return proxy


def require_whole(response: Any) -> None:
    """Raises one of trouble.FOREIGN for an answer that was cut in its head: what is left of it would pass for an empty one. Where
    its body was cut, requests has said so."""
    is_told = {"content-length", "transfer-encoding"} & {x.lower() for x in response.headers}
    if not is_told and not response.content and response.status_code != HTTPStatus.NO_CONTENT:
        raise requests.ConnectionError("the answer was cut")


def open_connection(settings: OpenStackSettings) -> Connection:
    """Asks nothing yet. Raises Invalid when clouds.yaml does not say enough."""
    try:
        region = OpenStackConfig(app_name="frontinus").get_one(
            cloud=settings.cloud,
            api_timeout=settings.timeout.total_seconds(),
            # Of its own accord openstacksdk asks Glance for a quarter of a minute more.
            image_status_code_retries=0,
        )
        # Strict: what the catalogue lacks today is looked for again tomorrow.
        connection = Connection(config=region, strict_proxies=True)
        sending: Any = connection.session.session
    except trouble.FOREIGN as error:
        # What stands in the file is secret; these messages name entries and options only.
        raise Invalid(
            "openstack.cloud", f"clouds.yaml does not tell how to log in as {settings.cloud!r}: {error}"
        ) from error
    retries = Retries(
        total=settings.retries,
        connect=settings.retries,  # nothing was sent
        read=settings.retries,
        status=settings.retries,
        other=0,
        allowed_methods=_SAFE,
        status_forcelist=_COME_BACK,
        backoff_factor=0.2,
        raise_on_status=False,
        # A service may name an hour; the controller knows better how long to wait.
        respect_retry_after_header=False,
    )
    for scheme in ("http://", "https://"):
        sending.mount(scheme, TCPKeepAliveAdapter(max_retries=retries, pool_maxsize=_THREADS))
    return connection
