FEATURE_PARTS = "results/{experiment}/features.parts/{shard}_of_{n_shards}.zarr"
TOKEN_PARTS = "results/{experiment}/tokens.parts/{shard}_of_{n_shards}.json"
TOKEN_ROWS = "results/{experiment}/tokens.parts/{shard}_of_{n_shards}.bin"
VIEW_PARTS = "results/{experiment}/views.parts/{shard}_of_{n_shards}.json"
VIEW_ROWS = "results/{experiment}/views.parts/{shard}_of_{n_shards}.bin"


rule extract_features:
    input:
        unpack(parts(FEATURE_PARTS)),
        unpack(decide(stages.weight_files)),
        unpack(decide(stages.decoded_files)),
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
        gpu=decide(stages.joining_gpus),
        device=value("machine.device"),
        engine=value("machine.engine"),
        batch_size=value("machine.batch_size"),
    params:
        source=decide(stages.image_source),
        name=value("backbone.name"),
        weights=value("backbone.weights"),
        weights_digest=weights_digest(value("backbone.weights")),
        network=decide(stages.network),
        precision=value("backbone.precision"),
        options=value("backbone.options"),
        code=script_digest("features/extract_features.py"),
    message:
        "Embedding the images of {wildcards.experiment} with {params.name}"
    script:
        "../scripts/features/extract_features.py"


use rule extract_features as extract_features_of_shard with:
    input:
        unpack(decide(stages.weight_files)),
        unpack(decide(stages.decoded_files)),
        images=artifact("index_images", "images.parquet"),
    output:
        features=temp(directory(FEATURE_PARTS)),
    log:
        "logs/{experiment}/extract_features.{shard}_of_{n_shards}.log",
    benchmark:
        "logs/{experiment}/extract_features.{shard}_of_{n_shards}.tsv"
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
        engine=value("machine.engine"),
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
        source=decide(stages.image_source),
        code=script_digest("features/extract_pixels.py"),
    message:
        "Taking the pixels of {wildcards.experiment} as features"
    script:
        "../scripts/features/extract_pixels.py"


rule extract_tokens:
    input:
        unpack(parts(TOKEN_PARTS, TOKEN_ROWS)),
        unpack(decide(stages.trunk_files)),
        unpack(decide(stages.decoded_files)),
        images=artifact("index_images", "images.parquet"),
    output:
        header="results/{experiment}/tokens.json",
        tokens="results/{experiment}/tokens.bin",
    log:
        "logs/{experiment}/extract_tokens.log",
    benchmark:
        "logs/{experiment}/extract_tokens.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.joining_gpus),
        device=value("machine.device"),
        engine=value("machine.engine"),
        batch_size=value("machine.batch_size"),
    params:
        source=decide(stages.image_source),
        decoded=value("data.decoded"),
        views=value("views"),
        name=value("backbone.name"),
        weights=decide(stages.trunk_weights),
        weights_digest=weights_digest(decide(stages.trunk_weights)),
        network=value("backbone.network"),
        options=value("backbone.options"),
        all_tokens=decide(stages.reads_all_tokens),
        is_frozen=False,
        code=script_digest("features/extract_tokens.py"),
    message:
        "Keeping what the trunk says of {params.views[n_views]} views of every image of {wildcards.experiment}"
    script:
        "../scripts/features/extract_tokens.py"


use rule extract_tokens as extract_tokens_of_shard with:
    input:
        unpack(decide(stages.trunk_files)),
        unpack(decide(stages.decoded_files)),
        images=artifact("index_images", "images.parquet"),
    output:
        header=temp(TOKEN_PARTS),
        tokens=temp(TOKEN_ROWS),
    log:
        "logs/{experiment}/extract_tokens.{shard}_of_{n_shards}.log",
    benchmark:
        "logs/{experiment}/extract_tokens.{shard}_of_{n_shards}.tsv"
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
        engine=value("machine.engine"),
        batch_size=value("machine.batch_size"),
    message:
        "Keeping what the trunk says of shard {wildcards.shard} of the images of {wildcards.experiment}"


rule extract_views:
    input:
        unpack(parts(VIEW_PARTS, VIEW_ROWS)),
        unpack(decide(stages.weight_files)),
        unpack(decide(stages.decoded_files)),
        images=artifact("index_images", "images.parquet"),
    output:
        header="results/{experiment}/views.json",
        tokens="results/{experiment}/views.bin",
    log:
        "logs/{experiment}/extract_views.log",
    benchmark:
        "logs/{experiment}/extract_views.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.joining_gpus),
        device=value("machine.device"),
        engine=value("machine.engine"),
        batch_size=value("machine.batch_size"),
    params:
        source=decide(stages.image_source),
        decoded=value("data.decoded"),
        views=value("views"),
        name=value("backbone.name"),
        weights=value("backbone.weights"),
        weights_digest=weights_digest(value("backbone.weights")),
        network=decide(stages.network),
        options=value("backbone.options"),
        all_tokens=False,
        is_frozen=True,
        code=script_digest("features/extract_tokens.py"),
    message:
        "Extracting features of {params.views[n_views]} views of every image of {wildcards.experiment}"
    script:
        "../scripts/features/extract_tokens.py"


use rule extract_views as extract_views_of_shard with:
    input:
        unpack(decide(stages.weight_files)),
        unpack(decide(stages.decoded_files)),
        images=artifact("index_images", "images.parquet"),
    output:
        header=temp(VIEW_PARTS),
        tokens=temp(VIEW_ROWS),
    log:
        "logs/{experiment}/extract_views.{shard}_of_{n_shards}.log",
    benchmark:
        "logs/{experiment}/extract_views.{shard}_of_{n_shards}.tsv"
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
        engine=value("machine.engine"),
        batch_size=value("machine.batch_size"),
    message:
        "Extracting features of views of shard {wildcards.shard} of the images of {wildcards.experiment}"
