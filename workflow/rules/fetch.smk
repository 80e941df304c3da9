# Data and weights from the network, and whether they are sound. These rules make no results, so they always run;
# what is there and complete is not fetched again.
#   snakemake fetch --cores 1 --config preset=paper     all that the preset reads
#   snakemake fetch_kodak check_kodak --cores 1

CATALOGS = [f"{key}={spec.canonical(config[key])}" for key in ("catalog", "plugins")]  # what adds to them


rule fetch:
    log:
        f"results/fetched/{plan.preset}.txt",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=[f"{key}={spec.canonical(value)}" for key, value in config.items()],
    shell:
        "python -m mlclipsim fetch --config {params.config:q} 2>&1 | tee {log:q}"


for name in plan.outside:

    rule:
        name:
            f"fetch_{name.replace('-', '_')}"
        log:
            f"results/fetched/{name}.txt",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            name=name,
            config=CATALOGS,
        shell:
            "python -m mlclipsim fetch {params.name:q} --config {params.config:q} 2>&1 | tee {log:q}"


for name in plan.catalogs["datasets"]:

    rule:
        name:
            f"check_{name.replace('-', '_')}"
        log:
            f"results/checks/{name}.txt",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            name=name,
            config=CATALOGS,
        shell:
            "python -m mlclipsim check-data {params.name:q} --config {params.config:q} 2>&1 | tee {log:q}"
