# Images that people judged, or other people's machines: each data set's images, what metrics and our voters make of
# them, and with which of these the judges side.

JUDGED = config["human"]["datasets"]


rule human_images:
    input:
        code=steps.code("human_images"),
    output:
        references="results/{preset}/shared/human_images-{digest}/{dataset}/references.parquet",
        images="results/{preset}/shared/human_images-{digest}/{dataset}/images.parquet",
        ratings="results/{preset}/shared/human_images-{digest}/{dataset}/ratings.parquet",
        comparisons="results/{preset}/shared/human_images-{digest}/{dataset}/comparisons.parquet",
    log:
        "results/{preset}/shared/human_images-{digest}/{dataset}/log.txt",
    conda:
        "../../environment.yml"
    params:
        spec=lambda wildcards: plan.text("human_images", dataset=wildcards.dataset),
    shell:
        "python -m mlclipsim step human_images --spec {params.spec:q}"
        " --output references={output.references:q} --output images={output.images:q}"
        " --output ratings={output.ratings:q} --output comparisons={output.comparisons:q} > {log:q} 2>&1"


rule human_baselines:
    input:
        references=lambda wildcards: plan.shared(
            "human_images", "references.parquet", dataset=wildcards.dataset
        ),
        images=lambda wildcards: plan.shared("human_images", "images.parquet", dataset=wildcards.dataset),
        parts=parts("human_baselines"),
        code=steps.code("human_baselines"),
    output:
        scores="results/{preset}/shared/human_baselines-{digest}/{dataset}/scores.parquet",
    log:
        "results/{preset}/shared/human_baselines-{digest}/{dataset}/log.txt",
    conda:
        "../../environment.yml"
    threads: config["threads"]
    params:
        spec=lambda wildcards: plan.text("human_baselines", dataset=wildcards.dataset),
        parts=lambda wildcards, input: shards.option(input.parts),
    shell:
        "python -m mlclipsim step human_baselines --spec {params.spec:q} {params.parts:q}"
        " --input references={input.references:q} --input images={input.images:q}"
        " --output scores={output.scores:q} > {log:q} 2>&1"


rule human_predictions:
    input:
        references=lambda wildcards: plan.shared(
            "human_images", "references.parquet", dataset=wildcards.dataset
        ),
        images=lambda wildcards: plan.shared("human_images", "images.parquet", dataset=wildcards.dataset),
        calibrated=rules.predictions.output.voters,
        parts=parts("human_predictions"),
        code=steps.code("human_predictions"),
    output:
        predictions="results/{preset}/shared/human_predictions-{digest}/{dataset}/predictions.parquet",
    log:
        "results/{preset}/shared/human_predictions-{digest}/{dataset}/log.txt",
    conda:
        "../../environment.yml"
    threads: config["threads"]
    resources:
        gpu=0,
    params:
        spec=lambda wildcards: plan.text("human_predictions", dataset=wildcards.dataset),
        parts=lambda wildcards, input: shards.option(input.parts),
    shell:
        "python -m mlclipsim step human_predictions --spec {params.spec:q} --gpus {resources.gpu} {params.parts:q}"
        " --input references={input.references:q} --input images={input.images:q}"
        " --input calibrated={input.calibrated:q} --output predictions={output.predictions:q} > {log:q} 2>&1"


rule human_similarities:
    input:
        references=lambda wildcards: plan.shared(
            "human_images", "references.parquet", dataset=wildcards.dataset
        ),
        images=lambda wildcards: plan.shared("human_images", "images.parquet", dataset=wildcards.dataset),
        checkpoint=lambda wildcards: (
            [plan.shared("lit_encoder", "encoder.safetensors", wildcards.encoder)]
            if wildcards.encoder in LIT
            else []
        ),
        parts=parts("human_similarities"),
        code=steps.code("human_similarities"),
    output:
        similarities="results/{preset}/shared/human_similarities-{encoder}-{digest}/{dataset}/similarities.parquet",
    log:
        "results/{preset}/shared/human_similarities-{encoder}-{digest}/{dataset}/log.txt",
    conda:
        "../../environment.yml"
    threads: config["threads"]
    resources:
        gpu=0,
    params:
        spec=lambda wildcards: plan.text("human_similarities", wildcards.encoder, wildcards.dataset),
        parts=lambda wildcards, input: shards.option(input.parts),
        inputs=lambda wildcards, input: steps.options(input),
    shell:
        "python -m mlclipsim step human_similarities --spec {params.spec:q} --gpus {resources.gpu} {params.parts:q}"
        " {params.inputs:q} --output similarities={output.similarities:q} > {log:q} 2>&1"


for step, judges in (("human_iqa", "people"), ("machine_iqa", "machines")):
    ratings = plan.judged(judges, "human_images", "ratings.parquet")

    rule:
        name:
            step
        input:
            ratings=ratings,
            pairs=plan.judged(judges, "human_images", "comparisons.parquet"),
            baselines=plan.judged(judges, "human_baselines", "scores.parquet"),
            similarities=plan.judged(judges, "human_similarities", "similarities.parquet", plan.encoder),
            untrained=plan.judged(judges, "human_similarities", "similarities.parquet", plan.untrained),
            predictions=plan.judged(judges, "human_predictions", "predictions.parquet"),
            voters=rules.predictions.output.voters if ratings else [],
            weights=plan.own("models", plan.encoder, "weights.json") if ratings else [],
            preference=rules.preference.output.comparisons if ratings else [],
            code=steps.code(step),
        output:
            correlations=plan.own("benchmarks", f"{step}.parquet"),
            comparisons=plan.own("benchmarks", f"{step}.json"),
        log:
            plan.own("logs", f"{step}.txt"),
        conda:
            "../../environment.yml"
        params:
            step=step,
            spec=plan.text(step),
            inputs=lambda wildcards, input: steps.options(input),
        shell:
            "python -m mlclipsim step {params.step:q} --spec {params.spec:q} {params.inputs:q}"
            " --output correlations={output.correlations:q} --output comparisons={output.comparisons:q}"
            " > {log:q} 2>&1"
