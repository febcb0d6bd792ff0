rule estimate_n_clusters:
    input:
        features=artifact("extract_features", "features.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
    output:
        estimate="results/{experiment}/n_clusters.json",
        figure=report(
            "results/{experiment}/n_clusters.png",
            caption="../report/n_clusters.rst",
            category="Quality",
            subcategory="{experiment}",
            labels={"what": "number of clusters"},
        ),
    log:
        "logs/{experiment}/estimate_n_clusters.log",
    benchmark:
        "logs/{experiment}/estimate_n_clusters.tsv"
    conda:
        "../../environment.yml"
    threads: 1  # as fit_consensus
    params:
        code=script_digest("quality/estimate_n_clusters.py"),
    message:
        "Estimating the number of clusters of {wildcards.experiment}"
    script:
        "../scripts/quality/estimate_n_clusters.py"


rule examine_images:
    input:
        images=artifact("index_images", "images.parquet"),
        features=artifact("extract_features", "features.zarr/zarr.json"),
        neighbors=artifact("mine_neighbors", "neighbors.zarr/zarr.json"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        metrics="results/{experiment}/metrics.json",
        predictions=decide(stages.predictions),
    output:
        quality="results/{experiment}/quality.json",
        page=report(
            "results/{experiment}/quality.html",
            caption="../report/quality.rst",
            category="Quality",
            subcategory="{experiment}",
            labels={"what": "page"},
        ),
        duplicates=report(
            "results/{experiment}/duplicates.csv",
            caption="../report/duplicates.rst",
            category="Quality",
            subcategory="{experiment}",
            labels={"what": "duplicates"},
        ),
        outliers=report(
            "results/{experiment}/outliers.csv",
            caption="../report/outliers.rst",
            category="Quality",
            subcategory="{experiment}",
            labels={"what": "outliers"},
        ),
        suspects=report(
            "results/{experiment}/suspects.csv",
            caption="../report/suspects.rst",
            category="Quality",
            subcategory="{experiment}",
            labels={"what": "suspects"},
        ),
    log:
        "logs/{experiment}/examine_images.log",
    benchmark:
        "logs/{experiment}/examine_images.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    params:
        seeds=value("seeds"),
        code=script_digest("quality/examine_images.py"),
    message:
        "Examining the images of {wildcards.experiment}: duplicates, outliers, suspects"
    script:
        "../scripts/quality/examine_images.py"
