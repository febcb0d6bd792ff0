"""Draw what was measured of the neighbors (Figs. 4, 8, 9, 10)."""

import pandas as pd

from unic.report.figures import write_figure
from unic.report.neighbor_figures import plot_purity, plot_ranks, plot_removed, plot_thresholds
from unic.runtime.jobs import job
from unic.storage.files import read_json

with job(snakemake.log[0]):
    facts, out = read_json(snakemake.input.facts), snakemake.output
    thresholds = plot_thresholds(pd.read_csv(snakemake.input.thresholds), facts)
    ranks = plot_ranks(pd.read_csv(snakemake.input.ranks), facts)
    removed = plot_removed(pd.read_csv(snakemake.input.removed), facts)
    purity = plot_purity(pd.read_csv(snakemake.input.purity), facts)
    write_figure(thresholds, png=out.thresholds_png, svg=out.thresholds_svg)
    write_figure(ranks, png=out.ranks_png, svg=out.ranks_svg)
    write_figure(removed, png=out.removed_png, svg=out.removed_svg)
    write_figure(purity, png=out.purity_png, svg=out.purity_svg)
