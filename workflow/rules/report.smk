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
        metrics=report(
            "results/{experiment}/metrics.json",
            caption="../report/metrics.rst",
            category="Experiment",
            subcategory="{experiment}",
            labels={"what": "all scores"},
        ),
        report=report(
            "results/{experiment}/report.html",
            caption="../report/report.rst",
            category="Experiment",
            subcategory="{experiment}",
            labels={"what": "page of the experiment"},
        ),
        figures=report(
            directory("results/{experiment}/figures"),
            patterns=["{drawn}.png"],
            caption="../report/figures.rst",
            category="Experiment",
            subcategory="{experiment}",
            labels={"what": "figure {drawn}"},
        ),
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
        csv=report(
            "results/{experiment}/predictions.csv",
            caption="../report/predictions.rst",
            category="Clusters",
            subcategory="{experiment}",
            labels={"what": "list of all images"},
        ),
        parquet="results/{experiment}/predictions.parquet",
        sheets=report(
            directory("results/{experiment}/clusters"),
            patterns=["cluster_{cluster}.jpg"],
            caption="../report/clusters.rst",
            category="Clusters",
            subcategory="{experiment}",
            labels={"what": "cluster {cluster}"},
        ),
    log:
        "logs/{experiment}/list_clusters.log",
    benchmark:
        "logs/{experiment}/list_clusters.tsv"
    conda:
        "../../environment.yml"
    params:
        seeds=value("seeds"),
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
        csv=report(
            "results/tables/{table}.csv",
            caption="../report/table.rst",
            category="Tables",
            subcategory="Of the paper",
            labels={"what": "{table}"},
        ),
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
        csv=report(
            "results/tables/{comparison}.csv",
            caption="../report/comparison.rst",
            category="Tables",
            subcategory="Methods",
            labels={"what": "{comparison}"},
        ),
        figure=report(
            "results/tables/{comparison}.png",
            caption="../report/comparison.rst",
            category="Tables",
            subcategory="Methods",
            labels={"what": "{comparison}, drawn"},
        ),
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


rule draw_neighbors:
    input:
        facts="results/{experiment}/paper_figures/neighbors.json",
        thresholds="results/{experiment}/paper_figures/figure4.csv",
        ranks="results/{experiment}/paper_figures/figure8.csv",
        removed="results/{experiment}/paper_figures/figure9.csv",
        purity="results/{experiment}/paper_figures/figure10.csv",
    output:
        thresholds_png=report(
            "results/{experiment}/paper_figures/figure4.png",
            caption="../report/figure4.rst",
            category="Figures of the paper",
            subcategory="{experiment}",
            labels={"figure": "04", "shows": "thresholds"},
        ),
        thresholds_svg="results/{experiment}/paper_figures/figure4.svg",
        ranks_png=report(
            "results/{experiment}/paper_figures/figure8.png",
            caption="../report/figure8.rst",
            category="Figures of the paper",
            subcategory="{experiment}",
            labels={"figure": "08", "shows": "ranks"},
        ),
        ranks_svg="results/{experiment}/paper_figures/figure8.svg",
        removed_png=report(
            "results/{experiment}/paper_figures/figure9.png",
            caption="../report/figure9.rst",
            category="Figures of the paper",
            subcategory="{experiment}",
            labels={"figure": "09", "shows": "discarded"},
        ),
        removed_svg="results/{experiment}/paper_figures/figure9.svg",
        purity_png=report(
            "results/{experiment}/paper_figures/figure10.png",
            caption="../report/figure10.rst",
            category="Figures of the paper",
            subcategory="{experiment}",
            labels={"figure": "10", "shows": "purity"},
        ),
        purity_svg="results/{experiment}/paper_figures/figure10.svg",
    log:
        "logs/{experiment}/draw_neighbors.log",
    benchmark:
        "logs/{experiment}/draw_neighbors.tsv"
    conda:
        "../../environment.yml"
    params:
        code=script_digest("report/draw_neighbors.py"),
    message:
        "Drawing figures 4, 8, 9 and 10 of {wildcards.experiment}"
    script:
        "../scripts/report/draw_neighbors.py"


rule draw_cleaning:
    input:
        unpack(clusters_for_classes),
        images=artifact("index_images", "images.parquet"),
        features=artifact("extract_features", "features.zarr/zarr.json"),
        neighbors=artifact("mine_neighbors", "neighbors.zarr/zarr.json"),
        positives=artifact("clean_neighbors", "positives.zarr/zarr.json"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
    output:
        png=report(
            "results/{experiment}/paper_figures/figure13.png",
            caption="../report/figure13.rst",
            category="Figures of the paper",
            subcategory="{experiment}",
            labels={"figure": "13", "shows": "neighborhoods"},
        ),
        svg="results/{experiment}/paper_figures/figure13.svg",
        csv="results/{experiment}/paper_figures/figure13.csv",
    log:
        "logs/{experiment}/draw_cleaning.log",
    benchmark:
        "logs/{experiment}/draw_cleaning.tsv"
    conda:
        "../../environment.yml"
    params:
        seeds=decide(stages.seeds_for_classes),
        code=script_digest("report/draw_cleaning.py"),
    message:
        "Drawing figure 13 of {wildcards.experiment}"
    script:
        "../scripts/report/draw_cleaning.py"


rule draw_examples:
    input:
        images=artifact("index_images", "images.parquet"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        metrics="results/{experiment}/metrics.json",
        predictions=decide(stages.predictions),
    output:
        png=report(
            "results/{experiment}/paper_figures/figure{number}.png",
            caption="../report/examples.rst",
            category="Figures of the paper",
            subcategory="{experiment}",
            labels={"figure": "{number}", "shows": "examples"},
        ),
        svg="results/{experiment}/paper_figures/figure{number}.svg",
        csv="results/{experiment}/paper_figures/figure{number}.csv",
    log:
        "logs/{experiment}/draw_examples{number}.log",
    benchmark:
        "logs/{experiment}/draw_examples{number}.tsv"
    conda:
        "../../environment.yml"
    params:
        seeds=value("seeds"),
        code=script_digest("report/draw_examples.py"),
    message:
        "Drawing figure {wildcards.number} of {wildcards.experiment}"
    script:
        "../scripts/report/draw_examples.py"


rule list_figures:
    input:
        facts="results/{experiment}/paper_figures/neighbors.json",
        figures=figures_of_paper,
    output:
        page="results/{experiment}/paper_figures/index.md",
    log:
        "logs/{experiment}/list_figures.log",
    benchmark:
        "logs/{experiment}/list_figures.tsv"
    conda:
        "../../environment.yml"
    params:
        numbers=decide(stages.paper_figures),
        code=script_digest("report/list_figures.py"),
    message:
        "Listing the figures of {wildcards.experiment}"
    script:
        "../scripts/report/list_figures.py"


rule draw_curves:
    input:
        unpack(scores_of_figure),
    output:
        png=report(
            "results/figures/{figure}.png",
            caption="../report/curves.rst",
            category="Figures of the paper",
            subcategory="Several experiments",
            labels={"figure": "{figure}", "shows": "experiments"},
        ),
        svg="results/figures/{figure}.svg",
        csv="results/figures/{figure}.csv",
    log:
        "logs/figures/{figure}.log",
    benchmark:
        "logs/figures/{figure}.tsv"
    conda:
        "../../environment.yml"
    params:
        figure=figure,
        experiments=experiments_of_figure,
        settings=settings_of_figure,
        code=script_digest("report/draw_curves.py"),
    message:
        "Drawing {wildcards.figure} of the paper"
    script:
        "../scripts/report/draw_curves.py"
