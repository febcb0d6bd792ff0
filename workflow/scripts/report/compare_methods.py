"""Put the scores and times of methods on several data sets into one table."""

from unic.report.comparison_tables import Comparison, collect_scores, format_comparison, read_times
from unic.report.figures import encode_png, plot_comparison
from unic.runtime.jobs import job
from unic.storage.files import read_json, whole_file, write_csv, write_text

with job(snakemake.log[0]):
    comparison = Comparison(**snakemake.params.comparison)
    names = snakemake.params.experiments
    metrics = dict(zip(names, map(read_json, snakemake.input.metrics), strict=True))
    times = read_times({name: snakemake.input.get(f"times_{name}", []) for name in names})
    scores = collect_scores(comparison, metrics, times)
    write_csv(snakemake.output.csv, scores)
    with whole_file(snakemake.output.figure) as figure:
        figure.write_bytes(encode_png(plot_comparison(scores)))
    write_text(snakemake.output.markdown, format_comparison(comparison, scores))
