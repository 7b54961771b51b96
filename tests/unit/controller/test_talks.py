"""Talks with amphorae that end, or are ended, while they go on."""

from __future__ import annotations

import asyncio

import pytest

from frontinus.controller.talks import Talks
from frontinus.model.errors import Retry
from frontinus.model.ids import AmphoraId

ONE, OTHER = AmphoraId("one"), AmphoraId("other")


async def begun(talks: Talks, ended: list[str]) -> asyncio.Task[None]:
    """Somebody who talks with ONE for ever."""
    speaking = asyncio.Event()

    async def talk() -> None:
        try:
            speaking.set()
            await asyncio.Event().wait()
        finally:
            ended.append("talk")

    holder = asyncio.create_task(talks.hold(ONE, talk()))
    await speaking.wait()
    return holder


async def test_what_a_talk_comes_to_is_handed_on() -> None:
    async def answer() -> int:
        return 7

    async def trouble() -> int:
        raise Retry("no", after=1)

    talks = Talks()
    assert await talks.hold(ONE, answer()) == 7
    with pytest.raises(Retry, match="no"):
        await talks.hold(ONE, trouble())


async def test_only_talks_with_those_are_broken_off() -> None:
    talks, ended = Talks(), list[str]()
    holder = await begun(talks, ended)
    talks.break_off([OTHER])
    await asyncio.sleep(0)
    assert not holder.done()
    talks.break_off([ONE])
    with pytest.raises(Retry) as broken:
        await holder
    assert broken.value.code == "amphora-ended"
    assert ended == ["talk"]


@pytest.mark.parametrize("order", ["cancelled", "broken off first", "cancelled first"])
async def test_who_is_cancelled_is_and_his_talk_has_ended_by_then(order: str) -> None:
    """As where a lease is lost: nothing may be said in its name any more."""
    talks, ended = Talks(), list[str]()
    holder = await begun(talks, ended)
    if order == "broken off first":
        talks.break_off([ONE])
    holder.cancel()
    if order == "cancelled first":
        talks.break_off([ONE])
    with pytest.raises(asyncio.CancelledError):
        await holder
    assert ended == ["talk"]
