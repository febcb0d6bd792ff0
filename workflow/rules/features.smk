FEATURE_PARTS = "results/{experiment}/features.parts/{shard}_of_{n_shards}.zarr"


rule pretrain:
    input:
        images=artifact("index_images", "images.parquet"),
    output:
        backbone="results/{experiment}/backbone.safetensors",
        history="results/{experiment}/pretraining.csv",
    log:
        "logs/{experiment}/pretrain.log",
    benchmark:
        "logs/{experiment}/pretrain.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=gpus,
        device=value("machine.device"),
    params:
        data=value("data.name"),
        root=value("data.root"),
        view=view,
        name=value("backbone.name"),
        options=value("backbone.options"),
        pretraining=value("pretraining.neighbors"),
        code=script_digest("pretrain.py"),
    message:
        "Training {params.name} on the images of {wildcards.experiment} without labels"
    script:
        "../scripts/pretrain.py"


rule pretrain_simgcd:
    input:
        unpack(start_files),
        unpack(token_files),
        unpack(decoded_files),
        images=artifact("index_images", "images.parquet"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
    output:
        backbone="results/{experiment}/simgcd/backbone.safetensors",
        classifier="results/{experiment}/simgcd/classifier.safetensors",
        history="results/{experiment}/simgcd/history.csv",
    log:
        "logs/{experiment}/pretrain_simgcd.log",
    benchmark:
        "logs/{experiment}/pretrain_simgcd.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=gpus,
        device=value("machine.device"),
    params:
        data=value("data.name"),
        root=value("data.root"),
        view=view,
        augmentation=value("pretraining.simgcd.augmentation"),
        name=value("backbone.name"),
        options=value("backbone.options"),
        start=value("pretraining.simgcd.start"),
        weights_digest=weights_digest(value("pretraining.simgcd.start")),
        network=value("backbone.network"),
        n_clusters=value("n_clusters"),
        simgcd=simgcd_training,
        code=script_digest("pretrain_simgcd.py"),
    message:
        "Training {params.name} by SimGCD on the images of {wildcards.experiment}"
    script:
        "../scripts/pretrain_simgcd.py"


rule extract_features:
    input:
        unpack(parts(FEATURE_PARTS)),
        unpack(weight_files),
        unpack(decoded_files),
        images=artifact("index_images", "images.parquet"),
    output:
        features="results/{experiment}/features.zarr/zarr.json",
    log:
        "logs/{experiment}/extract_features.log",
    benchmark:
        "logs/{experiment}/extract_features.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=joining_gpus,
        device=value("machine.device"),
        batch_size=value("machine.batch_size"),
    params:
        data=value("data.name"),
        root=value("data.root"),
        view=view,
        name=value("backbone.name"),
        weights=value("backbone.weights"),
        weights_digest=weights_digest(value("backbone.weights")),
        network=network,
        options=value("backbone.options"),
        code=script_digest("extract_features.py"),
    message:
        "Embedding the images of {wildcards.experiment} with {params.name}"
    script:
        "../scripts/extract_features.py"


use rule extract_features as extract_features_of_shard with:
    input:
        unpack(weight_files),
        unpack(decoded_files),
        images=artifact("index_images", "images.parquet"),
    output:
        features=temp(directory(FEATURE_PARTS)),
    log:
        "logs/{experiment}/extract_features.{shard}_of_{n_shards}.log",
    benchmark:
        "logs/{experiment}/extract_features.{shard}_of_{n_shards}.tsv"
    resources:
        gpu=gpus,
        device=value("machine.device"),
        batch_size=value("machine.batch_size"),
    message:
        "Embedding shard {wildcards.shard} of the images of {wildcards.experiment}"


rule extract_pixels:
    input:
        images=artifact("index_images", "images.parquet"),
    output:
        features="results/{experiment}/pixels.zarr/zarr.json",
    log:
        "logs/{experiment}/extract_pixels.log",
    benchmark:
        "logs/{experiment}/extract_pixels.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    params:
        data=value("data.name"),
        root=value("data.root"),
        view=view,
        code=script_digest("extract_pixels.py"),
    message:
        "Taking the pixels of {wildcards.experiment} as features"
    script:
        "../scripts/extract_pixels.py"
