"""What a change does to the nginx of one amphora, in words for the tenant. Pure.

The text is shown, since nothing private is in it; of other files only that they differ."""

from __future__ import annotations

from collections.abc import Sequence

from frontinus.drivers.amphora.agent.files import CONFIGURATION, marks
from frontinus.drivers.amphora.interface import RenderedFile
from frontinus.model.previews import Preview, unified


def preview_of_nginx(before: Sequence[RenderedFile], after: Sequence[RenderedFile]) -> Preview:
    """See AmphoraDriver.preview; of the files alone."""
    if marks(before) == marks(after):
        return Preview(action="unchanged")
    diff = unified(_shown(before), _shown(after), CONFIGURATION)
    runs, shall_run = (any(file.name == CONFIGURATION for file in files) for files in (before, after))
    if not shall_run:
        return Preview(action="stop" if runs else "unchanged", diff=diff)
    if not runs:
        return Preview(action="start", diff=diff)
    return Preview(action="reload", reason="nginx changes by a reload only", diff=diff)


def _shown(files: Sequence[RenderedFile]) -> str:
    text = "".join(file.content.decode() for file in files if file.name == CONFIGURATION)
    beside = [f"# beside it: {x.name}, {x.sha256[:12]}" for x in marks(files) if x.name != CONFIGURATION]
    return "\n".join([text, *beside])
