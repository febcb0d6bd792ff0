"""Draw scores of several experiments over epochs or over a setting (Figs. 5, 6, 7 and 11)."""

from unic.report.curve_figures import plot_curves
from unic.report.experiment_curves import CurveFigure, collect_points
from unic.report.figures import write_figure
from unic.runtime.jobs import job
from unic.storage.files import write_csv

with job(snakemake.log[0]):
    figure, names = CurveFigure(**snakemake.params.figure), snakemake.params.experiments
    points = collect_points(
        figure,
        progress={name: snakemake.input.get(f"progress_{name}", []) for name in names},
        metrics={name: snakemake.input.get(f"metrics_{name}") for name in names},
        settings=snakemake.params.settings,
    )
    drawn = plot_curves(figure, points)
    write_csv(snakemake.output.csv, points)
    write_figure(drawn, png=snakemake.output.png, svg=snakemake.output.svg)
