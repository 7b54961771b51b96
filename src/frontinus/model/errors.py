"""Who is wrong, and whether to try again. HTTP codes are mapped once, in api/errors.py.

    FrontinusError
    ├── CallerError            the caller is wrong: field and reason; repeating it will not help
    │   ├── Invalid            a value or a combination of values
    │   ├── NotFound           the object, or one that it refers to, is not there
    │   ├── Conflict           it clashes with something that exists
    │   ├── Immutable          the object cannot be changed now (being deleted, or strict mode)
    │   ├── OverQuota          the project may not have more of them
    │   └── Unsupported        the driver cannot honour it
    ├── WorldError             the world is not ready; try again
    │   ├── Retry              after so many seconds
    │   │   └── NoFreeAddress  a subnet has none left
    │   ├── Gone               the amphora or its place is not there any more
    │   ├── Incompatible       the amphora is of a version that this driver does not serve
    │   ├── BindRefused        the amphora's kernel does not give an address and port
    │   ├── NoTurn             as many amphorae are being replaced as may be at a time
    │   └── LeaseLost          another controller owns the load balancer now
    ├── Rejected               a driver found that the document cannot work; waits for the user
    └── Bug                    we are wrong
        └── Unreadable         a row of the database is none that this version can write

A message tells a person what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from frontinus.model.enums import Kind
from frontinus.model.ids import SubnetId

NO_FREE_ADDRESS_AFTER_S = 30.0


@dataclass(frozen=True)
class Subject:
    """The object of a tree that an error is about."""

    kind: Kind
    id: str


class FrontinusError(Exception):
    """Base of all errors that Frontinus raises on purpose. `subject` is the object that it is about, where one is."""

    subject: Subject | None = None


class blaming:  # noqa: N801 - read as a verb: `with blaming(Kind.MEMBER, member.id): ...`
    """Say of an error that is raised inside which object it is about, unless one further inside has said so."""

    __slots__ = ("_id", "_kind")

    def __init__(self, kind: Kind, object_id: str) -> None:
        self._kind, self._id = kind, object_id

    def __enter__(self) -> None:
        return

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, FrontinusError) and error.subject is None:
            error.subject = Subject(self._kind, self._id)


class CallerError(FrontinusError):
    """What was asked cannot be done as asked. `field` names the attribute, in our own words or dotted path."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


class Invalid(CallerError):
    """A value, or a combination of values, that is never right."""


class NotFound(CallerError):
    """`field` is the kind of object, `reason` names the id."""


class Conflict(CallerError):
    """It clashes with an object that exists: a port, an address, a second health monitor."""


class Immutable(CallerError):
    """The object is being deleted, or the installation is strict and a change is under way."""


class OverQuota(CallerError):
    """The project would have more objects of a kind than it may; `field` is the kind."""


class Unsupported(CallerError):
    """The driver that would carry this load balancer cannot honour the field."""


class WorldError(FrontinusError):
    """Something outside is not ready. Trying again later can succeed."""


class Retry(WorldError):
    """Try again after `after` seconds. The message says what is missing and what a person could do about it."""

    def __init__(self, reason: str, *, after: float, code: str = "unavailable") -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after
        self.code = code

    @property
    def is_outage(self) -> bool:
        """Whether a service that Frontinus itself works with gives no answer, to anybody: `nova-unavailable` and the like."""
        return self.code.endswith("-unavailable")


class Unconfirmed(Retry):
    """What was asked may have been done or not; whoever tries again looks first."""


class NoFreeAddress(Retry):
    """Every address of a subnet's pool is given. Somebody else on other subnets is not concerned."""

    def __init__(self, subnet_id: SubnetId, reason: str) -> None:
        super().__init__(reason, after=NO_FREE_ADDRESS_AFTER_S, code="no-free-address")
        self.subnet_id = subnet_id


class Gone(WorldError):
    """The amphora, or the place it ran in, does not exist any more."""


class Incompatible(WorldError):
    """The agent's version is outside what the driver serves."""

    def __init__(self, found: str, needed: str) -> None:
        super().__init__(f"the amphora runs agent {found}, this driver serves {needed}; the amphora must be replaced")
        self.found = found
        self.needed = needed


@dataclass(frozen=True)
class RefusedBind:
    """One address and port that the amphora's kernel would not give. `errno` is the symbolic name, as EADDRINUSE."""

    listener_id: str
    address: str
    port: int
    errno: str


class BindRefused(WorldError):
    """Some listeners could not bind; nothing was changed. The others can still be applied without these."""

    def __init__(self, binds: tuple[RefusedBind, ...]) -> None:
        super().__init__("; ".join(f"{b.address} port {b.port}: {b.errno}" for b in binds))
        self.binds = binds


class NoTurn(WorldError):
    """As many amphorae are being replaced as the installation allows at a time."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} load balancers are having amphorae replaced, which is the limit")


class LeaseLost(WorldError):
    """The lease ran out and another controller may own the load balancer: stop, write nothing."""


class Rejected(FrontinusError):
    """The document cannot work on this amphora, whatever the number of tries. Waits for the user to change it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Bug(FrontinusError):
    """We are wrong. Reported as such; the operator should send the log."""


class Unreadable(Bug):
    """A row is none that this version could have written. It concerns the load balancer that the row belongs to, and nobody
    else: whoever reads many goes on with the others."""

    def __init__(self, table: str, key: object, why: str) -> None:
        super().__init__(
            f"the row {key} of the table {table} cannot be understood ({why}): a newer version of Frontinus wrote it, or "
            f"somebody by hand. Run that version, or put the row right"
        )
