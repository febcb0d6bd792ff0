"""The command ``unic``: check data sets, look at what the workflow has made."""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unic.evaluation.formatting import format_count, format_spread
from unic.runtime.failures import GOES_ON, INTERRUPTED
from unic.runtime.jobs import MARK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Command line without the program's name, None = that of this process.

    Returns:
        Exit status: 0, 1 where a data set is not as expected, or 2 after a wrong input.
    """
    parser = _make_parser()
    options = parser.parse_args(arguments)
    status = 0
    try:
        status = options.run(options) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"{MARK}{error}", file=sys.stderr)
        return 2
    return status


def describe_results(folder: Path) -> str:
    """The scores of an experiment as a table, and where its report lies.

    Args:
        folder: ``results/NAME``.

    Raises:
        FileNotFoundError: If there is no finished experiment.
        ValueError: If its scores cannot be read.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} must be a finished experiment, {path} is missing; run: "
            f"snakemake --cores 8 {path}"
        )
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        lines = [f"\n{metrics['experiment']} ({metrics['task']}, {len(metrics['seeds'])} seeds)"]
        for split in metrics["methods"]["unic"]:
            lines.extend(_score_table(metrics["methods"], split))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} must hold the scores of an experiment: {error!r}") from None
    lines.append(f"  report: {(folder / 'report.html').resolve()}")
    return "\n".join(lines)


def _score_table(methods: dict[str, Any], split: str) -> list[str]:
    names = list(methods["unic"][split])
    lines = [f"  {split:<32}" + "".join(f"{name:>16}" for name in names)]
    for method, splits in methods.items():
        cells = [_cell(name, splits[split][name]) for name in names]
        lines.append(f"    {method:<30}" + "".join(f"{cell:>16}" for cell in cells))
    return lines


def _cell(name: str, score: dict[str, Any]) -> str:
    if name == "used_clusters":
        return format_count(score["mean"])
    return format_spread(100 * score["mean"], 100 * score["std"], n_seeds=len(score["values"]))


def _show(options: argparse.Namespace) -> None:
    for folder in options.results:
        print(describe_results(folder))


def _inspect_neighbors(options: argparse.Namespace) -> None:
    from unic.inspection import neighbors, text  # pandas and Zarr take a second to import

    artifacts = neighbors.open_artifacts(options.results)
    if not options.images:
        if options.save or options.open:
            raise ValueError("a contact sheet shows single images: name them with --image")
        summary = neighbors.summarize_neighbors(artifacts)
        print(text.format_summary(summary, options.format))
        return
    rows = neighbors.find_rows(options.images, artifacts.image_ids)
    anchors = neighbors.inspect_images(artifacts, rows, n_negatives=options.negatives)
    print(text.format_anchors(anchors, artifacts, options.format), flush=True)
    if options.save or options.open:
        _save_sheet(options, anchors, artifacts)


def _inspect_clusters(options: argparse.Namespace) -> None:
    from unic.inspection import cluster_text, clusters, runs  # pandas and Zarr take a second

    run = runs.open_run(options.results)
    found = clusters.describe_clusters(run, split=options.split)
    if not options.clusters:
        print(cluster_text.format_clusters(found, run, options.format, split=options.split))
        return
    numbers = list(dict.fromkeys(options.clusters))
    images = {c: clusters.list_images(run, c, split=options.split) for c in numbers}
    shown = [found[number] for number in numbers]
    print(cluster_text.format_images(shown, images, run, options.format))


def _compare(options: argparse.Namespace) -> None:
    from unic.inspection import comparison, comparison_text, runs  # pandas and Zarr take a second
    from unic.storage.files import write_csv

    one, other = (runs.open_run(folder) for folder in (options.one, options.other))
    found = comparison.compare_runs(one, other)
    print(comparison_text.format_comparison(found, options.format), flush=True)
    if options.moved is not None:
        write_csv(options.moved, found.moved)


def _save_sheet(options: argparse.Namespace, anchors: Any, artifacts: Any) -> None:
    from unic.inspection import sheets  # matplotlib, for its fonts

    path = options.save or Path(tempfile.mkdtemp(prefix="unic-"), f"{artifacts.experiment}.png")
    pixels = sheets.read_pixels(anchors, artifacts)
    sheets.write_sheet(path, sheets.draw_anchors(anchors, artifacts, pixels))
    print(f"contact sheet: {path}", file=sys.stderr)
    if options.open:
        sheets.open_sheet(path)


def _check_data(options: argparse.Namespace) -> int:
    from unic.images import checks  # pandas takes a second to import
    from unic.images.readers import downloads

    root = options.root
    if options.manifest is not None and root is None:
        root = str(Path(options.manifest).parent)
    if options.download:
        if root is None:
            raise ValueError("--download needs --root, the folder to put the files in")
        downloads.download(options.name, root=root)
    findings = checks.check_dataset(
        options.name, root=root, manifest=options.manifest, label_file=options.label_file
    )
    width = max(len(finding.what) for finding in findings)
    print(f"{'':<{width}}  {'found':>14}  {'expected':>14}")
    for finding in findings:
        wrong = "" if finding.is_right else "  differs"
        expected = finding.expected or "-"
        print(f"{finding.what:<{width}}  {finding.found:>14}  {expected:>14}{wrong}")
    return 0 if all(finding.is_right for finding in findings) else 1


