rule collect_table:
    input:
        metrics=metrics_of_table,
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
        code=script_digest("collect_table.py"),
    message:
        "Collecting {wildcards.table} of the paper"
    script:
        "../scripts/collect_table.py"
