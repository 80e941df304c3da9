# A finished run, ready to be cited and deposited: `snakemake bibtex`, `snakemake crate`.


rule bibtex:
    input:
        results=rules.all.input,
        bibliography="config/references.bib",
        catalogs=[f"config/catalog/{name}.yaml" for name in spec.CATALOGS],
        code=steps.module_code("citations"),
    output:
        bib=plan.own("references.bib"),
    log:
        plan.own("logs", "bibtex.txt"),
    conda:
        "../../environment.yml"
    shell:
        'python -m mlclipsim bibtex "$(dirname {output.bib:q})" --output {output.bib:q} > {log:q} 2>&1'


rule crate:
    input:
        results=rules.all.input,
        bib=rules.bibtex.output.bib,
        code=steps.module_code("crate"),
    output:
        metadata=plan.own("ro-crate-metadata.json"),
    log:
        plan.own("logs", "crate.txt"),
    conda:
        "../../environment.yml"
    shell:
        'python -m mlclipsim crate "$(dirname {output.metadata:q})" > {log:q} 2>&1'
