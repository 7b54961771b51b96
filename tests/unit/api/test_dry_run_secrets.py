"""What a dry run says of a secret that its user may read, and Frontinus may not before it is meant."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from frontinus.api.calls import json_response
from frontinus.api.dry_run import _not_let_in
from frontinus.api.written import Written
from frontinus.model.enums import FaultPhase, ListenerProtocol
from frontinus.model.previews import Answer
from frontinus.model.tree import Fault, LoadBalancerTree

from tests.unit.model.samples import listener, tree

pytestmark = pytest.mark.unit


def referring(*references: str) -> LoadBalancerTree:
    return tree(
        *(
            listener(id=x, protocol=ListenerProtocol.TERMINATED_HTTPS, default_tls_container_ref=x, protocol_port=port)
            for port, x in enumerate(references, 1)
        )
    )


@pytest.mark.parametrize(
    "before, expected",
    [
        pytest.param(referring("ref:old"), True, id="it is named by this request"),
        pytest.param(referring("ref:old", "ref:new"), False, id="it was named before"),
        pytest.param(None, True, id="a whole tree"),
    ],
)
def test_it_is_told_only_of_what_the_request_names(before: LoadBalancerTree | None, expected: bool) -> None:
    fault = Fault(
        code="secret-unreadable",
        phase=FaultPhase.SECRET,
        message="default_tls_container_ref: ref:new: may not be read",
        since=datetime(2026, 1, 1, tzinfo=UTC),
    )
    written = Written(answer=json_response({}), before=before, after=referring("ref:old", "ref:new"), shown=dict)
    assert (_not_let_in(written, Answer(faults=(fault,))) is not None) == expected
    assert _not_let_in(written, Answer()) is None
