# The networks and codecs of the embedded world. They ship in the package; this trains them anew, into results/zoo/.
#   snakemake zoo --cores all --config retrain_zoo=true

if config["retrain_zoo"]:

    rule zoo:
        input:
            code=sorted({*steps.module_code("world.zoo"), *steps.module_code("compression.base")}),
        output:
            manifest="results/zoo/weights/manifest.json",
            codecs="results/zoo/codecs/base.json",
        log:
            "results/zoo/zoo.log",
        conda:
            "../../environment.yml"
        threads: workflow.cores
        shell:
            # checkpoints lie beside the output, undeclared: a killed training goes on from them
            "(python -m mlclipsim zoo --output results/zoo/weights --work results/zoo/work --workers {threads}"
            " && python -m mlclipsim.compression.base --output results/zoo/codecs --work results/zoo/work"
            " --workers {threads}) 2>&1 | tee {log:q}"

else:

    localrules:
        zoo,

    rule zoo:
        log:
            "results/zoo/hint.log",
        conda:
            "../../environment.yml"
        shell:
            "echo 'The networks ship in the package; --config retrain_zoo=true trains them anew.' | tee {log:q}"
