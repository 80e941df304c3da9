# Compression for machines, judged: test images coded by every codec, what machines still read, and the curves.


rule rate_task:
    input:
        references=rules.references.output.references,
        voters=rules.predictions.output.voters,
        manifest=plan.codec_manifest,
        weights=plan.own("models", plan.encoder, "weights.json"),
        checkpoint=TOWER,
        parts=parts("rate_task"),
        code=steps.code("rate_task"),
    output:
        codes=plan.own("compression", "codes.parquet"),
        scores=plan.own("compression", "scores.parquet"),
        truth=plan.own("compression", "truth.parquet"),
        not_run=plan.own("compression", "not_run.json"),
    log:
        plan.own("logs", "rate_task.txt"),
    conda:
        "../../environment.yml"
    threads: config["workers"]
    params:
        spec=plan.text("rate_task"),
        parts=lambda wildcards, input: shards.option(input.parts),
        inputs=lambda wildcards, input: steps.options(dict(input.items())),
    shell:
        "python -m mlclipsim step rate_task --spec {params.spec:q} {params.parts:q} {params.inputs:q}"
        " --output codes={output.codes:q} --output scores={output.scores:q} --output truth={output.truth:q}"
        " --output not_run={output.not_run:q} > {log:q} 2>&1"


rule rate_task_curves:
    input:
        codes=rules.rate_task.output.codes,
        scores=rules.rate_task.output.scores,
        truth=rules.rate_task.output.truth,
        code=steps.code("rate_task_curves"),
    output:
        curves=plan.own("compression", "curves.parquet"),
        gains=plan.own("compression", "gains.parquet"),
    log:
        plan.own("logs", "rate_task_curves.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("rate_task_curves"),
    shell:
        "python -m mlclipsim step rate_task_curves --spec {params.spec:q} --input codes={input.codes:q}"
        " --input scores={input.scores:q} --input truth={input.truth:q}"
        " --output curves={output.curves:q} --output gains={output.gains:q} > {log:q} 2>&1"


rule reconstructions:
    input:
        references=rules.references.output.references,
        codes=rules.rate_task.output.codes,
        not_run=rules.rate_task.output.not_run,
        weights=plan.own("models", plan.encoder, "weights.json"),
        manifest=plan.codec_manifest,
        checkpoint=TOWER,
        code=steps.code("reconstructions"),
    output:
        images=plan.own("compression", "reconstructions.parquet"),
    log:
        plan.own("logs", "reconstructions.txt"),
    conda:
        "../../environment.yml"
    threads: config["threads"]
    params:
        spec=plan.text("reconstructions"),
        inputs=lambda wildcards, input: steps.options(dict(input.items())),
    shell:
        "python -m mlclipsim step reconstructions --spec {params.spec:q} {params.inputs:q}"
        " --output images={output.images:q} > {log:q} 2>&1"


rule table_6:
    input:
        gains=rules.rate_task_curves.output.gains,
        not_run=rules.rate_task.output.not_run,
        code=steps.code("table_6"),
    output:
        csv=report(
            plan.own("tables", "table_6.csv"),
            caption="../report/table_6.rst",
            category="Tables",
        ),
        md=plan.own("tables", "table_6.md"),
        tex=plan.own("tables", "table_6.tex"),
        provenance=plan.own("provenance", "table_6.json"),
    log:
        plan.own("logs", "table_6.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("table_6"),
    shell:
        "python -m mlclipsim step table_6 --spec {params.spec:q}"
        " --input gains={input.gains:q} --input not_run={input.not_run:q}"
        " --output csv={output.csv:q} --output md={output.md:q} --output tex={output.tex:q}"
        " --output provenance={output.provenance:q} > {log:q} 2>&1"


rule table_trials:
    input:
        manifest=plan.codec_manifest,
        code=steps.code("table_trials"),
    output:
        csv=report(
            plan.own("tables", "table_trials.csv"),
            caption="../report/table_trials.rst",
            category="Appendix",
        ),
        md=plan.own("tables", "table_trials.md"),
        tex=plan.own("tables", "table_trials.tex"),
        provenance=plan.own("provenance", "table_trials.json"),
    log:
        plan.own("logs", "table_trials.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("table_trials"),
    shell:
        "python -m mlclipsim step table_trials --spec {params.spec:q} --input manifest={input.manifest:q}"
        " --output csv={output.csv:q} --output md={output.md:q} --output tex={output.tex:q}"
        " --output provenance={output.provenance:q} > {log:q} 2>&1"


rule figure_4:
    input:
        curves=rules.rate_task_curves.output.curves,
        code=steps.code("figure_4"),
    output:
        pdf=plan.own("figures", "figure_4.pdf"),
        svg=plan.own("figures", "figure_4.svg"),
        png=report(
            plan.own("figures", "figure_4.png"),
            caption="../report/figure_4.rst",
            category="Figures",
        ),
        csv=plan.own("figures", "figure_4.csv"),
        provenance=plan.own("provenance", "figure_4.json"),
    log:
        plan.own("logs", "figure_4.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("figure_4"),
    shell:
        "python -m mlclipsim step figure_4 --spec {params.spec:q} --input curves={input.curves:q}"
        " --output pdf={output.pdf:q} --output svg={output.svg:q} --output png={output.png:q}"
        " --output csv={output.csv:q} --output provenance={output.provenance:q} > {log:q} 2>&1"


rule figure_5:
    input:
        images=rules.reconstructions.output.images,
        code=steps.code("figure_5"),
    output:
        pdf=plan.own("figures", "figure_5.pdf"),
        svg=plan.own("figures", "figure_5.svg"),
        png=report(
            plan.own("figures", "figure_5.png"),
            caption="../report/figure_5.rst",
            category="Figures",
        ),
        csv=plan.own("figures", "figure_5.csv"),
        provenance=plan.own("provenance", "figure_5.json"),
    log:
        plan.own("logs", "figure_5.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("figure_5"),
    shell:
        "python -m mlclipsim step figure_5 --spec {params.spec:q} --input images={input.images:q}"
        " --output pdf={output.pdf:q} --output svg={output.svg:q} --output png={output.png:q}"
        " --output csv={output.csv:q} --output provenance={output.provenance:q} > {log:q} 2>&1"


rule figure_training:
    input:
        manifest=plan.codec_manifest,
        code=steps.code("figure_training"),
    output:
        pdf=plan.own("figures", "figure_training.pdf"),
        svg=plan.own("figures", "figure_training.svg"),
        png=report(
            plan.own("figures", "figure_training.png"),
            caption="../report/figure_training.rst",
            category="Appendix",
        ),
        csv=plan.own("figures", "figure_training.csv"),
        provenance=plan.own("provenance", "figure_training.json"),
    log:
        plan.own("logs", "figure_training.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("figure_training"),
    shell:
        "python -m mlclipsim step figure_training --spec {params.spec:q} --input manifest={input.manifest:q}"
        " --output pdf={output.pdf:q} --output svg={output.svg:q} --output png={output.png:q}"
        " --output csv={output.csv:q} --output provenance={output.provenance:q} > {log:q} 2>&1"
