"""Train the last block and the head with positive and negative neighbors (Eqs. 5-9)."""

from unic.runtime.jobs import job
from unic.runtime.processes import run_together
from unic.training.run import FinetuningRun, train

with job(snakemake.log[0], threads=snakemake.threads):
    run = FinetuningRun.parse(
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
        dict(snakemake.params.items()),
        seed=int(snakemake.wildcards.seed),
        device=snakemake.resources.device,
        engine=snakemake.resources.engine,
        threads=snakemake.threads,
    )
    run_together(train, run, n_processes=snakemake.resources.processes)
