"""What the lists of `unic.quality` find of what was planted: `python -m benchmarks.planted ROOT`.

Among the images of a folder of classes are hidden 50 exact copies, 50 copies that were scaled by
0.5 to 0.9 and encoded again (JPEG quality 60 to 80), and 30 images of each of other folders; 5 % of
the labels are wrong. Precision of the duplicates is a lower bound: a folder has some of its own, of
which `--pairs` writes a list. New images are a fifth of the folder and the foreign ones, scored
against the rest.
"""

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score

from unic.features.extraction import extract_features
from unic.images.images import FileImages
from unic.images.views import View
from unic.models.backbones import load_backbone
from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.quality.duplicates import find_duplicates
from unic.quality.outliers import find_outliers, measure_reference, score_outliers
from unic.quality.suspects import find_suspects

N_COPIES = 50  # of either kind
N_FOREIGN = 30
FEW = 3  # foreign images that are no class of their own
WRONG = 0.05
SUFFIXES = (".jpg", ".jpeg", ".png")


class Planted(NamedTuple):
    """Features of the images of the folder, then the copies, then the foreign images."""

    features: NDArray[np.float32]  # (n + 100 + 30 f, d), of unit length
    ids: NDArray[np.str_]
    labels: NDArray[np.int64]  # (n,), true
    sources: NDArray[np.int64]  # (100,), the rows that were copied


def list_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)


def copy(source: Path, folder: Path, number: int, generator: np.random.Generator) -> Path:
    """An exact copy, or of later numbers one that is scaled and encoded again."""
    target = folder / f"{number}{source.suffix}"
    if number < N_COPIES:
        target.write_bytes(source.read_bytes())
        return target
    scale, quality = generator.uniform(0.5, 0.9), int(generator.integers(60, 81))
    with Image.open(source) as image:
        size = [max(1, round(scale * side)) for side in image.size]
        target = target.with_suffix(".jpg")
        image.convert("RGB").resize((size[0], size[1])).save(target, quality=quality)
    return target


