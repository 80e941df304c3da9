# Baseline metrics, and how well every metric predicts what machines prefer.


rule baselines:
    input:
        references=rules.references.output.references,
        images=rules.pcmp_images.output.images,
        code=steps.code("baselines"),
    output:
        scores=plan.shared("baselines", "scores.parquet"),
    log:
        plan.shared("baselines", "log.txt"),
    conda:
        "../../environment.yml"
    threads: config["workers"]
    params:
        spec=plan.text("baselines"),
    shell:
        "python -m mlclipsim step baselines --spec {params.spec:q}"
        " --input references={input.references:q} --input images={input.images:q}"
        " --output scores={output.scores:q} > {log:q} 2>&1"


rule preference:
    input:
        pairs=rules.pcmp_pairs.output.pairs,
        labels=rules.votes.output.labels,
        votes=rules.votes.output.votes,
        voters=rules.predictions.output.voters,
        predictions=rules.predictions.output.predictions,
        baselines=rules.baselines.output.scores,
        similarities=SIMILARITIES[plan.encoder],
        untrained=SIMILARITIES[plan.untrained],
        weights=plan.own("models", plan.encoder, "weights.json"),
        code=steps.code("preference"),
    output:
        preference=plan.own("benchmarks", "preference.parquet"),
        comparisons=plan.own("benchmarks", "comparisons.json"),
        ceilings=plan.own("benchmarks", "ceilings.json"),
    log:
        plan.own("logs", "preference.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("preference"),
    shell:
        "python -m mlclipsim step preference --spec {params.spec:q} --input pairs={input.pairs:q}"
        " --input labels={input.labels:q} --input votes={input.votes:q} --input voters={input.voters:q}"
        " --input predictions={input.predictions:q} --input baselines={input.baselines:q}"
        " --input similarities={input.similarities:q}"
        " --input untrained={input.untrained:q} --input weights={input.weights:q}"
        " --output preference={output.preference:q} --output comparisons={output.comparisons:q}"
        " --output ceilings={output.ceilings:q} > {log:q} 2>&1"
