rule pack_model:
    input:
        unpack(decide(stages.weight_files)),
        unpack(decide(stages.learned_files)),
        images=artifact("index_images", "images.parquet"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        metrics="results/{experiment}/metrics.json",
    output:
        model="results/{experiment}/model.safetensors",
        card="results/{experiment}/model.md",
    log:
        "logs/{experiment}/pack_model.log",
    benchmark:
        "logs/{experiment}/pack_model.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    params:
        data=value("data.name"),
        view=decide(stages.view),
        decoded=value("data.decoded"),
        name=value("backbone.name"),
        weights=value("backbone.weights"),
        weights_digest=weights_digest(value("backbone.weights")),
        network=decide(stages.network),
        options=value("backbone.options"),
        trained=value("finetuning.trainable"),
        is_named=decide(stages.has_named_clusters),
        code=script_digest("inference/pack_model.py"),
    message:
        "Packing what new images need of {wildcards.experiment}"
    script:
        "../scripts/inference/pack_model.py"