def _compile(_: argparse.Namespace) -> None:
    from unic.baselines.compilation import compile_kmeans_loops
    from unic.maps.compilation import compile_map_loops
    from unic.neighbors.compilation import compile_loops  # torch and numba take seconds

    compile_loops()
    compile_map_loops()
    compile_kmeans_loops()


def _cluster(options: argparse.Namespace) -> int:
    # Until the workflow runs nothing is there to be lost, and an import is hard to interrupt.
    signal.signal(signal.SIGINT, _stop)
    from unic.photos import command  # torch and timm take seconds

    return command.cluster(options)


def _again(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGINT, _stop)  # as of _cluster
    from unic.photos import again  # torch and timm take seconds

    return again.again(options)


def _predict(options: argparse.Namespace) -> int:
    from unic.inference import command  # torch and timm take seconds

    return command.predict(options)


def _export(options: argparse.Namespace) -> None:
    from unic.inference import command  # torch and timm take seconds

    command.export(options)


def _explore(options: argparse.Namespace) -> int:
    from unic.explorer import command  # pandas, Zarr and Pillow take seconds

    return command.explore(options)


def _stop(*_: object) -> None:
    os.write(sys.stderr.fileno(), f"\nstopped; {GOES_ON}\n".encode())
    os._exit(INTERRUPTED)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("unic", description=__doc__)
    commands = parser.add_subparsers(required=True)
    cluster = commands.add_parser(
        "cluster",
        help="group a folder of images",
        description="Group the images of a folder, without labels or with a few; all is resumed.",
    )
    _add_cluster_arguments(cluster)
    cluster.set_defaults(run=_cluster)
    again = commands.add_parser(
        "again",
        help="cluster the same images again, by what was said of their clusters",
        description="Cluster the images of a run again, with the marks made of it as labels.",
    )
    _add_again_arguments(again)
    again.set_defaults(run=_again)
    predict = commands.add_parser(
        "predict",
        help="cluster new images by what an experiment has learned",
        description="Print the clusters of new images as CSV; 1 where some cannot be read.",
    )
    _add_predict_arguments(predict)
    predict.set_defaults(run=_predict)
    export = commands.add_parser(
        "export",
        help="write what an experiment has learned as ONNX or a torch program",
        description="Write one graph from pixels to clusters, and JSON that says how to use it.",
    )
    _add_export_arguments(export)
    export.set_defaults(run=_export)
    show = commands.add_parser("show", help="print the scores of finished experiments")
    show.add_argument("results", type=Path, nargs="+", help="folders such as results/digits")
    show.set_defaults(run=_show)
    inspect = commands.add_parser("inspect", help="look into what the stages have made")
    inspected = inspect.add_subparsers(required=True)
    clusters = inspected.add_parser(
        "clusters",
        help="clusters, and the images of some",
        description="Print a row a cluster, or the images of some from most to least confident.",
    )
    _add_cluster_inspection_arguments(clusters)
    clusters.set_defaults(run=_inspect_clusters)
    neighbors = inspected.add_parser(
        "neighbors",
        help="neighbors and negatives of images",
        description="Print the neighbors and negatives of images, or figures of those of all.",
    )
    _add_inspect_arguments(neighbors)
    neighbors.set_defaults(run=_inspect_neighbors)
    compare = commands.add_parser(
        "compare",
        help="two experiments on the same images",
        description="Pair the clusters of two experiments, and list what moved between others.",
    )
    _add_comparison_arguments(compare)
    compare.set_defaults(run=_compare)
    explore = commands.add_parser(
        "explore",
        help="look at images, neighbors and clusters in a page of this machine",
        description="Serve a page to this machine alone: a map of the images, their neighbors and "
        "clusters; two results are compared. Ctrl-C ends it.",
    )
    _add_explore_arguments(explore)
    explore.set_defaults(run=_explore)
    data = commands.add_parser(
        "data",
        help="check a data set on disk",
        description="Compare a data set on disk with what is expected of it; 1 if it differs.",
    )
    _add_data_arguments(data)
    data.set_defaults(run=_check_data)
    compilation = commands.add_parser(
        "compile",
        help="compile the loops of mining and mapping ahead of their first use",
        description="Compile the loops of mining, cleaning, negatives and maps; a minute, once.",
    )
    compilation.set_defaults(run=_compile)
    return parser


