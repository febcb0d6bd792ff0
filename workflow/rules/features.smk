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
        pretraining=value("pretraining"),
        code=script_digest("pretrain.py"),
    message:
        "Training {params.name} on the images of {wildcards.experiment} without labels"
    script:
        "../scripts/pretrain.py"


rule extract_features:
    input:
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
        gpu=gpus,
        device=value("machine.device"),
        batch_size=value("machine.batch_size"),
    params:
        data=value("data.name"),
        root=value("data.root"),
        view=view,
        name=value("backbone.name"),
        weights=value("backbone.weights"),
        weights_digest=weights_digest,
        network=value("backbone.network"),
        options=value("backbone.options"),
        code=script_digest("extract_features.py"),
    message:
        "Embedding the images of {wildcards.experiment} with {params.name}"
    script:
        "../scripts/extract_features.py"


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
