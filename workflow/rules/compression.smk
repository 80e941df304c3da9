# Codecs, fine-tuned for what machines see, arm by arm: each training is one job.
#   snakemake codecs --cores all --config retrain_codecs=true

COMPRESSION = config["compression"]
CODECS = [
    f"{arm}-{point}-s{seed}"
    for arm in plan.trained_arms
    for point in COMPRESSION["points"]
    for seed in range(COMPRESSION["seeds"])
]
TRIALS = range(len(COMPRESSION["rhos"]))
FIRST = f"{COMPRESSION['trial_point']}-s0"  # point and seed of the trials
# The arms whose loss has the weights of the fit, and where these are.
FITTED = dict.fromkeys(("ml_clipsim", "decoder_only"), plan.own("models", plan.encoder, "weights.json"))
# What training and validation images are made from; scenes are rendered anew.
ORIGINALS = (
    []
    if plan.entry("datasets", config["references"]["source"])["reader"] == "scenes"
    else rules.references.output.references
)
# The encoder, where a step makes it.
TOWER = plan.shared("lit_encoder", "encoder.safetensors", plan.encoder) if plan.encoder in LIT else []


wildcard_constraints:
    arm="[a-z_]+",
    point="q[0-9]+",
    seed="[0-9]+",
    trial="[0-9]+",


rule codec_trial:
    input:
        references=ORIGINALS,
        weights=lambda wildcards: FITTED.get(wildcards.arm, []),
        checkpoint=TOWER,
        code=steps.code("codec_trial"),
    output:
        codec=plan.own("compression", "trials", "{arm}-t{trial}.safetensors"),
        record=plan.own("compression", "trials", "{arm}-t{trial}.json"),
    log:
        plan.own("logs", "codec_trial-{arm}-t{trial}.txt"),
    conda:
        "../../environment.yml"
    threads: config["threads"]
    resources:
        gpu=0,
    params:
        spec=lambda wildcards: plan.text("codec_trial", arm=wildcards.arm, trial=int(wildcards.trial)),
        inputs=lambda wildcards, input: steps.options(dict(input.items())),
    shell:
        # a checkpoint lies beside the output, undeclared: a killed training goes on from it
        "python -m mlclipsim step codec_trial --spec {params.spec:q} --gpus {resources.gpu} {params.inputs:q}"
        " --output codec={output.codec:q} --output record={output.record:q} > {log:q} 2>&1"


rule codec_choice:
    input:
        codecs=expand(rules.codec_trial.output.codec, trial=TRIALS, allow_missing=True),
        records=expand(rules.codec_trial.output.record, trial=TRIALS, allow_missing=True),
        voters=rules.predictions.output.voters,
        references=ORIGINALS,
        code=steps.code("codec_choice"),
    output:
        choice=plan.own("compression", "trials", "{arm}.json"),
        # the chosen trial is a training of the arm, too
        codec=plan.own("compression", "codecs", f"{{arm}}-{FIRST}.safetensors"),
        record=plan.own("compression", "codecs", f"{{arm}}-{FIRST}.json"),
    log:
        plan.own("logs", "codec_choice-{arm}.txt"),
    conda:
        "../../environment.yml"
    threads: config["threads"]
    params:
        spec=lambda wildcards: plan.text("codec_choice", arm=wildcards.arm),
        inputs=lambda wildcards, input: steps.options(dict(input.items())),
    shell:
        "python -m mlclipsim step codec_choice --spec {params.spec:q} {params.inputs:q}"
        " --output choice={output.choice:q} --output codec={output.codec:q} --output record={output.record:q}"
        " > {log:q} 2>&1"


ruleorder: codec_choice > codec_arm


rule codec_arm:
    input:
        choice=rules.codec_choice.output.choice,
        references=ORIGINALS,
        weights=lambda wildcards: FITTED.get(wildcards.arm, []),
        checkpoint=TOWER,
        code=steps.code("codec_arm"),
    output:
        codec=plan.own("compression", "codecs", "{arm}-{point}-s{seed}.safetensors"),
        record=plan.own("compression", "codecs", "{arm}-{point}-s{seed}.json"),
    log:
        plan.own("logs", "codec_arm-{arm}-{point}-s{seed}.txt"),
    conda:
        "../../environment.yml"
    threads: config["threads"]
    resources:
        gpu=0,
    params:
        spec=lambda wildcards: plan.text(
            "codec_arm", arm=wildcards.arm, point=wildcards.point, training_seed=int(wildcards.seed)
        ),
        inputs=lambda wildcards, input: steps.options(dict(input.items())),
    shell:
        "python -m mlclipsim step codec_arm --spec {params.spec:q} --gpus {resources.gpu} {params.inputs:q}"
        " --output codec={output.codec:q} --output record={output.record:q} > {log:q} 2>&1"


rule codec_manifest:
    input:
        codecs=[plan.own("compression", "codecs", f"{name}.safetensors") for name in CODECS],
        records=[plan.own("compression", "codecs", f"{name}.json") for name in CODECS],
        choices=expand(rules.codec_choice.output.choice, arm=plan.trained_arms),
        code=steps.code("codec_manifest"),
    output:
        manifest=plan.own("compression", "codecs", "manifest.json"),
    log:
        plan.own("logs", "codec_manifest.txt"),
    conda:
        "../../environment.yml"
    params:
        spec=plan.text("codec_manifest"),
        inputs=lambda wildcards, input: steps.options(dict(input.items())),
    shell:
        "python -m mlclipsim step codec_manifest --spec {params.spec:q} {params.inputs:q}"
        " --output manifest={output.manifest:q} > {log:q} 2>&1"


rule codec_check:
    input:
        manifest=plan.codec_manifest,
        references=ORIGINALS,
        weights=FITTED.get(COMPRESSION["check"]["arm"], []),
        checkpoint=TOWER,
        code=steps.code("codec_check"),
    output:
        report=plan.own("compression", "check.json"),
    log:
        plan.own("logs", "codec_check.txt"),
    conda:
        "../../environment.yml"
    threads: config["threads"]
    params:
        spec=plan.text(
            "codec_check",
            arm=COMPRESSION["check"]["arm"],
            point=COMPRESSION["check"]["point"],
            training_seed=COMPRESSION["check"]["seed"],
        ),
        inputs=lambda wildcards, input: steps.options(dict(input.items())),
    shell:
        "python -m mlclipsim step codec_check --spec {params.spec:q} {params.inputs:q}"
        " --output report={output.report:q} > {log:q} 2>&1"


if plan.trains_codecs:

    rule codecs:
        input:
            manifest=rules.codec_manifest.output.manifest,
            codecs=rules.codec_manifest.input.codecs,
        output:
            manifest="results/codecs/weights/manifest.json",
        log:
            "results/codecs/log.txt",
        conda:
            "../../environment.yml"
        params:
            folder=lambda wildcards, output: Path(output.manifest).parent,
        shell:
            "cp {input.codecs:q} {params.folder:q} && cp {input.manifest:q} {output.manifest:q} 2> {log:q}"

else:

    localrules:
        codecs,

    rule codecs:
        log:
            "results/codecs/hint.log",
        conda:
            "../../environment.yml"
        shell:
            "echo 'The codecs ship in the package; --config retrain_codecs=true trains them anew.' | tee {log:q}"
