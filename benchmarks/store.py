"""Chunks and codecs of the stores, beside npy: GB/s, size, and the time of 64 rows.

Processor time, the best of some, files in the page cache: what is added to the disk's. GB are
those of the array in memory, of indices those of int64 also where int32 is stored.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle, ZstdCodec

from benchmarks.mining import clustered
from unic.storage.stores import _checksum, _chunks

Codec = BloscCodec | ZstdCodec | None
CODECS: dict[str, Codec] = {
    "none": None,
    "zstd 3": ZstdCodec(level=3),
    "lz4 shuffle": BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.shuffle),
    "lz4 bitshuffle": BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.bitshuffle),
    "blosc zstd 3 shuffle": BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.shuffle),
    "blosc zstd 3 bitshuffle": BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.bitshuffle),
}


class Measured(NamedTuple):
    """One way to store an array."""

    write: float  # processor seconds
    read: float
    rows: float
    size: int  # bytes on disk
    files: int


def class_ordered_lists(n_images: int, n_neighbors: int) -> NDArray[np.int64]:
    """Images in the order of their class folders: 7 of 10 neighbors among 1,300 of one class."""
    generator = np.random.default_rng(0)
    shape = (n_images, n_neighbors)
    first = np.arange(n_images)[:, None] // 1300 * 1300
    near = (first + generator.integers(1300, size=shape)) % n_images
    lists = np.where(generator.random(shape) < 0.7, near, generator.integers(n_images, size=shape))
    lists[:, 0] = np.arange(n_images)
    return lists


def best(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def measure_zarr(
    array: NDArray[np.generic], folder: Path, *, codec: Codec, megabytes: int, repeats: int
) -> Measured:
    path = folder / "array.zarr"
    rows = np.sort(np.random.default_rng(1).choice(len(array), 64, replace=False))

    def write() -> None:
        shutil.rmtree(path, ignore_errors=True)
        chunks = _chunks(array, megabytes * 2**20)
        zarr.create_array(path, data=array, chunks=chunks, compressors=codec)

    def read() -> NDArray[np.generic]:
        return np.asarray(zarr.open_array(path, mode="r"))

    found = Measured(
        best(write, repeats),
        best(read, repeats),
        best(lambda: zarr.open_array(path, mode="r").oindex[rows], repeats),
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        sum(file.is_file() for file in (path / "c").rglob("*")),
    )
    if not np.array_equal(read(), array):
        raise RuntimeError("what was read is not what was written")
    shutil.rmtree(path)
    return found


def measure_npy(array: NDArray[np.generic], folder: Path, *, repeats: int) -> Measured:
    path = folder / "array.npy"
    rows = np.sort(np.random.default_rng(1).choice(len(array), 64, replace=False))
    found = Measured(
        best(lambda: np.save(path, array), repeats),
        best(lambda: np.load(path), repeats),
        best(lambda: np.load(path, mmap_mode="r")[rows], repeats),
        path.stat().st_size,
        1,
    )
    path.unlink()
    return found


def report(name: str, n_bytes: int, found: Measured) -> None:
    print(
        f"| {name} | {n_bytes / found.write / 1e9:.2f} | {n_bytes / found.read / 1e9:.2f} "
        f"| {1000 * found.rows:.1f} | {found.size / n_bytes:.3f} | {found.files} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000, help="images of the features")
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--n-lists", type=int, default=256_000, help="images of the neighbors")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write, by default a temporary one")
    arguments = parser.parse_args()
    numcodecs.blosc.set_nthreads(1)
    zarr.config.set({"threading.max_workers": 1})
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    lists = class_ordered_lists(arguments.n_lists, arguments.k)
    shuffled = np.random.default_rng(2).permutation(arguments.n_lists)
    arrays = {
        "features float32": clustered(arguments.n, arguments.d),
        "indices int64": lists,
        "indices int32": lists.astype(np.int32),
        "indices int64, shuffled ids": shuffled[lists],
        "indices int32, shuffled ids": shuffled[lists].astype(np.int32),
    }
    try:
        for name, array in arrays.items():
            n_bytes = array.nbytes * (2 if array.dtype == np.int32 else 1)
            checksum = best(lambda: _checksum(array), arguments.repeats)  # noqa: B023
            print(f"\n{name} {array.shape}, {n_bytes / 1e6:.0f} MB, checksum {checksum:.2f} s")
            print("| | write GB/s | read GB/s | 64 rows ms | size | files |")
            print("|---|---|---|---|---|---|")
            report("npy", n_bytes, measure_npy(array, folder, repeats=arguments.repeats))
            ways = [(codec, 16) for codec in CODECS]
            best_codec = "none" if array.dtype.kind == "f" else "blosc zstd 3 bitshuffle"
            ways += (
                [(best_codec, size) for size in (1, 4, 64, 512)] if "shuffled" not in name else []
            )
            for codec, size in ways:
                found = measure_zarr(
                    array,
                    folder,
                    codec=CODECS[codec],
                    megabytes=size,
                    repeats=arguments.repeats,
                )
                report(f"{codec}, {size} MB", n_bytes, found)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
