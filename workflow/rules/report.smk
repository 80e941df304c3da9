# Tables, figures and claims: each one job, each a target by its name, each with its provenance beside it.


# Seconds each, from small files: a cluster's queue would take longer than they do.
localrules:
    table_1,
    table_2,
    table_3,
    table_4,
    table_5,
    table_6,
    table_7,
    table_8,
    table_9,
    table_trials,
    figure_1,
    figure_2,
    figure_3,
    figure_4,
    figure_5,
    figure_6,
    figure_7,
    figure_8,
    figure_training,
    claims,


rule table_1:
    input:
        references=rules.references.output.references,
        images=rules.pcmp_images.output.images,
        drops=[rules.pcmp_pairs.output.drops, rules.votes.output.drops],
        pairs=rules.pcmp_pairs.output.pairs,
        votes=rules.votes.output.votes,
        labels=rules.votes.output.labels,
        voters=rules.predictions.output.voters,
        predictions=rules.predictions.output.predictions,
        ceilings=rules.preference.output.ceilings,
        code=steps.code("table_1"),
    output:
        csv=report(
            plan.own("tables", "table_1.csv"),
            caption="../report/table_1.rst",
            category="Tables",
        ),
        md=plan.own("tables", "table_1.md"),
        tex=plan.own("tables", "table_1.tex"),
        provenance=plan.own("provenance", "table_1.json"),
    log:
        plan.own("logs", "table_1.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("table_1"),
    shell:
        "python -m mlclipsim step table_1 --spec {params.spec:q} --input references={input.references:q}"
        " --input images={input.images:q} --input drops={input.drops:q} --input pairs={input.pairs:q}"
        " --input votes={input.votes:q} --input labels={input.labels:q} --input voters={input.voters:q}"
        " --input predictions={input.predictions:q} --input ceilings={input.ceilings:q}"
        " --output csv={output.csv:q} --output md={output.md:q} --output tex={output.tex:q}"
        " --output provenance={output.provenance:q} > {log:q} 2>&1"


rule table_2:
    input:
        preference=rules.preference.output.preference,
        correlations=rules.machine_iqa.output.correlations,
        severity=rules.severity.output.severity,
        code=steps.code("table_2"),
    output:
        csv=report(
            plan.own("tables", "table_2.csv"),
            caption="../report/table_2.rst",
            category="Tables",
        ),
        md=plan.own("tables", "table_2.md"),
        tex=plan.own("tables", "table_2.tex"),
        provenance=plan.own("provenance", "table_2.json"),
    log:
        plan.own("logs", "table_2.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("table_2"),
    shell:
        "python -m mlclipsim step table_2 --spec {params.spec:q} --input preference={input.preference:q}"
        " --input correlations={input.correlations:q}"
        " --input severity={input.severity:q}"
        " --output csv={output.csv:q} --output md={output.md:q} --output tex={output.tex:q}"
        " --output provenance={output.provenance:q} > {log:q} 2>&1"


rule table_3:
    input:
        correlations=rules.human_iqa.output.correlations,
        code=steps.code("table_3"),
    output:
        csv=report(
            plan.own("tables", "table_3.csv"),
            caption="../report/table_3.rst",
            category="Tables",
        ),
        md=plan.own("tables", "table_3.md"),
        tex=plan.own("tables", "table_3.tex"),
        provenance=plan.own("provenance", "table_3.json"),
    log:
        plan.own("logs", "table_3.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("table_3"),
    shell:
        "python -m mlclipsim step table_3 --spec {params.spec:q} --input correlations={input.correlations:q}"
        " --output csv={output.csv:q} --output md={output.md:q} --output tex={output.tex:q}"
        " --output provenance={output.provenance:q} > {log:q} 2>&1"


rule table_4:
    input:
        ablation=rules.layer_ablation.output.ablation,
        code=steps.code("table_4"),
    output:
        csv=report(
            plan.own("tables", "table_4.csv"),
            caption="../report/table_4.rst",
            category="Tables",
        ),
        md=plan.own("tables", "table_4.md"),
        tex=plan.own("tables", "table_4.tex"),
        provenance=plan.own("provenance", "table_4.json"),
    log:
        plan.own("logs", "table_4.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("table_4"),
    shell:
        "python -m mlclipsim step table_4 --spec {params.spec:q}"
        " --input ablation={input.ablation:q}"
        " --output csv={output.csv:q} --output md={output.md:q} --output tex={output.tex:q}"
        " --output provenance={output.provenance:q} > {log:q} 2>&1"


rule table_5:
    input:
        ablation=rules.ablation.output.ablation,
        data_size=rules.data_size.output.data_size,
        code=steps.code("table_5"),
    output:
        csv=report(
            plan.own("tables", "table_5.csv"),
            caption="../report/table_5.rst",
            category="Tables",
        ),
        md=plan.own("tables", "table_5.md"),
        tex=plan.own("tables", "table_5.tex"),
        provenance=plan.own("provenance", "table_5.json"),
    log:
        plan.own("logs", "table_5.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("table_5"),
    shell:
        "python -m mlclipsim step table_5 --spec {params.spec:q}"
        " --input ablation={input.ablation:q}"
        " --input data_size={input.data_size:q}"
        " --output csv={output.csv:q} --output md={output.md:q} --output tex={output.tex:q}"
        " --output provenance={output.provenance:q} > {log:q} 2>&1"


rule table_7:
    input:
        cost=rules.cost.output.cost,
        code=steps.code("table_7"),
    output:
        csv=report(
            plan.own("tables", "table_7.csv"),
            caption="../report/table_7.rst",
            category="Tables",
        ),
        md=plan.own("tables", "table_7.md"),
        tex=plan.own("tables", "table_7.tex"),
        provenance=plan.own("provenance", "table_7.json"),
    log:
        plan.own("logs", "table_7.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("table_7"),
    shell:
        "python -m mlclipsim step table_7 --spec {params.spec:q} --input cost={input.cost:q}"
        " --output csv={output.csv:q} --output md={output.md:q} --output tex={output.tex:q}"
        " --output provenance={output.provenance:q} > {log:q} 2>&1"


rule table_8:
    input:
        pairs=rules.pcmp_pairs.output.pairs,
        predictions=rules.predictions.output.predictions,
        voters=rules.predictions.output.voters,
        votes=rules.votes.output.votes,
        labels=rules.votes.output.labels,
        code=steps.code("table_8"),
    output:
        csv=report(
            plan.own("tables", "table_8.csv"),
            caption="../report/table_8.rst",
            category="Tables",
        ),
        md=plan.own("tables", "table_8.md"),
        tex=plan.own("tables", "table_8.tex"),
        provenance=plan.own("provenance", "table_8.json"),
    log:
        plan.own("logs", "table_8.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("table_8"),
    shell:
        "python -m mlclipsim step table_8 --spec {params.spec:q} --input pairs={input.pairs:q}"
        " --input predictions={input.predictions:q} --input voters={input.voters:q}"
        " --input votes={input.votes:q} --input labels={input.labels:q}"
        " --output csv={output.csv:q} --output md={output.md:q} --output tex={output.tex:q}"
        " --output provenance={output.provenance:q} > {log:q} 2>&1"


rule table_9:
    input:
        images=rules.pcmp_images.output.images,
        pairs=rules.pcmp_pairs.output.pairs,
        votes=rules.votes.output.votes,
        voters=rules.predictions.output.voters,
        predictions=rules.predictions.output.predictions,
        code=steps.code("table_9"),
    output:
        csv=report(
            plan.own("tables", "table_9.csv"),
            caption="../report/table_9.rst",
            category="Tables",
        ),
        md=plan.own("tables", "table_9.md"),
        tex=plan.own("tables", "table_9.tex"),
        provenance=plan.own("provenance", "table_9.json"),
    log:
        plan.own("logs", "table_9.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("table_9"),
    shell:
        "python -m mlclipsim step table_9 --spec {params.spec:q} --input images={input.images:q}"
        " --input pairs={input.pairs:q} --input votes={input.votes:q} --input voters={input.voters:q}"
        " --input predictions={input.predictions:q}"
        " --output csv={output.csv:q} --output md={output.md:q} --output tex={output.tex:q}"
        " --output provenance={output.provenance:q} > {log:q} 2>&1"


rule figure_1:
    input:
        references=rules.references.output.references,
        images=rules.pcmp_images.output.images,
        pairs=rules.pcmp_pairs.output.pairs,
        labels=rules.votes.output.labels,
        code=steps.code("figure_1"),
    output:
        pdf=plan.own("figures", "figure_1.pdf"),
        svg=plan.own("figures", "figure_1.svg"),
        png=report(
            plan.own("figures", "figure_1.png"),
            caption="../report/figure_1.rst",
            category="Figures",
        ),
        csv=plan.own("figures", "figure_1.csv"),
        provenance=plan.own("provenance", "figure_1.json"),
    log:
        plan.own("logs", "figure_1.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("figure_1"),
    shell:
        "python -m mlclipsim step figure_1 --spec {params.spec:q} --input references={input.references:q}"
        " --input images={input.images:q} --input pairs={input.pairs:q} --input labels={input.labels:q}"
        " --output pdf={output.pdf:q} --output svg={output.svg:q} --output png={output.png:q}"
        " --output csv={output.csv:q} --output provenance={output.provenance:q} > {log:q} 2>&1"


rule figure_2:
    input:
        pairs=rules.pcmp_pairs.output.pairs,
        labels=rules.votes.output.labels,
        scores=[rules.baselines.output.scores, rules.clip_scores.output.scores],
        code=steps.code("figure_2"),
    output:
        pdf=plan.own("figures", "figure_2.pdf"),
        svg=plan.own("figures", "figure_2.svg"),
        png=report(
            plan.own("figures", "figure_2.png"),
            caption="../report/figure_2.rst",
            category="Figures",
        ),
        csv=plan.own("figures", "figure_2.csv"),
        provenance=plan.own("provenance", "figure_2.json"),
    log:
        plan.own("logs", "figure_2.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("figure_2"),
    shell:
        "python -m mlclipsim step figure_2 --spec {params.spec:q} --input pairs={input.pairs:q}"
        " --input labels={input.labels:q} --input scores={input.scores:q}"
        " --output pdf={output.pdf:q} --output svg={output.svg:q} --output png={output.png:q}"
        " --output csv={output.csv:q} --output provenance={output.provenance:q} > {log:q} 2>&1"


rule figure_3:
    input:
        weights=[plan.own("models", name, "weights.json") for name in plan.encoders],
        code=steps.code("figure_3"),
    output:
        pdf=plan.own("figures", "figure_3.pdf"),
        svg=plan.own("figures", "figure_3.svg"),
        png=report(
            plan.own("figures", "figure_3.png"),
            caption="../report/figure_3.rst",
            category="Figures",
        ),
        csv=plan.own("figures", "figure_3.csv"),
        provenance=plan.own("provenance", "figure_3.json"),
    log:
        plan.own("logs", "figure_3.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("figure_3"),
    shell:
        "python -m mlclipsim step figure_3 --spec {params.spec:q} --input weights={input.weights:q}"
        " --output pdf={output.pdf:q} --output svg={output.svg:q} --output png={output.png:q}"
        " --output csv={output.csv:q} --output provenance={output.provenance:q} > {log:q} 2>&1"


rule figure_6:
    input:
        calibration=rules.calibration.output.calibration,
        code=steps.code("figure_6"),
    output:
        pdf=plan.own("figures", "figure_6.pdf"),
        svg=plan.own("figures", "figure_6.svg"),
        png=report(
            plan.own("figures", "figure_6.png"),
            caption="../report/figure_6.rst",
            category="Figures",
        ),
        csv=plan.own("figures", "figure_6.csv"),
        provenance=plan.own("provenance", "figure_6.json"),
    log:
        plan.own("logs", "figure_6.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("figure_6"),
    shell:
        "python -m mlclipsim step figure_6 --spec {params.spec:q} --input calibration={input.calibration:q}"
        " --output pdf={output.pdf:q} --output svg={output.svg:q} --output png={output.png:q}"
        " --output csv={output.csv:q} --output provenance={output.provenance:q} > {log:q} 2>&1"


rule figure_7:
    input:
        ratings=plan.judged("people", "human_images", "ratings.parquet")[:1],
        references=plan.judged("people", "human_images", "references.parquet")[:1],
        images=plan.judged("people", "human_images", "images.parquet")[:1],
        predictions=plan.judged("people", "human_predictions", "predictions.parquet")[:1],
        voters=rules.predictions.output.voters if JUDGED else [],
        code=steps.code("figure_7"),
    output:
        pdf=plan.own("figures", "figure_7.pdf"),
        svg=plan.own("figures", "figure_7.svg"),
        png=report(
            plan.own("figures", "figure_7.png"),
            caption="../report/figure_7.rst",
            category="Figures",
        ),
        csv=plan.own("figures", "figure_7.csv"),
        provenance=plan.own("provenance", "figure_7.json"),
    log:
        plan.own("logs", "figure_7.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("figure_7"),
        inputs=lambda wildcards, input: steps.options(input),
    shell:
        "python -m mlclipsim step figure_7 --spec {params.spec:q} {params.inputs:q}"
        " --output pdf={output.pdf:q} --output svg={output.svg:q} --output png={output.png:q}"
        " --output csv={output.csv:q} --output provenance={output.provenance:q} > {log:q} 2>&1"


rule figure_8:
    input:
        data_size=rules.data_size.output.data_size,
        code=steps.code("figure_8"),
    output:
        pdf=plan.own("figures", "figure_8.pdf"),
        svg=plan.own("figures", "figure_8.svg"),
        png=report(
            plan.own("figures", "figure_8.png"),
            caption="../report/figure_8.rst",
            category="Figures",
        ),
        csv=plan.own("figures", "figure_8.csv"),
        provenance=plan.own("provenance", "figure_8.json"),
    log:
        plan.own("logs", "figure_8.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("figure_8"),
    shell:
        "python -m mlclipsim step figure_8 --spec {params.spec:q} --input data_size={input.data_size:q}"
        " --output pdf={output.pdf:q} --output svg={output.svg:q} --output png={output.png:q}"
        " --output csv={output.csv:q} --output provenance={output.provenance:q} > {log:q} 2>&1"


rule claims:
    input:
        comparisons=rules.preference.output.comparisons,
        human=rules.human_iqa.output.comparisons,
        gains=rules.rate_task_curves.output.gains,
        code=steps.code("claims"),
    output:
        json=report(
            plan.own("claims.json"),
            caption="../report/claims.rst",
            category="Claims",
        ),
        md=plan.own("claims.md"),
        provenance=plan.own("provenance", "claims.json"),
    log:
        plan.own("logs", "claims.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("claims"),
    shell:
        "python -m mlclipsim step claims --spec {params.spec:q} --input comparisons={input.comparisons:q}"
        " --input human={input.human:q} --input gains={input.gains:q}"
        " --output json={output.json:q} --output md={output.md:q} --output provenance={output.provenance:q}"
        " > {log:q} 2>&1"
