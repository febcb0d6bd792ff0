NEIGHBOR_PARTS = "results/{experiment}/neighbors.parts/{shard}_of_{n_shards}.zarr"


rule mine_neighbors:
    input:
        unpack(parts(NEIGHBOR_PARTS)),
        features=artifact("extract_features", "features.zarr/zarr.json"),
    output:
        neighbors="results/{experiment}/neighbors.zarr/zarr.json",
    log:
        "logs/{experiment}/mine_neighbors.log",
    benchmark:
        "logs/{experiment}/mine_neighbors.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.joining_gpus),
        device=value("machine.device"),
    params:
        n_neighbors=value("neighbors.n_neighbors"),
        far_rank=value("neighbors.far_rank"),
        metric=value("neighbors.metric"),
        far_radius=value("neighbors.far_radius"),
        engine=value("neighbors.engine"),
        code=script_digest("neighbors/mine_neighbors.py"),
    message:
        "Mining the neighbors of every image of {wildcards.experiment}"
    script:
        "../scripts/neighbors/mine_neighbors.py"


use rule mine_neighbors as mine_neighbors_of_shard with:
    input:
        features=artifact("extract_features", "features.zarr/zarr.json"),
    output:
        neighbors=temp(directory(NEIGHBOR_PARTS)),
    log:
        "logs/{experiment}/mine_neighbors.{shard}_of_{n_shards}.log",
    benchmark:
        "logs/{experiment}/mine_neighbors.{shard}_of_{n_shards}.tsv"
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
    message:
        "Mining neighbors of shard {wildcards.shard} of the images of {wildcards.experiment}"


rule clean_neighbors:
    input:
        neighbors=artifact("mine_neighbors", "neighbors.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
    output:
        positives="results/{experiment}/positives.zarr/zarr.json",
    log:
        "logs/{experiment}/clean_neighbors.log",
    benchmark:
        "logs/{experiment}/clean_neighbors.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
    params:
        max_union_size=value("cleaning.max_union_size"),
        quantile=value("cleaning.quantile"),
        code=script_digest("neighbors/clean_neighbors.py"),
    message:
        "Keeping the neighbors of {wildcards.experiment} with small unions"
    script:
        "../scripts/neighbors/clean_neighbors.py"


rule index_negatives:
    input:
        features=artifact("extract_features", "features.zarr/zarr.json"),
        neighbors=artifact("mine_neighbors", "neighbors.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
    output:
        negatives="results/{experiment}/negatives.zarr/zarr.json",
    log:
        "logs/{experiment}/index_negatives.log",
    benchmark:
        "logs/{experiment}/index_negatives.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
    params:
        n_negatives=value("negatives.n_negatives"),
        pool=decide(stages.negative_pool),
        seed=value("negatives.seed"),
        code=script_digest("neighbors/index_negatives.py"),
    message:
        "Drawing {params.n_negatives} negatives of every image of {wildcards.experiment}"
    script:
        "../scripts/neighbors/index_negatives.py"
