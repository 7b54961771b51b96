"""What a write came to, inside its transaction: the answer, and what a dry run tells beside it. Values only."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from starlette.responses import Response

from frontinus.api.rendering import Wire
from frontinus.model.ids import AmphoraId
from frontinus.model.tree import LoadBalancerTree


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """`before` and `after` are the tree that was written; without `after` there is nothing that amphorae run. `replaced`
    are amphorae that are to be replaced. `shown` makes the body of a dry run where the answer has none."""

    answer: Response
    before: LoadBalancerTree | None = None
    after: LoadBalancerTree | None = None
    replaced: tuple[AmphoraId, ...] = ()
    shown: Callable[[], Wire] = dict
