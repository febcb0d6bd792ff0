"""Threads that share out the tiles of a pass, each with memory of its own."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import ContextVar
from queue import SimpleQueue
from threading import Condition, Event, Lock, Thread
from typing import TypeVar, cast

import torch
from threadpoolctl import threadpool_limits

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_n_threads: ContextVar[int] = ContextVar("n_threads", default=1)


class Room:
    """Memory for the tiles of one thread."""

    def __init__(self, n_entries: int) -> None:
        self._entries = torch.empty((2, n_entries), dtype=torch.int32)
        self._digits = torch.empty(0, dtype=torch.int8)
        self._kept: tuple[object, object] = (None, None)

    def keep(self, item: _Item, make: Callable[[_Item], _Result]) -> _Result:
        """What is made of an item, kept until another item comes."""
        of, result = self._kept
        if of is not item:
            result = make(item)
            self._kept = (item, result)
        return cast("_Result", result)

    def swapped(self, digits: torch.Tensor) -> torch.Tensor:
        """Digits ``(c, 2 d)``, the fine ones first; they live until the next."""
        if self._digits.numel() < digits.numel():
            self._digits = torch.empty(digits.numel(), dtype=torch.int8)
        swapped = self._digits[: digits.numel()].view(digits.shape)
        n_dims = digits.shape[1] // 2
        swapped[:, :n_dims], swapped[:, n_dims:] = digits[:, n_dims:], digits[:, :n_dims]
        return swapped

    def tiles(
        self, dtype: torch.dtype, n_rows: int, n_columns: int, *, has_low: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Two tiles ``(b, c)``, or one and ``(0, 0)``, of four-byte entries."""
        entries = self._entries.view(dtype if dtype == torch.float32 else torch.int32)
        size = n_rows * n_columns
        high = entries[0, :size].view(n_rows, n_columns)
        low = entries[1, :size].view(n_rows, n_columns) if has_low else high[:0, :0]
        return high, low


class Turns:
    """The order in which threads may scan tiles: each after the tile above it."""

    def __init__(self, n_rows: int) -> None:
        self._n_done = [0 for _ in range(n_rows)]  # tiles of each row, the missing ones counted
        self._is_cancelled = False
        self._condition = Condition()

    def wait(self, row: int, column: int) -> None:
        """Wait until the tile above is done.

        Raises:
            CancelledError: If the others were told to stop.
        """

        def is_free() -> bool:
            return self._is_cancelled or row == 0 or self._n_done[row - 1] > column

        with self._condition:
            self._condition.wait_for(is_free)
            if self._is_cancelled:
                raise CancelledError

    def finish(self, row: int, column: int) -> None:
        """Note that a tile is done."""
        with self._condition:
            self._n_done[row] = column + 1
            self._condition.notify_all()

    def cancel(self) -> None:
        """Wake all that wait, and let nobody wait again."""
        with self._condition:
            self._is_cancelled = True
            self._condition.notify_all()


def in_threads(
    work: Callable[[_Item, Room], _Result],
    items: Iterable[_Item],
    n_entries: int,
    *,
    on_end: Callable[[], None] = lambda: None,
) -> Iterator[_Result]:
    """Do pieces of work in as many threads as torch may use; yield results as they come.

    An error of one piece is raised here.

    Args:
        work: Does a piece, in a room of its thread.
        items: The pieces.
        n_entries: Of a tile of the room.
        on_end: Called when no more is wanted, to wake threads that wait.
    """
    results: SimpleQueue[_Result | BaseException | None] = SimpleQueue()
    lock, remaining = Lock(), iter(items)
    is_over = Event()

    def run() -> None:
        torch.set_num_threads(1)  # a setting of each thread
        room = Room(n_entries)
        try:
            while not is_over.is_set():
                with lock:
                    item = next(remaining, None)
                if item is None:
                    break
                results.put(work(item, room))
        except BaseException as error:
            results.put(error)
        results.put(None)

    threads = [Thread(target=run) for _ in range(_n_threads.get())]
    for thread in threads:
        thread.start()
    n_running = len(threads)
    try:
        while n_running:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                n_running -= 1
            else:
                yield result
    finally:
        is_over.set()
        on_end()
        for thread in threads:
            thread.join()


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Compute each product in one thread: several would wait for each other at a busy core."""
    n_threads = torch.get_num_threads()
    token = _n_threads.set(n_threads)
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(n_threads)
        _n_threads.reset(token)
