"""Processes that train one model together, each on its share of every batch."""

import logging
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from logging import FileHandler
from pathlib import Path
from threading import Thread
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

T = TypeVar("T")


class Processes(NamedTuple):
    """This process among those of ``torch.distributed``.

    All draw the same batches. Each computes the predictions of its share, gets those of the
    others, and computes the loss of the whole batch; its gradient is the part of the whole
    gradient that goes through its share, so the sum over the processes is the gradient of one
    process with the whole batch. That holds for the entropy and the pairs within a batch too.
    """

    rank: int = 0
    size: int = 1

    def place(self, device: torch.device) -> torch.device:
        """The device of this process: a GPU each.

        Args:
            device: That of the setting: ``cuda``, or another, which is left as it is.

        Raises:
            ValueError: If there are fewer GPUs than processes.
        """
        if device.type != "cuda" or self.size == 1:
            return device
        local = int(os.environ.get("LOCAL_RANK", self.rank))
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"machine.processes must be at most the {torch.cuda.device_count()} GPUs, got "
                f"{self.size}"
            )
        torch.cuda.set_device(local)
        return torch.device("cuda", local)

    def positions(self, n_rows: int, batch_size: int) -> NDArray[np.int64] | None:
        """Where this process's images are in a raveled batch of shape ``(r, b)``.

        Returns:
            Shape ``(r b / p,)``, None for all images of a process that is alone.

        Raises:
            ValueError: If the batch cannot be shared out evenly.
        """
        if self.size == 1:
            return None
        if batch_size % self.size:
            raise ValueError(
                f"batch_size must be a multiple of the {self.size} processes, got {batch_size}"
            )
        columns = np.split(np.arange(batch_size), self.size)[self.rank]  # (b / p,)
        return (np.arange(n_rows)[:, None] * batch_size + columns).ravel()

    def gather(self, outputs: Tensor) -> Tensor:
        """Outputs ``(r, b / p, c)`` of all processes, ``(r, b, c)``; own ones keep a graph."""
        if self.size == 1:
            return outputs
        parts = [torch.empty_like(outputs) for _ in range(self.size)]
        distributed.all_gather(parts, outputs.detach().contiguous())
        parts[self.rank] = outputs
        return torch.cat(parts, dim=1)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its sum over the processes, in place.

        Args:
            parameters: The same in all processes, in one order, and those that have a gradient too.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


ALONE = Processes()


def run_together(
    function: Callable[[T, Processes], None], argument: T, *, n_processes: int
) -> None:
    """Call a function in several processes that know of each other.

    One process is this one. Under ``torchrun``, which starts processes on several machines, this
    process joins those. Otherwise new ones are started on this machine, which end with this one.

    Args:
        function: Defined at the top of a module; called with the argument and the process.
        argument: Can be pickled.
        n_processes: At least 1; not used under ``torchrun``.

    Raises:
        ChildProcessError: If a process fails; the others are then ended.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        _call(function, argument, Processes(rank, size), "env://")
    elif n_processes == 1:
        function(argument, ALONE)
    else:
        with tempfile.TemporaryDirectory() as folder:
            logs = [h.baseFilename for h in logging.root.handlers if isinstance(h, FileHandler)]
            Path(folder, "task").write_bytes(pickle.dumps((function, argument, logs, os.getpid())))
            # Not multiprocessing: it would run the script again that this process runs.
            code = "import sys; from unic.runtime.processes import join; join(*sys.argv[1:])"
            started = [
                subprocess.Popen([sys.executable, "-c", code, folder, str(rank), str(n_processes)])
                for rank in range(n_processes)
            ]
            _wait(started)


def join(folder: str, rank: str, size: str) -> None:
    """Join, as one of the processes that :func:`run_together` started."""
    function, argument, logs, parent = pickle.loads(Path(folder, "task").read_bytes())
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    handlers: list[logging.Handler] = [logging.StreamHandler(), *map(FileHandler, logs)]
    logging.basicConfig(level=logging.INFO if rank == "0" else logging.WARNING, handlers=handlers)
    meeting = Path(folder, "meeting").as_uri()
    _call(function, argument, Processes(int(rank), int(size)), meeting)


def _call(
    function: Callable[[T, Processes], None], argument: T, processes: Processes, meeting: str
) -> None:
    has_gpus = torch.cuda.is_available() and torch.cuda.device_count() >= processes.size
    distributed.init_process_group(
        "nccl" if has_gpus else "gloo",
        init_method=meeting,
        rank=processes.rank,
        world_size=processes.size,
    )
    try:
        function(argument, processes)
    finally:
        distributed.destroy_process_group()


def _wait(started: Sequence["subprocess.Popen[bytes]"]) -> None:
    try:
        while any(process.poll() is None for process in started):
            failed = [process.returncode for process in started if process.returncode]
            if failed:
                break
            time.sleep(0.1)
    finally:
        for process in started:
            process.terminate()
    statuses = [process.wait() for process in started]
    if any(statuses):
        raise ChildProcessError(f"all processes must succeed, they ended with {statuses}")


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
