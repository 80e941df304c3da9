# The line of the study: images -> pairs -> votes -> weights -> scores -> tables and figures.
#
#   snakemake --cores all                             everything, preset `embedded`
#   snakemake figure_1 --cores 2                      one figure
#   snakemake table_2 --cores all --config preset=local
#   snakemake --cores all --config encoder=scene-clip-resnet
#
# Settings: config/config.yaml. What a step reads, and where it writes: src/mlclipsim/spec.py.

import sys

from snakemake.utils import min_version

min_version("9.10")

try:
    from mlclipsim import forecast, preflight, shards, spec, steps
except ImportError:
    raise WorkflowError(
        "the package is not installed here; run `make reproduce`, or snakemake of its environment"
    )

# `config` holds what --configfile and --config gave: the two upper layers. A dry run may plan without the data
# and the weights, so files that are not there stop a run at its start; anything else wrong stops it here.
try:
    plan = spec.load(config, planning=True)
except spec.ConfigError as error:
    sys.exit(f"snakemake: {error}")  # an exception would be told with lines of this file

config = plan.config
spec.export_environment(plan)
# A shell says at length which command of its was killed; src/mlclipsim/progress.py says so in a sentence.
shell.prefix("set -euo pipefail; exec 2>/dev/null; ")


onstart:
    try:
        plan.require_files()
    except spec.ConfigError as error:
        sys.exit(f"snakemake: {error}")
    preflight.prepare(Path("results"), plan.preset)
    # No text, only for whoever shows the progress (src/mlclipsim/progress.py).
    logger.info(None, extra={"expected_seconds": forecast.seconds_per_job(plan)})


wildcard_constraints:
    encoder="[a-z0-9][a-z0-9._-]*",
    dataset="[a-z0-9][a-z0-9._-]*",
    digest="[0-9a-f]+",
    shard="[0-9]+-of-[0-9]+",


# parts("votes"): input function of the rule of a step that can be done in shards, for what these made
parts = shards.input_of(rules, config["shards"])


rule all:
    default_target: True
    input:
        [plan.own("tables", f"table_{number}.csv") for number in (*range(1, 10), "trials")],
        [plan.own("figures", f"figure_{number}.pdf") for number in (*range(1, 9), "training")],
        plan.own("scores", "ml_clipsim.parquet"),
        [] if plan.trains_codecs else plan.own("compression", "check.json"),
        plan.own("claims.json"),


include: "workflow/rules/zoo.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/pcmp.smk"
include: "workflow/rules/metric.smk"
include: "workflow/rules/benchmarks.smk"
include: "workflow/rules/compression.smk"
include: "workflow/rules/human.smk"
include: "workflow/rules/rate_task.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/page.smk"
include: "workflow/rules/publish.smk"
