rule pack_model:
    input:
        unpack(decide(stages.weight_files)),
        images=artifact("index_images", "images.parquet"),
        metrics="results/{experiment}/metrics.json",
        models=decide(stages.consensus_models),
    output:
        model="results/{experiment}/model.safetensors",
        card="results/{experiment}/model.md",
    log:
        "logs/{experiment}/pack_model.log",
    benchmark:
        "logs/{experiment}/pack_model.tsv"
    conda:
        "../../environment.yml"
    params:
        data=value("data.name"),
        view=decide(stages.view),
        decoded=value("data.decoded"),
        name=value("backbone.name"),
        weights=value("backbone.weights"),
        weights_digest=weights_digest(value("backbone.weights")),
        network=decide(stages.network),
        options=value("backbone.options"),
        code=script_digest("inference/pack_model.py"),
    message:
        "Packing what new images need of {wildcards.experiment}"
    script:
        "../scripts/inference/pack_model.py"
