"""What many viewers see is made once for all of them, and again once it is old."""

from __future__ import annotations

import asyncio

import pytest

from api.dashboard.shared_pictures import SharedPictures


class Maker:
    """Makes pictures that a test lets go of one by one, by a clock that the test turns."""

    def __init__(self, *, most: int = 64) -> None:
        self.now = 100.0
        self.made: list[str] = []
        self.may = asyncio.Event()
        self.may.set()
        self.problem: Exception | None = None
        self.pictures: SharedPictures[str, int] = SharedPictures(
            self._make, fresh_s=1.0, most=most, now=lambda: self.now
        )

    async def _make(self, key: str) -> int:
        self.made.append(key)
        await self.may.wait()
        if self.problem is not None:
            raise self.problem
        return len(self.made)


async def test_fifty_viewers_at_once_have_one_picture_made() -> None:
    maker = Maker()
    assert set(await asyncio.gather(*(maker.pictures.get("all") for _ in range(50)))) == {1}


async def test_a_picture_is_made_again_once_it_is_a_second_old() -> None:
    maker = Maker()
    assert await maker.pictures.get("all") == 1
    maker.now += 0.99
    assert await maker.pictures.get("all") == 1
    maker.now += 0.01
    assert await maker.pictures.get("all") == 2


async def test_each_key_has_a_picture_of_its_own() -> None:
    maker = Maker()
    assert [await maker.pictures.get("ann"), await maker.pictures.get("ben"), await maker.pictures.get("ann")] == [
        1,
        2,
        1,
    ]


async def test_one_that_is_asked_for_at_once_is_begun_now() -> None:
    maker = Maker()
    assert await maker.pictures.get("all") == 1
    assert await maker.pictures.get("all", at_once=True) == 2


async def test_a_viewer_who_leaves_takes_the_picture_from_nobody() -> None:
    maker = Maker()
    maker.may.clear()
    leaving, staying = (asyncio.create_task(maker.pictures.get("all")) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    maker.may.set()
    assert await staying == 1


async def test_what_failed_is_tried_again_by_the_next_viewer() -> None:
    maker = Maker()
    maker.problem = OSError("away")
    with pytest.raises(OSError, match="away"):
        await maker.pictures.get("all")
    maker.problem = None
    assert await maker.pictures.get("all") == 2


async def test_of_too_many_keys_the_one_that_was_not_asked_for_longest_is_forgotten() -> None:
    maker = Maker(most=2)
    for key in ("ann", "ben", "ann", "cat", "ann", "ben"):
        await maker.pictures.get(key)
    assert maker.made == ["ann", "ben", "cat", "ben"]
