# PCMP: pairs of distorted images, matched in PSNR, labelled by the votes of several machines.


rule pcmp_images:
    input:
        references=rules.references.output.references,
        parts=parts("pcmp_images"),
        code=steps.code("pcmp_images"),
    output:
        images=plan.shared("pcmp_images", "images.parquet"),
        drops=plan.shared("pcmp_images", "drops.parquet"),
    log:
        plan.shared("pcmp_images", "log.txt"),
    conda:
        "../../environment.yml"
    threads: config["workers"]
    params:
        spec=plan.text("pcmp_images"),
        parts=lambda wildcards, input: shards.option(input.parts),
    shell:
        "python -m mlclipsim step pcmp_images --spec {params.spec:q} {params.parts:q} --input references={input.references:q}"
        " --output images={output.images:q} --output drops={output.drops:q} > {log:q} 2>&1"


rule pcmp_pairs:
    input:
        images=rules.pcmp_images.output.images,
        drops_in=rules.pcmp_images.output.drops,
        parts=parts("pcmp_pairs"),
        code=steps.code("pcmp_pairs"),
    output:
        pairs=plan.shared("pcmp_pairs", "pairs.parquet"),
        drops=plan.shared("pcmp_pairs", "drops.parquet"),
    log:
        plan.shared("pcmp_pairs", "log.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("pcmp_pairs"),
        parts=lambda wildcards, input: shards.option(input.parts),
    shell:
        "python -m mlclipsim step pcmp_pairs --spec {params.spec:q} {params.parts:q} --input images={input.images:q}"
        " --input drops_in={input.drops_in:q} --output pairs={output.pairs:q} --output drops={output.drops:q}"
        " > {log:q} 2>&1"


# Before shards of `predictions`: a single job of these does it itself.
rule temperatures:
    input:
        references=rules.references.output.references,
        code=steps.code("temperatures"),
    output:
        calibrated=plan.shared("predictions", "temperatures.parquet"),
    log:
        plan.shared("predictions", "temperatures.txt"),
    conda:
        "../../environment.yml"
    threads: config["threads"]
    resources:
        gpu=0,
    params:
        spec=plan.text("temperatures"),
    shell:
        "python -m mlclipsim step temperatures --spec {params.spec:q} --gpus {resources.gpu}"
        " --input references={input.references:q} --output calibrated={output.calibrated:q} > {log:q} 2>&1"


rule predictions:
    input:
        references=rules.references.output.references,
        images=rules.pcmp_images.output.images,
        parts=parts("predictions"),
        code=steps.code("predictions"),
    output:
        predictions=plan.shared("predictions", "predictions.parquet"),
        voters=plan.shared("predictions", "voters.parquet"),
    log:
        plan.shared("predictions", "log.txt"),
    conda:
        "../../environment.yml"
    threads: config["threads"]
    resources:
        gpu=0,
    params:
        spec=plan.text("predictions"),
        parts=lambda wildcards, input: shards.option(input.parts),
    shell:
        "python -m mlclipsim step predictions --spec {params.spec:q} --gpus {resources.gpu} {params.parts:q}"
        " --input references={input.references:q} --input images={input.images:q}"
        " --output predictions={output.predictions:q} --output voters={output.voters:q} > {log:q} 2>&1"


rule votes:
    input:
        pairs=rules.pcmp_pairs.output.pairs,
        predictions=rules.predictions.output.predictions,
        voters=rules.predictions.output.voters,
        parts=parts("votes"),
        code=steps.code("votes"),
    output:
        votes=plan.shared("votes", "votes.parquet"),
        labels=plan.shared("votes", "labels.parquet"),
        drops=plan.shared("votes", "drops.parquet"),
    log:
        plan.shared("votes", "log.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("votes"),
        parts=lambda wildcards, input: shards.option(input.parts),
    shell:
        "python -m mlclipsim step votes --spec {params.spec:q} {params.parts:q} --input pairs={input.pairs:q}"
        " --input predictions={input.predictions:q} --input voters={input.voters:q}"
        " --output votes={output.votes:q} --output labels={output.labels:q} --output drops={output.drops:q}"
        " > {log:q} 2>&1"
