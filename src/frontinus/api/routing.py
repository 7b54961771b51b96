"""Which operation a method and a path name. A tree of path segments; the table of operations is app.py's.

The contract's own ways are here: /v2.0 is /v2, a trailing slash and a suffix .json are ignored, any known prefix is cut
off, a method in the wrong place is 400 on collections and items and 405 elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from frontinus.api.calls import Handler
from frontinus.api.errors import HttpError
from frontinus.model.errors import Invalid

WRITES = frozenset({"POST", "PUT", "DELETE"})
"""Methods of operations that change something; each of them can be tried (dry_run.py)."""


class Body(Enum):
    NONE = auto()
    OPTIONAL = auto()
    REQUIRED = auto()


class Place(Enum):
    """What a path names; decides what a method that is not offered there is answered with."""

    COLLECTION = auto()
    ITEM = auto()
    OTHER = auto()


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked. `path` has variable segments in braces; `id` names it in metrics and in the OpenAPI
    document; `arguments` are its query arguments, None where any may stand."""

    id: str
    method: str
    path: str
    handler: Handler
    summary: str
    place: Place = Place.OTHER
    body: Body = Body.NONE
    arguments: frozenset[str] | None = frozenset()
    resource: str | None = None
    success: int = 200
    plain: bool = False
    """Whether it stands outside the API proper: no authentication, no media types."""


@dataclass(frozen=True)
class Route:
    """Where a request goes, and the prefix that was cut off its path."""

    operation: Operation
    params: dict[str, str]
    prefix: str


@dataclass
class _Node:
    literal: dict[str, _Node] = field(default_factory=dict)
    variable: _Node | None = None
    name: str = ""
    operations: dict[str, Operation] = field(default_factory=dict)


PREFIXES = ("load-balancer",)
"""Where proxies mount the API, without them taking the prefix off."""


class Router:
    def __init__(self, operations: Iterable[Operation], collections: frozenset[str]) -> None:
        """`collections` may also be asked for without /lbaas between them and the version."""
        self._root = _Node()
        self._collections = collections
        for operation in operations:
            node = self._root
            for segment in _segments(operation.path):
                if segment.startswith("{"):
                    node.variable = node.variable or _Node(name=segment.strip("{}"))
                    node = node.variable
                else:
                    node = node.literal.setdefault(segment, _Node())
            node.operations[operation.method] = operation

    def route(self, method: str, path: str) -> Route | None:
        """The operation; None for OPTIONS, which is answered the same everywhere. Raises HttpError 404 or 405, or
        Invalid where the contract has 400 for a method in the wrong place."""
        segments, prefix = self._normalised(path)
        node, params = self._walk(segments)
        if method == "OPTIONS":
            return None
        operation = node.operations.get(method)
        if operation is not None:
            return Route(operation, params, prefix)
        places = {x.place for x in node.operations.values()}
        if Place.ITEM in places and method == "POST":
            raise Invalid("", "POST makes objects: send it to the collection, without an id")
        if Place.COLLECTION in places and method in ("PUT", "DELETE"):
            raise Invalid("", f"{method} needs the id of an object in the path")
        raise HttpError(405, f"{method} is not offered here", {"Allow": ", ".join(sorted(node.operations))})

    def _normalised(self, path: str) -> tuple[list[str], str]:
        segments = _segments(path)
        prefix = ""
        if segments and segments[0] in PREFIXES:
            prefix = f"/{segments.pop(0)}"
        if segments and segments[0] == "v2.0":
            segments[0] = "v2"
        if segments and segments[-1].endswith(".json") and segments != ["docs", "openapi.json"]:
            segments[-1] = segments[-1].removesuffix(".json")
        if len(segments) > 1 and segments[0] == "v2" and segments[1] in self._collections:
            segments.insert(1, "lbaas")
        return segments, prefix

    def _walk(self, segments: list[str]) -> tuple[_Node, dict[str, str]]:
        node = self._root
        params: dict[str, str] = {}
        for segment in segments:
            found = node.literal.get(segment)
            if found is None and segment:
                found = node.variable
                if found is not None:
                    params[found.name] = segment
            if found is None:
                raise HttpError(404, "nothing is here")
            node = found
        if not node.operations:
            raise HttpError(404, "nothing is here")
        return node, params


def _segments(path: str) -> list[str]:
    trimmed = path.removeprefix("/").removesuffix("/")
    return trimmed.split("/") if trimmed else []
