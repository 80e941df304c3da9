# ML-CLIPSim: per-layer similarities of every image to its reference, and the layer weights fitted on them.

# Which encoder a folder belongs to is in its name, so that runs that compare encoders share the forward passes.
# The main encoder's come with their terms by channel, from the same forward pass.
SIMILARITIES = {
    name: plan.shared(
        "channel_similarities" if name == plan.encoder else "similarities", "similarities.parquet", name
    )
    for name in [*plan.encoders, plan.untrained]
}
LIT = [name for name in SIMILARITIES if plan.entry("encoders", name)["source"] == "lit"]


rule lit_encoder:
    input:
        partition=rules.references.output.partition,
        code=steps.code("lit_encoder"),
    output:
        encoder="results/{preset}/shared/lit_encoder-{encoder}-{digest}/encoder.safetensors",
        report="results/{preset}/shared/lit_encoder-{encoder}-{digest}/report.json",
    log:
        "results/{preset}/shared/lit_encoder-{encoder}-{digest}/log.txt",
    conda:
        "../../environment.yml"
    threads: config["threads"]
    resources:
        gpu=0,
    params:
        spec=lambda wildcards: plan.text("lit_encoder", wildcards.encoder),
    shell:
        "python -m mlclipsim step lit_encoder --spec {params.spec:q} --gpus {resources.gpu}"
        " --input partition={input.partition:q}"
        " --output encoder={output.encoder:q} --output report={output.report:q} > {log:q} 2>&1"


COMPARED = {
    "references": rules.references.output.references,
    "images": rules.pcmp_images.output.images,
    "checkpoint": lambda wildcards: (
        [plan.shared("lit_encoder", "encoder.safetensors", wildcards.encoder)]
        if wildcards.encoder in LIT
        else []
    ),
    "code": steps.code("similarities"),
}


rule similarities:
    input:
        **COMPARED,
        parts=parts("similarities"),
    output:
        similarities="results/{preset}/shared/similarities-{encoder}-{digest}/similarities.parquet",
    log:
        "results/{preset}/shared/similarities-{encoder}-{digest}/log.txt",
    conda:
        "../../environment.yml"
    threads: config["threads"]
    resources:
        gpu=0,
    params:
        step="similarities",
        spec=lambda wildcards: plan.text("similarities", wildcards.encoder),
        parts=lambda wildcards, input: shards.option(input.parts),
        files=lambda wildcards, input, output: [*steps.options(input), *steps.options(output, "--output")],
    shell:
        "python -m mlclipsim step {params.step:q} --spec {params.spec:q} --gpus {resources.gpu} {params.parts:q}"
        " {params.files:q} > {log:q} 2>&1"


use rule similarities as channel_similarities with:
    input:
        **COMPARED,
        parts=parts("channel_similarities"),
    output:
        similarities="results/{preset}/shared/channel_similarities-{encoder}-{digest}/similarities.parquet",
        products="results/{preset}/shared/channel_similarities-{encoder}-{digest}/products.parquet",
    log:
        "results/{preset}/shared/channel_similarities-{encoder}-{digest}/log.txt",
    params:
        step="channel_similarities",


rule fit:
    input:
        pairs=rules.pcmp_pairs.output.pairs,
        labels=rules.votes.output.labels,
        similarities=lambda wildcards: SIMILARITIES[wildcards.encoder],
        code=steps.code("fit"),
    output:
        weights=plan.own("models", "{encoder}", "weights.json"),
    log:
        plan.own("logs", "fit-{encoder}.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=lambda wildcards: plan.text("fit", wildcards.encoder),
    shell:
        "python -m mlclipsim step fit --spec {params.spec:q} --input pairs={input.pairs:q}"
        " --input labels={input.labels:q} --input similarities={input.similarities:q}"
        " --output weights={output.weights:q} > {log:q} 2>&1"


rule clip_scores:
    input:
        images=rules.pcmp_images.output.images,
        similarities=SIMILARITIES[plan.encoder],
        untrained=SIMILARITIES[plan.untrained],
        weights=plan.own("models", plan.encoder, "weights.json"),
        code=steps.code("clip_scores"),
    output:
        scores=plan.own("scores", "ml_clipsim.parquet"),
    log:
        plan.own("logs", "clip_scores.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("clip_scores"),
    shell:
        "python -m mlclipsim step clip_scores --spec {params.spec:q} --input images={input.images:q}"
        " --input similarities={input.similarities:q} --input untrained={input.untrained:q}"
        " --input weights={input.weights:q} --output scores={output.scores:q} > {log:q} 2>&1"
