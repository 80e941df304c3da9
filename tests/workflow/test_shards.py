"""One step in several jobs: which are planned, which are made again, and that their bytes are one job's."""

from __future__ import annotations

import shutil

import pytest

from mlclipsim import spec
from mlclipsim.steps import STEPS

pytestmark = pytest.mark.workflow

SHARDED = {step for step, known in STEPS.items() if known.shards}


def test_no_number_of_shards_makes_finished_work_again(stand_in):
    setting = ("table_6", "--config", "require_files=false")
    stand_in.snakemake("--cores", "2", *setting, "shards=3")
    left = [str(path) for path in stand_in.root.rglob("parts/*/*") if path.is_file()]
    assert left == []
    for shards in (1, 3, 16):
        assert stand_in.jobs(*setting, f"shards={shards}") == {}
    # what is yet to be made is made as configured
    jobs = stand_in.jobs("table_2", "--config", "require_files=false", "shards=2")
    assert (jobs["baselines_part"], jobs["baselines"]) == (2, 1)
    assert not {"pcmp_images", "predictions", "votes"} & set(jobs)


def test_a_part_that_is_lost_is_made_again_alone(stand_in):
    setting = ("--config", "require_files=false", "shards=3")
    stand_in.snakemake("votes", "--cores", "2", "--until", "predictions_part", *setting)
    (part,) = stand_in.root.glob("results/embedded/shared/predictions-*/parts/2-of-3")
    shutil.rmtree(part)
    jobs = stand_in.jobs("votes", *setting)
    assert (jobs["predictions_part"], jobs["predictions"]) == (1, 1)
    assert not {"pcmp_images", "pcmp_images_part", "temperatures"} & set(jobs)


@pytest.mark.slow
def test_shards_give_the_bytes_of_one_job(project, tmp_path):
    """Preset `ci`, whose thirty references are two row groups: of three shards one has nothing to do."""
    plan = spec.load({"preset": "ci"}, planning=True)
    if plan.missing:
        pytest.skip(f"not there yet: {plan.missing[0]}")
    setting = tmp_path / "shipped.yaml"
    setting.write_text("compression: {weights: 'package:compression/weights'}\n")  # none is trained here
    results = project.root / "results"
    files = {}
    for shards in (1, 3):
        project.snakemake(
            *("baselines", "rate_task", "--cores", "2"),
            *("--configfile", str(setting), "--config", "preset=ci", f"shards={shards}"),
        )
        files[shards] = {
            path.relative_to(results): path.read_bytes()
            for path in results.rglob("*.parquet")
            if path.parent.name != "scored"  # what is scored is remembered by the images of a shard
        }
        shutil.rmtree(results)
    (calibrated,) = (path for path in files[3] if path.name == "temperatures.parquet")
    del files[3][calibrated]
    assert files[1].keys() == files[3].keys()
    assert {path.name for path in files[1]} >= {"votes.parquet", "scores.parquet", "codes.parquet"}
    assert [path for path in files[1] if files[1][path] != files[3][path]] == []
