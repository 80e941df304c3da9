"""What is made again after a change, and what is kept: steps are stand-ins, the workflow is real."""

from __future__ import annotations

import time

import pytest

from mlclipsim.steps import STEPS

pytestmark = pytest.mark.workflow

SETTING = ("--config", "require_files=false")
MAIN_ONLY = {"clip_scores", "preference", "table_1", "table_2", "figure_2", "figure_3", "claims", "fit"}
MAIN_ONLY |= {"calibration", "layer_ablation", "ablation", "data_size"}
MAIN_ONLY |= {"table_4", "table_5", "figure_6", "figure_8", "severity", "cost", "table_7"}
MAIN_ONLY |= {"human_iqa", "machine_iqa", "table_3", "figure_7"}
MAIN_ONLY |= {"codec_check", "rate_task", "rate_task_curves", "reconstructions"}
MAIN_ONLY |= {"table_6", "table_trials", "figure_4", "figure_5", "figure_training"}


@pytest.fixture
def finished(stand_in):
    stand_in.snakemake("--cores", "2", *SETTING)
    return stand_in


def test_changes_rerun_what_depends_on_them(finished):
    project = finished
    started = time.perf_counter()
    assert project.jobs(*SETTING) == {}
    print(f"nothing to do: {time.perf_counter() - started:.1f} s")

    # Another encoder: no pair is built and no vote cast again.
    jobs = project.jobs(*SETTING, "encoder=scene-clip-resnet")
    assert set(jobs) == MAIN_ONLY | {
        *("channel_similarities", "similarities", "figure_1", "table_8", "table_9")
    }
    assert jobs["similarities"] == 2  # of its own untrained control, and of the tower that was the main one
    before = (project.root / "results/embedded/default/tables/table_2.csv").stat().st_mtime_ns
    project.snakemake("--cores", "2", *SETTING, "encoder=scene-clip-resnet")
    assert (project.root / "results/embedded/scene-clip-resnet/tables/table_2.csv").exists()
    assert (project.root / "results/embedded/default/tables/table_2.csv").stat().st_mtime_ns == before
    assert project.jobs(*SETTING) == {}

    # The same settings in another order are the same settings.
    path = project.root / "config/config.yaml"
    text = path.read_text()
    tie, epsilon = "  tie_log: 0.25", "  epsilon: 0.01"
    swapped = text.replace(tie, "@").replace(epsilon, tie).replace("@", epsilon)
    assert swapped != text
    path.write_text(swapped)
    assert project.jobs(*SETTING) == {}
    path.write_text(text.replace("tie_log: 0.25", "tie_log: 0.5"))
    assert {"votes", "fit", "table_2"} <= set(project.jobs(*SETTING))
    assert not {"references", "pcmp_images", "pcmp_pairs", "predictions", "baselines"} & set(
        project.jobs(*SETTING)
    )
    path.write_text(text)

    # A figure's code: that figure alone.
    for step, folder in (("figure_1", "figures"), ("table_2", "tables")):
        code = project.root / f"src/mlclipsim/report/{folder}/{step}.py"
        code.write_text(code.read_text() + "\n# edited\n")
        assert project.jobs(*SETTING) == {step: 1}
        project.snakemake("--cores", "1", *SETTING)
    assert project.jobs(*SETTING) == {}

    # Another style: the figures.
    restyled = project.jobs(*SETTING, "style=ieee")
    assert restyled == {step: 1 for step in STEPS if step.startswith("figure_")}

    # The environment of conda users is no reason to run anything again.
    environment = project.root / "environment.yml"
    environment.write_text(environment.read_text() + "# edited\n")
    assert project.jobs(*SETTING) == {}
