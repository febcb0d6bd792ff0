"""Collect a table of the paper from the metrics of its experiments."""

from unic.report.paper_tables import compare, format_markdown, read_table
from unic.runtime.jobs import job
from unic.storage.files import read_json, write_csv, write_text

with job(snakemake.log[0]):
    table = read_table(snakemake.params.table)
    names = snakemake.params.experiments
    metrics = dict(zip(names, map(read_json, snakemake.input.metrics), strict=True))
    compared = compare(table, metrics)
    write_csv(snakemake.output.csv, compared)
    write_text(snakemake.output.markdown, format_markdown(table, compared))
