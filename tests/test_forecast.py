"""What a run will take: counts against the runs in docs/reference, times against what those runs took."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mlclipsim import cli, spec
from mlclipsim.forecast import StepForecast, forecast

ROOT = Path(__file__).parents[1]


def of(preset: str, **settings) -> dict[str, StepForecast]:
    plan = spec.load({"preset": preset, **settings}, planning=True)
    return {step.step: step for step in forecast(plan, cores=2).steps}


@pytest.mark.parametrize("preset", ["embedded", "local"])
def test_counts_are_near_those_of_the_reference_run(preset):
    with (ROOT / f"docs/reference/{preset}/tables/table_1.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"].startswith("pcmp_")]
    counted = {
        quantity: sum(float(row["value"]) for row in rows if row["quantity"] == quantity)
        for quantity in ("images", "pairs")
    }
    steps = of(preset)
    assert steps["pcmp_images"].items == pytest.approx(counted["images"], rel=0.1)
    assert steps["pcmp_pairs"].items == pytest.approx(counted["pairs"], rel=0.1)


OF_CODECS = {"codec_trial", "codec_choice", "codec_arm", "codec_manifest"} | {
    *("rate_task", "rate_task_curves", "reconstructions", "table_6", "table_trials"),
    *("figure_4", "figure_5", "figure_training", "severity", "cost"),
}

# Seconds of one core: logs of runs on the machine of config/costs.yaml that shared it with little else,
# before there was a feature network.
MEASURED = {
    "local": {
        "pcmp_images": 2 * 163.8,
        "predictions": 1352.7,
        "channel_similarities": 520.2,
        "similarities": 428.8,
    },
    "embedded": {
        "pcmp_images": 2 * 30.4,
        "predictions": 105.0,
        "channel_similarities": 26.7,
        "similarities": 33.3 + 27.4,
        "baselines": 2 * 50.4,
    },
}


@pytest.mark.parametrize(("preset", "step"), [(p, step) for p, steps in MEASURED.items() for step in steps])
def test_times_are_within_30_percent_of_what_runs_took(preset, step):
    assert of(preset, feature_network=None)[step].cpu_seconds == pytest.approx(
        MEASURED[preset][step], rel=0.3
    )


def test_a_whole_run_is_within_30_percent():
    """`local` before people's judgements and codecs, and with seven metrics: 33.5 minutes on two cores."""
    metrics = ["psnr", "ssim", "ms_ssim", "vif_p", "fsim", "gmsd", "haarpsi"]
    plan = spec.load({"preset": "local", "human": {"datasets": []}, "metrics": metrics}, planning=True)
    steps = [step for step in forecast(plan, cores=2).steps if step.step not in OF_CODECS]
    assert sum(step.cpu_seconds for step in steps) / 2 == pytest.approx(33.5 * 60, rel=0.3)


def test_trainings_are_counted_where_codecs_do_not_ship():
    trained, shipped = of("local"), of("embedded")
    assert [trained[step].jobs for step in ("codec_trial", "codec_choice", "codec_arm")] == [20, 5, 35]
    assert "codec_check" not in trained
    assert "codec_arm" not in shipped
    assert shipped["codec_check"].items == 600
    twice = of("local", compression={"seeds": 4})
    assert twice["codec_arm"].jobs == 75
    assert twice["rate_task"].items > 1.5 * trained["rate_task"].items


def test_only_what_all_makes_is_counted():
    assert not {"record", "report", "compare", "disagreements"} & of("embedded").keys()


def test_work_grows_with_what_is_asked_for():
    one, two = of("embedded"), of("embedded", references={"roles": {"pcmp_train": 1000}})
    assert two["pcmp_images"].items == one["pcmp_images"].items * 1400 // 700
    assert two["baselines"].items == one["baselines"].items  # the test references are the same
    assert of("embedded", metrics=["psnr"])["baselines"].cpu_seconds < one["baselines"].cpu_seconds / 5


def test_until_a_gpu_was_measured_one_is_assumed():
    plan = spec.load({"preset": "paper"}, planning=True)
    assumed = forecast(plan, cores=2)
    assert (assumed.gpu_gmacs_per_second, assumed.source.split(",")[0]) == (4000, "assumed")
    predictions = next(step for step in assumed.steps if step.step == "predictions")
    assert predictions.gpu_seconds < predictions.cpu_seconds / 20


def test_table_7_of_the_run_gives_the_throughput(tmp_path, monkeypatch):
    plan = spec.load({"preset": "paper"}, planning=True)
    table = tmp_path / "table_7.csv"
    table.write_text("metric,macs,ms_per_image,device\npsnr,,0.1,cuda\nml_clipsim,8.8e9,1.1,cuda\n")
    monkeypatch.setattr(type(plan), "own", lambda self, *parts: str(table))
    found = forecast(plan, cores=2)
    assert found.gpu_gmacs_per_second == pytest.approx(8000)
    assert found.source == "measured, table_7.csv"
    table.write_text("metric,macs,ms_per_image,device\nml_clipsim,8.8e9,1.1,cpu\n")
    assert forecast(plan, cores=2).source.startswith("assumed")


def test_steps_and_networks_without_costs_are_named(monkeypatch):
    real = spec.read_yaml

    def poorer(path):
        value = real(path)
        if path.name == "costs.yaml":
            del value["steps"]["votes"], value["networks"]["scene-dla"]
        return value

    monkeypatch.setattr(spec, "read_yaml", poorer)
    plan = spec.load({"preset": "embedded"}, planning=True)
    found = forecast(plan, cores=2)
    assert "votes" in [step.step for step in found.steps if not step.measured]
    assert "scene-dla" in found.untimed


def test_the_table_of_the_paper_preset(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MLCLIPSIM_ASSETS", str(tmp_path))
    assert cli.main(["plan", "--config", "preset=paper", "--cores", "16"]) == 0
    text = capsys.readouterr().out
    assert "tables, figures, claims" in text
    assert "To download: 4." in text  # GB: four CLIPs and twelve machines
    assert "Data sets to fetch: csiq, tid2013, kadid10k, bapps (`mlclipsim fetch` gets them)." in text
    assert "To fetch by hand: imagenet-val, live, pipal (`mlclipsim doctor paper` says" in text
    assert max(len(line) for line in text.split("\n\n")[0].splitlines()) <= 110
    assert cli.main(["plan", "--cores", "0"]) == 2


def test_the_multiply_accumulates_are_those_of_the_networks():
    """Against torch's own counter, for the smallest network that needs no weights."""
    import torch
    import torchvision
    from torch.utils.flop_counter import FlopCounterMode

    network = torchvision.models.get_model("squeezenet1_1", weights=None).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 224, 224))
    costs = spec.read_yaml(ROOT / "config/costs.yaml")["networks"]["squeezenet1-1-torchvision"]
    assert counter.get_total_flops() / 2e9 == pytest.approx(costs["gmacs"], rel=1e-3)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(
        costs["megaparameters"], rel=0.01
    )
