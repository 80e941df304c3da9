# A run as one page that a person opens, and several runs side by side. Both are asked for by name, not in `all`.

# What the page shows: whatever `all` makes of tables, figures and claims.
DOCUMENTS = [
    name
    for name in (Path(path).stem for path in rules.all.input)
    if name in steps.STEPS and steps.STEPS[name].report
]


# Seconds each, and `record` asks the Snakemake that leads the run.
localrules:
    record,
    report,
    compare,


rule disagreements:
    input:
        references=rules.references.output.references,
        images=rules.pcmp_images.output.images,
        pairs=rules.pcmp_pairs.output.pairs,
        labels=rules.votes.output.labels,
        votes=rules.votes.output.votes,
        scores=[rules.clip_scores.output.scores, rules.baselines.output.scores],
        weights=plan.own("models", plan.encoder, "weights.json"),
        checkpoint=(
            plan.shared("lit_encoder", "encoder.safetensors", plan.encoder) if plan.encoder in LIT else []
        ),
        code=steps.code("disagreements"),
    output:
        disagreements=plan.own("benchmarks", "disagreements.parquet"),
        sides=plan.own("benchmarks", "sides.parquet"),
    log:
        plan.own("logs", "disagreements.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("disagreements"),
        inputs=lambda wildcards, input: steps.options(input),
    shell:
        "python -m mlclipsim step disagreements --spec {params.spec:q} {params.inputs:q}"
        " --output disagreements={output.disagreements:q} --output sides={output.sides:q} > {log:q} 2>&1"


rule record:
    input:
        results=rules.all.input,
        code=steps.code("record"),
    output:
        record=plan.own("record.json"),
    log:
        plan.own("logs", "record.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("record"),
    shell:
        "python -m mlclipsim step record --spec {params.spec:q} --output record={output.record:q} > {log:q} 2>&1"


rule report:
    input:
        documents=[path for name in DOCUMENTS for path in getattr(rules, name).output],
        captions=[workflow.source_path(f"../report/{name}.rst") for name in DOCUMENTS],
        record=rules.record.output.record,
        disagreements=rules.disagreements.output.disagreements,
        sides=rules.disagreements.output.sides,
        code=steps.code("report"),
    output:
        html=plan.own("report.html"),
    log:
        plan.own("logs", "report.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("report"),
    shell:
        "python -m mlclipsim step report --spec {params.spec:q} --input documents={input.documents:q}"
        " --input captions={input.captions:q} --input record={input.record:q}"
        " --input disagreements={input.disagreements:q} --input sides={input.sides:q}"
        " --output html={output.html:q} > {log:q} 2>&1"


rule compare:
    input:
        record=lambda wildcards: plan.compared("record.json"),
        claims=lambda wildcards: plan.compared("claims.json"),
        table_2=lambda wildcards: plan.compared("tables", "table_2.csv"),
        table_4=lambda wildcards: plan.compared("tables", "table_4.csv"),
        table_5=lambda wildcards: plan.compared("tables", "table_5.csv"),
        figure_3=lambda wildcards: plan.compared("figures", "figure_3.csv"),
        code=steps.code("compare"),
    output:
        html=f"results/{plan.preset}/compare.html",
    log:
        f"results/{plan.preset}/compare.txt",
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("compare"),
    shell:
        "python -m mlclipsim step compare --spec {params.spec:q} --input record={input.record:q}"
        " --input claims={input.claims:q} --input table_2={input.table_2:q}"
        " --input table_4={input.table_4:q} --input table_5={input.table_5:q}"
        " --input figure_3={input.figure_3:q} --output html={output.html:q} > {log:q} 2>&1"
