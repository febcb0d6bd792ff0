"""The command ``unic explore``: open results, serve the page until Ctrl-C."""

import argparse
import sys
import webbrowser

from unic.explorer.images import tabulate_map
from unic.explorer.server import Server
from unic.explorer.showcase import open_showcase
from unic.storage.files import write_parquet


def explore(options: argparse.Namespace) -> int:
    """Show experiments in a page of this machine.

    Args:
        options: Of the command line, see :mod:`unic.cli`.

    Returns:
        0, after Ctrl-C, or once the map is exported.

    Raises:
        ValueError: If there are more than two, files are damaged, or the images of two differ.
        OSError: If results are missing, or the port is taken.
    """
    try:
        _serve(options)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return 0


def _serve(options: argparse.Namespace) -> None:
    if len(options.results) > 2:
        raise ValueError(
            f"results must be one folder, or two to compare, got {len(options.results)}"
        )
    showcase = open_showcase(options.results)
    for shown in showcase.shown:
        exhibit = shown.exhibit
        print(f"{exhibit.name}: {exhibit.n_images:,} images", flush=True)
        exhibit.describe_map()  # made here, and not while the page waits
    if options.export is not None:
        shown = showcase.shown[-1]
        write_parquet(options.export, tabulate_map(shown.exhibit, shown.columns))
        print(f"map and columns: {options.export}")
        return
    with Server(showcase, port=options.port) as server:
        print(f"{server.address}\nonly this machine can open it; Ctrl-C ends it", flush=True)
        if options.open:
            webbrowser.open(server.address)
        server.serve_forever()
