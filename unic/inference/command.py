"""What the commands ``predict`` and ``export`` do."""

import argparse
import sys

from unic.inference.bundle import find_bundle, read_bundle
from unic.inference.export import SUFFIXES, beside, export_model
from unic.inference.predictor import load
from unic.storage.files import write_csv

N_DIGITS = 6  # of what is not a whole number


def predict(options: argparse.Namespace) -> int:
    """Cluster new images, and write a table of them.

    Returns:
        1 where an image could not be read, else 0.

    Raises:
        FileNotFoundError: If the model or a path is missing.
        ValueError: If the model is damaged, or there is no image.
    """
    predictor = load(options.model, device=options.device)
    found = predictor.predict(options.images, batch_size=options.batch_size, bad_images="skip")
    table = found.to_frame().round(N_DIGITS)
    if options.output is None:
        table.to_csv(sys.stdout, index=False)
    else:
        write_csv(options.output, table)
    for image, why in found.skipped.items():
        print(f"cannot read {image}: {why}", file=sys.stderr)
    return 1 if found.skipped else 0


def export(options: argparse.Namespace) -> None:
    """Write a model in a format of others, and say where.

    Raises:
        FileNotFoundError: If the model is missing.
        ValueError: If it is damaged, or cannot be exported.
    """
    bundle = read_bundle(options.model)
    path = options.output
    if path is None:
        path = find_bundle(options.model).with_suffix(SUFFIXES[options.format])
    export_model(bundle, path, kind=options.format, input_dtype=options.input)
    print(f"{path}, and how images are prepared for it: {beside(path)}")
