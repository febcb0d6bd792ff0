"""Threads that share out tiles, against a plain loop."""

import time
from concurrent.futures import CancelledError
from threading import Thread, active_count

import numpy as np
import pytest
import torch

from unic.neighbors.exact.threads import Room, Turns, in_threads, single_threaded_products


@pytest.fixture(params=[1, 3])
def n_threads(request: pytest.FixtureRequest):
    former = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(former)


def work_through(work, items, **options) -> list:
    with single_threaded_products():
        return list(in_threads(work, items, 4, **options))


# Work


@pytest.mark.usefixtures("n_threads")
def test_all_is_done_once() -> None:
    found = work_through(lambda item, _: item**2, iter(range(50)))
    assert sorted(found) == [item**2 for item in range(50)]


def test_as_many_work_at_once_as_torch_may_use(n_threads: int) -> None:
    rooms = work_through(lambda _, room: (time.sleep(0.02), room)[1], range(30))
    assert len({id(room) for room in rooms}) == n_threads
    assert torch.get_num_threads() == n_threads


def test_products_are_computed_in_one_thread_each(n_threads: int) -> None:
    assert work_through(lambda *_: torch.get_num_threads(), range(6)) == [1] * 6
    assert torch.get_num_threads() == n_threads


@pytest.mark.usefixtures("n_threads")
def test_an_error_ends_all_threads_and_is_told() -> None:
    before, ended = active_count(), []

    def fail(item: int, _: Room) -> int:
        if item == 5:
            raise ValueError(f"item {item} is broken")
        return item

    with pytest.raises(ValueError, match="item 5 is broken"):
        work_through(fail, range(10**6), on_end=lambda: ended.append(True))
    assert (active_count(), ended) == (before, [True])


@pytest.mark.usefixtures("n_threads")
def test_who_stops_asking_ends_all_threads() -> None:
    before = active_count()
    with single_threaded_products():
        results = in_threads(lambda item, _: item, range(10**6), 4)
        assert next(results) >= 0
        results.close()
    assert active_count() == before


# Turns


def test_a_tile_follows_the_one_above_it() -> None:
    turns, done = Turns(4), []
    generator = np.random.default_rng(0)
    pauses = generator.uniform(0, 2e-3, size=(4, 6))

    def read(row: int) -> None:
        for column in range(row, 6):
            turns.wait(row, column)
            time.sleep(pauses[row, column])
            done.append((row, column))
            turns.finish(row, column)

    threads = [Thread(target=read, args=(row,)) for row in (3, 1, 2, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [(row, column) for row in range(4) for column in range(row, 6)]
    for row, column in done:
        if row:
            assert done.index((row - 1, column)) < done.index((row, column))


def test_cancelling_wakes_who_waits() -> None:
    turns, woken = Turns(2), []

    def wait() -> None:
        with pytest.raises(CancelledError):
            turns.wait(1, 0)
        woken.append(True)

    thread = Thread(target=wait)
    thread.start()
    turns.cancel()
    thread.join(timeout=10)
    assert woken == [True]
    with pytest.raises(CancelledError):
        turns.wait(0, 0)


# Room


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_tiles_have_their_shape_and_do_not_overlap(dtype: torch.dtype) -> None:
    high, low = Room(12).tiles(dtype, 3, 4, has_low=True)
    assert high.dtype == low.dtype == (torch.float32 if dtype == torch.float32 else torch.int32)
    assert high.shape == low.shape == (3, 4)
    high.fill_(1)
    low.fill_(2)
    assert (high == 1).all()
    assert (low == 2).all()


def test_a_tile_without_fine_digits_has_no_second_one() -> None:
    room = Room(12)
    high, low = room.tiles(torch.float32, 2, 5, has_low=False)
    assert (high.shape, low.shape) == ((2, 5), (0, 0))
    again, _ = room.tiles(torch.float32, 2, 6, has_low=False)
    assert again.data_ptr() == high.data_ptr()  # the same memory


def test_a_tile_larger_than_the_room_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="invalid for input of size 12"):
        Room(12).tiles(torch.float32, 4, 4, has_low=False)


@pytest.mark.parametrize("shapes", [[(3, 4)], [(3, 4), (5, 8), (2, 4)]])
def test_digits_are_swapped(shapes: list[tuple[int, int]]) -> None:
    room = Room(1)
    for shape in shapes:  # larger, then smaller ones
        digits = torch.from_numpy(
            np.random.default_rng(0).integers(-127, 128, shape, dtype=np.int8)
        )
        half = shape[1] // 2
        expected = torch.cat([digits[:, half:], digits[:, :half]], 1)
        assert torch.equal(room.swapped(digits), expected)
