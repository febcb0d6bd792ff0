rule index_images:
    input:
        unpack(decide(stages.manifest_file)),
    output:
        images="results/{experiment}/images.parquet",
    log:
        "logs/{experiment}/index_images.log",
    benchmark:
        "logs/{experiment}/index_images.tsv"
    priority: 100
    conda:
        "../../environment.yml"
    threads: decide(stages.index_threads)
    params:
        name=value("data.name"),
        root=value("data.root"),
        manifest_digest=content(value("data.manifest")),
        bad_images=value("data.bad_images"),
        imbalance_ratio=value("data.imbalance_ratio"),
        n_clusters=decide(stages.checked_n_clusters),
        far_rank=value("neighbors.far_rank"),
        code=script_digest("images/index_images.py"),
    message:
        "Listing the images of {wildcards.experiment}"
    script:
        "../scripts/images/index_images.py"


rule decode_images:
    input:
        images=artifact("index_images", "images.parquet"),
    output:
        header="results/{experiment}/decoded.json",
        pixels="results/{experiment}/decoded.bin",
    log:
        "logs/{experiment}/decode_images.log",
    benchmark:
        "logs/{experiment}/decode_images.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    params:
        data=value("data.name"),
        root=value("data.root"),
        size=value("data.decoded"),
        code=script_digest("images/decode_images.py"),
    message:
        "Decoding the images of {wildcards.experiment} to {params.size} x {params.size} pixels"
    script:
        "../scripts/images/decode_images.py"


rule split_labels:
    input:
        unpack(decide(stages.manifest_file)),
        unpack(decide(stages.label_file)),
        unpack(decide(stages.known_label_files)),
        images=artifact("index_images", "images.parquet"),
    output:
        labels="results/{experiment}/labels.zarr/zarr.json",
        known_labels="results/{experiment}/known_labels.zarr/zarr.json",
    log:
        "logs/{experiment}/split_labels.log",
    benchmark:
        "logs/{experiment}/split_labels.tsv"
    conda:
        "../../environment.yml"
    params:
        name=value("data.name"),
        root=value("data.root"),
        manifest_digest=content(value("data.manifest")),
        label_file_digest=content(value("data.label_file")),
        class_folders=value("data.class_folders"),
        known_label_digests=contents(value("data.known_labels")),
        gcd=value("gcd"),
        code=script_digest("images/split_labels.py"),
    message:
        "Keeping the true labels of {wildcards.experiment} apart from the known ones"
    script:
        "../scripts/images/split_labels.py"
