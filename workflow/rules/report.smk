rule summarize:
    input:
        unpack(decide(stages.n_clusters_file)),
        images=artifact("index_images", "images.parquet"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        positives=artifact("clean_neighbors", "positives.zarr/zarr.json"),
        scores="results/{experiment}/scores.json",
        histories=decide(stages.histories),
        predictions=decide(stages.predictions),
    output:
        metrics="results/{experiment}/metrics.json",
        report="results/{experiment}/report.html",
        figures=directory("results/{experiment}/figures"),
    log:
        "logs/{experiment}/summarize.log",
    benchmark:
        "logs/{experiment}/summarize.tsv"
    conda:
        "../../environment.yml"
    params:
        data=value("data.name"),
        root=value("data.root"),
        method=value("method"),
        n_clusters=value("n_clusters"),
        seeds=value("seeds"),
        stage_owners=owners,
        code=script_digest("report/summarize.py"),
    message:
        "Summarizing {wildcards.experiment}"
    script:
        "../scripts/report/summarize.py"


rule list_clusters:
    input:
        images=artifact("index_images", "images.parquet"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        metrics="results/{experiment}/metrics.json",
        predictions=decide(stages.predictions),
    output:
        csv="results/{experiment}/predictions.csv",
        parquet="results/{experiment}/predictions.parquet",
        sheets=directory("results/{experiment}/clusters"),
    log:
        "logs/{experiment}/list_clusters.log",
    benchmark:
        "logs/{experiment}/list_clusters.tsv"
    conda:
        "../../environment.yml"
    params:
        seeds=value("seeds"),
        is_named=decide(stages.has_named_clusters),
        code=script_digest("report/list_clusters.py"),
    message:
        "Listing the clusters of {wildcards.experiment}"
    script:
        "../scripts/report/list_clusters.py"


rule collect_table:
    input:
        metrics=metrics_of(experiments_of_table),
    output:
        markdown="results/tables/{table}.md",
        csv="results/tables/{table}.csv",
    log:
        "logs/tables/{table}.log",
    benchmark:
        "logs/tables/{table}.tsv"
    conda:
        "../../environment.yml"
    params:
        table=table,
        experiments=experiments_of_table,
        code=script_digest("report/collect_table.py"),
    message:
        "Collecting {wildcards.table} of the paper"
    script:
        "../scripts/report/collect_table.py"


rule compare_methods:
    input:
        unpack(times_of_comparison),
        metrics=metrics_of(experiments_of_comparison),
    output:
        markdown="results/tables/{comparison}.md",
        csv="results/tables/{comparison}.csv",
        figure="results/tables/{comparison}.png",
    log:
        "logs/tables/{comparison}.log",
    benchmark:
        "logs/tables/{comparison}.tsv"
    conda:
        "../../environment.yml"
    params:
        comparison=comparison,
        experiments=experiments_of_comparison,
        code=script_digest("report/compare_methods.py"),
    message:
        "Comparing the methods of {wildcards.comparison}"
    script:
        "../scripts/report/compare_methods.py"
