"""What a change does to the nginx of one amphora, in words for the tenant. Pure.

The text is shown, since nothing private is in it; of other files only that they differ."""

from __future__ import annotations

from collections.abc import Sequence

from frontinus.drivers.amphora.agent.files import TEXTS_BESIDE, marks
from frontinus.drivers.amphora.interface import RenderedFile
from frontinus.model.previews import Preview, unified


def preview_of_nginx(before: Sequence[RenderedFile], after: Sequence[RenderedFile]) -> Preview:
    """See AmphoraDriver.preview; of the files alone."""
    if marks(before) == marks(after):
        return Preview(action="unchanged")
    diff = "".join(unified(_shown(before, name), _shown(after, name), name) for name in TEXTS_BESIDE)
    runs, shall_run = (any(file.name in TEXTS_BESIDE for file in files) for files in (before, after))
    if not shall_run:
        return Preview(action="stop" if runs else "unchanged", diff=diff)
    if not runs:
        return Preview(action="start", diff=diff)
    return Preview(action="reload", reason="nginx changes by a reload only", diff=diff)


def _shown(files: Sequence[RenderedFile], name: str) -> str:
    """One text; with the first of them, what else there is."""
    text = "".join(file.content.decode() for file in files if file.name == name)
    others = [x for x in marks(files) if x.name not in TEXTS_BESIDE] if name == TEXTS_BESIDE[0] else []
    return "\n".join([text, *(f"# beside it: {x.name}, {x.sha256[:12]}" for x in others)])
