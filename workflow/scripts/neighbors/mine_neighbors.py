"""Rank all images by distance to each image (Eqs. 1-3), or to those of a shard, or join shards."""

from functools import partial

from unic.neighbors.automatic import choose_far_rank, choose_n_neighbors
from unic.neighbors.exact.finished_rows import finished_rows_beside
from unic.neighbors.joining import join_neighbors
from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.runtime.shards import WHOLE, read_shard
from unic.storage.stores import check_store_room, manifest_of, open_store, write_derived

with job(snakemake.log[0], threads=snakemake.threads):
    store = open_store(snakemake.input.features, kind="features")
    target = manifest_of(snakemake.output.neighbors)
    if "parts" in dict(snakemake.input.items()):
        join_neighbors(target, snakemake.input.parts, of=store)
    else:
        convert = partial(to_euclidean, metric=snakemake.params.metric)
        with store.map_rows("features", target.parent.parent, convert=convert) as features:
            shard = read_shard(snakemake.wildcards)
            rows = shard.rows(len(features))
            n_neighbors = choose_n_neighbors(snakemake.params.n_neighbors, len(features))
            far_rank = choose_far_rank(snakemake.params.far_rank, len(features))
            sizes = {"n": len(rows), "k": n_neighbors}
            check_store_room(target, "neighbors", sizes)
            device = choose_device(snakemake.resources.device)
            with finished_rows_beside(target.parent, features, device) as checkpoint:
                neighbors = mine_neighbors(
                    features,
                    n_neighbors=n_neighbors,
                    far_rank=far_rank,
                    device=device,
                    engine=snakemake.params.engine,
                    far_bound=snakemake.params.far_radius == "bound",
                    checkpoint=checkpoint,
                    rows=rows,
                )
                parameters = {
                    "n_neighbors": n_neighbors,
                    "far_rank": far_rank,
                    "far_radius": snakemake.params.far_radius,
                    "metric": snakemake.params.metric,
                    "mining": neighbors.stats.record(),
                }
                if shard != WHOLE:
                    parameters["rows"] = [rows.start, rows.stop]
                write_derived(
                    target, "neighbors", neighbors.arrays(), of=store, parameters=parameters
                )
