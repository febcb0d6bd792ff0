rule map_images:
    input:
        features=artifact("extract_features", "features.zarr/zarr.json"),
        neighbors=artifact("mine_neighbors", "neighbors.zarr/zarr.json"),
    output:
        map="results/{experiment}/map.zarr/zarr.json",
    log:
        "logs/{experiment}/map_images.log",
    benchmark:
        "logs/{experiment}/map_images.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    params:
        code=script_digest("maps/map_images.py"),
    message:
        "Laying the images of {wildcards.experiment} out in two dimensions"
    script:
        "../scripts/maps/map_images.py"
