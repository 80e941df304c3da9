# Steps that are dear per image, done in `shards` jobs each: rule <step>_part makes a part, rule <step> puts the parts
# together and then lets them go. With one shard rule <step> makes all, and none of the rules here has a job.

for step in [name for name, known in steps.STEPS.items() if known.shards]:
    whole = getattr(rules, step)

    rule:
        name:
            f"{step}_part"
        input:
            **{name: files for name, files in whole.input.items() if name != "parts"},
            **({"calibrated": rules.temperatures.output.calibrated} if step == "predictions" else {}),
        output:
            **{name: temp(shards.part(path, "{shard}")) for name, path in whole.output.items()},
            provenance=temp(shards.part_record(whole.output[0], "{shard}")),
        log:
            shards.part_log(whole.output[0], "{shard}"),
        conda:
            "../../environment.yml"
        threads: config["workers" if step in spec.IN_PROCESSES else "threads"]
        resources:
            gpu=0,
        params:
            step=step,
            spec=whole.params.spec,
            files=lambda wildcards, input, output: [*steps.options(input), *steps.options(output, "--output")],
        shell:
            "python -m mlclipsim step {params.step:q} --shard {wildcards.shard:q} --spec {params.spec:q}"
            " --gpus {resources.gpu} {params.files:q} > {log:q} 2>&1"
