"""What Snakemake plans, and what it says to wrong input. No step is run here."""

from __future__ import annotations

import pytest

from mlclipsim import spec
from mlclipsim.forecast import forecast
from mlclipsim.steps import STEPS

pytestmark = pytest.mark.workflow

# Steps that each data set of people's opinions has its own of: none where human.datasets is empty.
PER_JUDGED = {"human_images", "human_baselines", "human_predictions", "human_similarities"}
# Steps of what is asked for by name only.
ON_DEMAND = {"disagreements", "record", "report", "compare"}
# Steps of a run that trains its codecs, where none ship for it.
TRAININGS = {"codec_trial", "codec_choice", "codec_arm", "codec_manifest"}
# What several shards need once, and a single job does itself.
SHARDED = {"temperatures"}


def test_a_fresh_clone_plans_every_step(project):
    """No committed file may stand where a rule writes: Snakemake would take it for done."""
    jobs = project.jobs("all")
    assert set(jobs) == set(STEPS) - {"lit_encoder"} - PER_JUDGED - ON_DEMAND - TRAININGS - SHARDED
    assert jobs["channel_similarities"] == 1  # of the main encoder
    assert jobs["similarities"] == 2  # of the second one and of the untrained control
    assert jobs["fit"] == 2


def test_local_makes_its_encoder(project, tmp_path):
    jobs = project.jobs("all", "--config", "preset=local", f"assets_dir={tmp_path}")
    assert set(jobs) == set(STEPS) - ON_DEMAND - SHARDED - {"codec_check"}
    assert jobs["lit_encoder"] == 1
    assert jobs["codec_arm"] == 5 * (4 * 2 - 1)  # arms, points and seeds, but for the trial that was chosen
    assert jobs["human_images"] == jobs["human_baselines"] == jobs["human_predictions"] == 1
    assert jobs["human_similarities"] == 2  # the encoder and its untrained control


def test_what_machines_judged_is_scored_by_the_steps_of_what_people_judged(project, tmp_path):
    setting = tmp_path / "machines.yaml"
    setting.write_text("machine_iqa: {datasets: [miqd, mpd]}\nrequire_files: false\n")
    jobs = project.jobs("table_2", "--configfile", str(setting))
    assert jobs["human_images"] == jobs["human_baselines"] == jobs["human_predictions"] == 2
    assert jobs["machine_iqa"] == 1
    assert "human_iqa" not in jobs


@pytest.mark.parametrize("preset", ["ci", "paper"])
def test_presets_plan(project, preset):
    assert set(project.jobs("--config", f"preset={preset}")) >= {"references", "votes", "table_2", "figure_3"}


@pytest.mark.parametrize(("preset", "shards"), [("embedded", 1), ("local", 1), ("local", 4), ("paper", 3)])
def test_a_forecast_counts_the_jobs_that_are_planned(project, tmp_path, preset, shards):
    setting = {"preset": preset, "assets_dir": str(tmp_path), "shards": shards}
    plan = spec.load(setting, planning=True)
    counted = {step.step: step.jobs for step in forecast(plan, cores=1).steps}
    assert counted == project.jobs("--config", *(f"{key}={value}" for key, value in setting.items()))


def test_a_crate_and_its_references_are_made_from_everything(project):
    jobs = project.jobs("crate")
    assert (jobs["crate"], jobs["bibtex"]) == (1, 1)
    assert set(jobs) > set(project.jobs("all"))


def test_shipped_codecs_are_trained_anew_where_that_is_asked_for(project):
    jobs = project.jobs("codecs", "--config", "retrain_codecs=true")
    assert (jobs["codec_trial"], jobs["codec_arm"], jobs["codecs"]) == (8 * 4, 8 * (4 * 3 - 1), 1)
    assert set(project.jobs("codecs")) == {"codecs"}  # says that they ship


def test_figures_and_tables_are_targets_by_name(project):
    assert "figure_3" not in project.jobs("figure_1")
    assert "figure_1" in project.jobs("figure_1")


def test_the_page_needs_everything_that_all_makes(project):
    everything = project.jobs("all")
    assert project.jobs("report") == everything | {"disagreements": 1, "record": 1, "report": 1}


def test_runs_that_are_not_there_cannot_be_compared(project):
    done = project.snakemake("compare", "--dry-run", check=False)
    assert "`compare` names 0 runs, expected at least two" in done.stdout + done.stderr
    done = project.snakemake("compare", "--dry-run", "--config", "compare=[default,other]", check=False)
    assert "run 'other' has no results/embedded/other/" in done.stdout + done.stderr


def test_runs_that_are_there_can_be_compared(project):
    run = project.root / "results/embedded/other"
    for name in (
        "record.json",
        "claims.json",
        "tables/table_2.csv",
        "tables/table_4.csv",
        "tables/table_5.csv",
    ):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    (run / "figures").mkdir()
    (run / "figures/figure_3.csv").touch()
    jobs = project.jobs("compare", "--config", "compare=[default,other]")
    assert jobs["compare"] == jobs["record"] == 1
    assert "report" not in jobs


def test_a_data_set_can_be_checked_by_name(project):
    done = project.snakemake("check_live", "--cores", "1", "--config", "assets_dir=nowhere", check=False)
    assert done.returncode != 0
    assert "live is not there" in (project.root / "results" / "checks" / "live.txt").read_text()
    assert "the form on its page" in (project.root / "results" / "checks" / "live.txt").read_text()


def test_all_problems_in_one_message_before_any_job(project):
    done = project.snakemake("--cores", "1", "--config", "sed=3", "encoder=scene-clp", check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "problems in the configuration" in text
    assert "did you mean 'seed'?" in text
    assert "did you mean 'scene-clip'?" in text
    assert "Traceback" not in text
    assert not (project.root / "results").exists() or not list((project.root / "results").rglob("*.parquet"))


def test_missing_files_stop_a_run_before_any_job(project, tmp_path):
    setting = ["--config", "preset=local", f"assets_dir={tmp_path / 'nowhere'}"]
    done = project.snakemake("--cores", "1", *setting, check=False)
    assert done.returncode != 0
    assert "the assets folder" in done.stdout + done.stderr
    assert not (project.root / "results" / "local").exists()


def test_linter_is_content(project):
    assert "good condition" in (done := project.snakemake("--lint")).stdout + done.stderr


def test_rules_use_shell_only(project):
    rules = [*(project.root / "workflow" / "rules").glob("*.smk"), project.root / "Snakefile"]
    for path in rules:
        words = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
        assert not {"run:", "script:", "notebook:", "wrapper:"} & set(words), path
    assert len((project.root / "Snakefile").read_text().splitlines()) <= 80
