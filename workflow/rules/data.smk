# Reference images, each source photograph in exactly one role.


rule references:
    input:
        code=steps.code("references"),
    output:
        partition=plan.shared("references", "partition.parquet"),
        references=plan.shared("references", "references.parquet"),
    log:
        plan.shared("references", "log.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("references"),
    shell:
        "python -m mlclipsim step references --spec {params.spec:q}"
        " --output partition={output.partition:q} --output references={output.references:q} > {log:q} 2>&1"