def plant(arguments: argparse.Namespace, folder: Path) -> Planted:
    generator = np.random.default_rng(0)
    files = list_files(arguments.root)
    if arguments.n is not None and arguments.n < len(files):
        drawn = np.sort(generator.permutation(len(files))[: arguments.n])
        files = [files[row] for row in drawn]
    sources = generator.permutation(len(files))[: 2 * N_COPIES]
    copies = [copy(files[row], folder, i, generator) for i, row in enumerate(sources)]
    foreign = []
    for root in arguments.foreign:
        found = list_files(root)
        foreign += [found[row] for row in generator.permutation(len(found))[:N_FOREIGN]]
    labels = np.unique([path.parent.name for path in files], return_inverse=True)[1]
    ids = [str(path.absolute()) for path in [*files, *copies, *foreign]]
    backbone = load_backbone(
        arguments.backbone,
        weights=arguments.weights,
        options={"pad_type": "same"} if arguments.same_padding else {},
        image_size=arguments.size,
        is_frozen=True,
    )
    view = View(arguments.size, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    features = extract_features(
        FileImages(ids, "/"), backbone, view, batch_size=32, device=torch.device("cpu")
    )
    return Planted(to_euclidean(features, "cosine"), np.array(ids), labels, sources)


def score(
    name: str, scores: NDArray[np.float64], is_listed: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> None:
    hits = int((is_listed & truth).sum())
    precision = hits / max(1, int(is_listed.sum()))
    found = average_precision_score(truth, scores)
    print(
        f"| {name} | {int(is_listed.sum())} | {precision:.2f} | {hits / truth.sum():.2f} "
        f"| {found:.3f} |"
    )


def score_duplicates(planted: Planted, n_neighbors: int, written: Path | None) -> None:
    n_images = len(planted.labels)
    features = planted.features[: n_images + 2 * N_COPIES]
    mined = mine_neighbors(features, n_neighbors=n_neighbors + 1, far_rank=None)
    found = find_duplicates(mined.indices, mined.distances)
    pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    for kind, start in (("exact", 0), ("encoded again", N_COPIES)):
        rows = range(start, start + N_COPIES)
        planted_pairs = {(int(planted.sources[row]), n_images + row) for row in rows}
        is_listed = found.is_exact == (kind == "exact")
        is_true = np.array([pair in planted_pairs for pair in pairs])
        hits = int((is_true & is_listed).sum())
        of_all = int(is_true.sum()) / N_COPIES
        print(
            f"| duplicates, {kind} | {is_listed.sum()} | {hits / max(1, is_listed.sum()):.2f} "
            f"| {of_all:.2f} | |"
        )
    print(f"threshold {found.threshold:.2f} of the local scale, {found.n_dims:.1f} dims")
    if written is not None:
        lines = [
            f"{ratio:.3f},{planted.ids[one]},{planted.ids[two]}"
            for ratio, (one, two) in zip(found.ratio, pairs, strict=True)
            if two < n_images
        ]
        written.write_text("\n".join(["ratio,first,second", *lines]) + "\n")


def score_suspects(planted: Planted, n_neighbors: int) -> None:
    n_images = len(planted.labels)
    mined = mine_neighbors(planted.features[:n_images], n_neighbors=n_neighbors + 1, far_rank=None)
    generator = np.random.default_rng(1)
    labels, n_classes = planted.labels.copy(), int(planted.labels.max()) + 1
    wrong = generator.permutation(n_images)[: round(WRONG * n_images)]
    labels[wrong] += generator.integers(1, n_classes, size=len(wrong))
    labels %= n_classes
    found = find_suspects(labels, mined.indices, mined.distances)
    score("suspects", found.score, found.is_suspect, labels != planted.labels)


def score_foreign(planted: Planted, n_neighbors: int, number: int) -> None:
    n_images, first = len(planted.labels), len(planted.labels) + 2 * N_COPIES
    own = planted.features[:n_images]
    foreign = planted.features[first + N_FOREIGN * number : first + N_FOREIGN * (number + 1)]
    for count in (N_FOREIGN, FEW):
        features = np.concatenate([own, foreign[:count]])
        mined = mine_neighbors(features, n_neighbors=n_neighbors + 1, far_rank=None)
        found = find_outliers(mined.distances)
        truth = np.arange(len(features)) >= n_images
        score(f"outliers, {count} foreign", found.score, found.is_outlier, truth)
    order = np.random.default_rng(2).permutation(n_images)
    new, kept = own[order[: n_images // 5]], own[order[n_images // 5 :]]
    mined = mine_neighbors(kept, n_neighbors=n_neighbors + 1, far_rank=None)
    asked = np.concatenate([new, foreign])
    distances = np.sqrt((2 - 2 * asked.astype(np.float64) @ kept.T).clip(min=0.0))
    nearest = np.sort(distances, axis=1)[:, :n_neighbors]
    outliers = score_outliers(nearest, measure_reference(mined.distances))
    truth = np.arange(len(asked)) >= len(new)
    score(f"outliers, {N_FOREIGN} foreign, new", outliers.score, outliers.is_outlier, truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="folder of a folder a class")
    parser.add_argument("--foreign", type=Path, nargs="+", required=True, help="other images")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--same-padding", action="store_true", help="pad_type same of timm")
    parser.add_argument("--size", type=int, default=224, help="of the images, pixels")
    parser.add_argument("--n", type=int, help="images of the folder, drawn; all without it")
    parser.add_argument("--neighbors", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--features", type=Path, help="file to keep the features in, or that has")
    parser.add_argument("--pairs", type=Path, help="file for the duplicates that were not planted")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.features is not None and arguments.features.is_file():
        with np.load(arguments.features) as kept:
            planted = Planted(**kept)
    else:
        with tempfile.TemporaryDirectory() as folder:
            planted = plant(arguments, Path(folder))
        if arguments.features is not None:
            np.savez(arguments.features, **planted._asdict())
    for n_neighbors in arguments.neighbors:
        print(f"\n{n_neighbors} neighbors\n")
        print("| | listed | precision | recall | AP |\n|---|---|---|---|---|")
        score_duplicates(planted, n_neighbors, arguments.pairs)
        score_suspects(planted, n_neighbors)
        for number, root in enumerate(arguments.foreign):
            print(f"foreign: {root.name}")
            score_foreign(planted, n_neighbors, number)


if __name__ == "__main__":
    main()