def _n_clusters(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number or auto, got {text}")
    return int(text)


def _count_of(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def _add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of images, any depth")
    parser.add_argument(
        "-k",
        dest="n_clusters",
        type=_n_clusters,
        default="auto",
        metavar="K",
        help="number of clusters (default auto: estimated)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE.csv",
        help="labels of some images: columns path (below PHOTOS) and label",
    )
    parser.add_argument(
        "--truth",
        metavar="FILE.csv",
        help="labels of all images, for scores alone; 'folders' takes class folders",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="results/NAME",
        help="default results/ and PHOTOS' name",
    )
    parser.add_argument(
        "--backbone",
        help="folder or file of weights, or a model of timm (default: the best there is)",
    )
    parser.add_argument(
        "--effort",
        choices=("quick", "standard", "thorough"),
        default="quick",
        help="quick: frozen features (default); standard: trains the last block on cached views; "
        "thorough: on fresh ones",
    )
    parser.add_argument("--seeds", type=_count_of, default=1, metavar="N", help="runs (default 1)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--cores", type=_count_of, metavar="N", help="default: all")
    parser.add_argument("--profile", help="profile of Snakemake, for a cluster")
    parser.add_argument("--plan", action="store_true", help="tell the plan, and stop")
    sorting = parser.add_mutually_exclusive_group()
    sorting.add_argument(
        "--copy-to", type=Path, metavar="FOLDER", help="copy images into a folder a cluster"
    )
    sorting.add_argument("--link-to", type=Path, metavar="FOLDER", help="link them there")


def _add_again_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, metavar="results/NAME", help="folder of a run")
    parser.add_argument(
        "-k",
        dest="n_clusters",
        type=_n_clusters,
        metavar="K",
        help="number of clusters (default: as before, by what was merged and split)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="results/NAME-2",
        help="default: the next number that is free",
    )
    parser.add_argument("--cores", type=_count_of, metavar="N", help="default: all")
    parser.add_argument("--profile", help="profile of Snakemake, for a cluster")
    parser.add_argument("--plan", action="store_true", help="tell the plan, and stop")


def _add_model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=Path,
        metavar="results/NAME",
        help="folder of an experiment, or its model.safetensors",
    )


def _add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    _add_model_argument(parser)
    parser.add_argument("images", nargs="+", metavar="NEW", help="image files, or folders of them")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.csv", help="default: standard output"
    )
    parser.add_argument(
        "--batch-size",
        type=_count_of,
        default=32,
        metavar="N",
        help="images at a time (default %(default)s)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    _add_model_argument(parser)
    parser.add_argument("--format", choices=("onnx", "torch"), required=True)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: beside the model"
    )
    parser.add_argument(
        "--input",
        choices=("uint8", "float32"),
        default="uint8",
        help="pixels in 0 to 255, or in 0 to 1 (default %(default)s)",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number of 0 to 65535, got {text}")
    return int(text)


def _add_explore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        metavar="results/NAME",
        help="one folder, or two to compare",
    )
    parser.add_argument("--port", type=_port, default=0, help="default: any that is free")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument(
        "--export",
        type=Path,
        metavar="FILE.parquet",
        help="write the map for other viewers, and end",
    )


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="data.name of an experiment, such as cifar10")
    parser.add_argument("--root", metavar="FOLDER", help="data.root of an experiment")
    parser.add_argument("--manifest", metavar="FILE", help="list of images, for manifest")
    parser.add_argument("--label-file", metavar="FILE.csv", help="labels, for folder")
    parser.add_argument(
        "--download", action="store_true", help="get the files first, where they have an address"
    )


def _png(path: str) -> Path:
    if not path.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"must be FILE.png, got {path}")
    return Path(path)


def _add_format_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")


def _add_cluster_inspection_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, help="a folder such as results/digits")
    parser.add_argument(
        "--cluster",
        dest="clusters",
        type=int,
        nargs="+",
        action="extend",
        metavar="C",
        help="list the images of these clusters",
    )
    parser.add_argument(
        "--split", default="train", help="whose images: train, test (default %(default)s)"
    )
    _add_format_argument(parser)


def _add_comparison_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", type=Path, metavar="A", help="a folder such as results/digits")
    parser.add_argument("other", type=Path, metavar="B", help="another, of the same images")
    _add_format_argument(parser)
    parser.add_argument(
        "--moved", type=Path, metavar="FILE.csv", help="write the images that moved"
    )


def _add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, help="a folder such as results/digits")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--image",
        dest="images",
        nargs="+",
        action="extend",
        metavar="IMAGE",
        help="training images: row numbers, or image ids (paths below data.root)",
    )
    which.add_argument("--summary", action="store_true", help="figures of all images (default)")
    parser.add_argument(
        "--negatives",
        type=int,
        default=10,
        metavar="N",
        help="negatives shown of each image (default %(default)s)",
    )
    _add_format_argument(parser)
    parser.add_argument("--save", type=_png, metavar="FILE.png", help="write a contact sheet")
    parser.add_argument("--open", action="store_true", help="show the contact sheet")


if __name__ == "__main__":
    sys.exit(main())
