"""List the figures of the paper that an experiment has, with what each shows."""

from unic.report.paper_captions import list_figures
from unic.runtime.jobs import job
from unic.storage.files import read_json, write_text

with job(snakemake.log[0]):
    facts = read_json(snakemake.input.facts)
    write_text(snakemake.output.page, list_figures(facts, snakemake.params.numbers))
