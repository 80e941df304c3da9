# Baseline metrics, and how well every metric predicts what machines prefer.


rule baselines:
    input:
        references=rules.references.output.references,
        images=rules.pcmp_images.output.images,
        parts=parts("baselines"),
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
        parts=lambda wildcards, input: shards.option(input.parts),
    shell:
        "python -m mlclipsim step baselines --spec {params.spec:q} {params.parts:q}"
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


rule severity:
    input:
        images=rules.pcmp_images.output.images,
        scores=[rules.baselines.output.scores, rules.clip_scores.output.scores],
        code=steps.code("severity"),
    output:
        severity=plan.own("benchmarks", "severity.parquet"),
    log:
        plan.own("logs", "severity.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("severity"),
    shell:
        "python -m mlclipsim step severity --spec {params.spec:q} --input images={input.images:q}"
        " --input scores={input.scores:q} --output severity={output.severity:q} > {log:q} 2>&1"


rule cost:
    input:
        weights=plan.own("models", plan.encoder, "weights.json"),
        checkpoint=(
            [plan.shared("lit_encoder", "encoder.safetensors", plan.encoder)] if plan.encoder in LIT else []
        ),
        code=steps.code("cost"),
    output:
        cost=plan.own("benchmarks", "cost.parquet"),
    log:
        plan.own("logs", "cost.txt"),
    conda:
        "../../environment.yml"
    # More than any machine has, which Snakemake lowers to --cores: no other job runs beside it and disturbs its
    # timings. (workflow.cores would ask --unlock for a number of cores.) It computes on `threads` of the config,
    # as every step; on a cluster a job has its cores to itself, and the profile sets one.
    threads: 1024
    resources:
        gpu=0,
    params:
        spec=plan.text("cost"),
        inputs=lambda wildcards, input: steps.options(input),
    shell:
        "python -m mlclipsim step cost --spec {params.spec:q} --gpus {resources.gpu} {params.inputs:q}"
        " --output cost={output.cost:q} > {log:q} 2>&1"


rule calibration:
    input:
        pairs=rules.pcmp_pairs.output.pairs,
        labels=rules.votes.output.labels,
        baselines=rules.baselines.output.scores,
        similarities=SIMILARITIES[plan.encoder],
        weights=plan.own("models", plan.encoder, "weights.json"),
        code=steps.code("calibration"),
    output:
        calibration=plan.own("benchmarks", "calibration.parquet"),
    log:
        plan.own("logs", "calibration.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("calibration"),
    shell:
        "python -m mlclipsim step calibration --spec {params.spec:q} --input pairs={input.pairs:q}"
        " --input labels={input.labels:q} --input baselines={input.baselines:q}"
        " --input similarities={input.similarities:q} --input weights={input.weights:q}"
        " --output calibration={output.calibration:q} > {log:q} 2>&1"


rule layer_ablation:
    input:
        pairs=rules.pcmp_pairs.output.pairs,
        labels=rules.votes.output.labels,
        similarities=SIMILARITIES[plan.encoder],
        weights=plan.own("models", plan.encoder, "weights.json"),
        code=steps.code("layer_ablation"),
    output:
        ablation=plan.own("benchmarks", "layer_ablation.parquet"),
    log:
        plan.own("logs", "layer_ablation.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("layer_ablation"),
    shell:
        "python -m mlclipsim step layer_ablation --spec {params.spec:q} --input pairs={input.pairs:q}"
        " --input labels={input.labels:q} --input similarities={input.similarities:q}"
        " --input weights={input.weights:q} --output ablation={output.ablation:q} > {log:q} 2>&1"


rule ablation:
    input:
        pairs=rules.pcmp_pairs.output.pairs,
        labels=rules.votes.output.labels,
        votes=rules.votes.output.votes,
        voters=rules.predictions.output.voters,
        predictions=rules.predictions.output.predictions,
        similarities=list(SIMILARITIES.values()),
        products=plan.shared("channel_similarities", "products.parquet", plan.encoder),
        weights=plan.own("models", plan.encoder, "weights.json"),
        code=steps.code("ablation"),
    output:
        ablation=plan.own("benchmarks", "ablation.parquet"),
    log:
        plan.own("logs", "ablation.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("ablation"),
    shell:
        "python -m mlclipsim step ablation --spec {params.spec:q} --input pairs={input.pairs:q}"
        " --input labels={input.labels:q} --input votes={input.votes:q} --input voters={input.voters:q}"
        " --input predictions={input.predictions:q} --input similarities={input.similarities:q}"
        " --input products={input.products:q}"
        " --input weights={input.weights:q} --output ablation={output.ablation:q} > {log:q} 2>&1"


rule data_size:
    input:
        pairs=rules.pcmp_pairs.output.pairs,
        labels=rules.votes.output.labels,
        votes=rules.votes.output.votes,
        voters=rules.predictions.output.voters,
        similarities=SIMILARITIES[plan.encoder],
        weights=plan.own("models", plan.encoder, "weights.json"),
        code=steps.code("data_size"),
    output:
        data_size=plan.own("benchmarks", "data_size.parquet"),
    log:
        plan.own("logs", "data_size.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("data_size"),
    shell:
        "python -m mlclipsim step data_size --spec {params.spec:q} --input pairs={input.pairs:q}"
        " --input labels={input.labels:q} --input votes={input.votes:q} --input voters={input.voters:q}"
        " --input similarities={input.similarities:q} --input weights={input.weights:q}"
        " --output data_size={output.data_size:q} > {log:q} 2>&1"
