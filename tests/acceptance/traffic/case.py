"""A case: the rows that it answers for, what is created over the API for it, and the traffic that proves them.

Cases of a group share one load balancer, which one call creates as a whole; each has a listener, members and a port of
its own on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from tests.acceptance.traffic.stage import Stage

Fields: TypeAlias = dict[str, Any]
Proof: TypeAlias = "Callable[[Stage], Awaitable[None]]"
Decorator: TypeAlias = Callable[[Proof], Proof]


@dataclass(frozen=True)
class Secret:
    """Stands in a tree for the reference to a stored secret of this name (secrets.py)."""

    name: str


@dataclass(frozen=True)
class TlsServer:
    """A member that speaks TLS and answers with how it was spoken to; `bind` are more words of its bind line.

    `certificate` is the name of one of secrets.py."""

    bind: str = ""
    certificate: str = "member"


@dataclass(frozen=True)
class Case:
    """`members` are attributes beyond address and port, and `servers` who is behind each of them: "http", "udp", "http6"
    (on ::1), a TlsServer, or how a connection is served. `listener` None: the proof makes what it needs itself."""

    name: str
    rows: tuple[str, ...]
    prove: Proof
    listener: Fields | None
    pool: Fields | None
    members: Sequence[Fields]
    servers: Sequence[Any]
    monitor: Fields | None
    policies: Sequence[Fields]
    expect: Any
    long: bool


@dataclass
class Group:
    """`load_balancer` are attributes of the one that its cases share."""

    name: str
    load_balancer: Fields = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)

    def case(
        self,
        *rows: str,
        name: str = "",
        listener: Fields | None = None,
        pool: Fields | None = None,
        members: Sequence[Fields] | int = 1,
        servers: Sequence[Any] | str | TlsServer = "http",
        monitor: Fields | None = None,
        policies: Sequence[Fields] = (),
        expect: Any = None,
        long: bool = False,
        bare: bool = False,
    ) -> Decorator:
        """A decorator that makes a case of a proof; several may stand on one, each with a `name` of its own.

        What is not said is an HTTP listener over an HTTP pool with one member. `bare`: nothing is made beforehand."""
        asked = [{} for _ in range(members)] if isinstance(members, int) else members
        behind = [servers] * len(asked) if isinstance(servers, str | TlsServer) else servers
        assert len(asked) == len(behind), "a server for each member"

        def add(prove: Proof) -> Proof:
            words = prove.__name__.replace("_", " ")
            self.cases.append(
                Case(
                    name=f"{words}, {name}" if name else words,
                    rows=rows,
                    prove=prove,
                    listener=None if bare else {"protocol": "HTTP", **(listener or {})},
                    pool=None if bare or (not asked and pool is None) else {"protocol": "HTTP", **(pool or {})},
                    members=asked,
                    servers=behind,
                    monitor=monitor,
                    policies=policies,
                    expect=expect,
                    long=long,
                )
            )
            return prove

        return add
