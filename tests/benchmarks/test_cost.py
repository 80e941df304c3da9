"""Counts by hand, figures of a run whose metrics are known, and memory in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mlclipsim.artifacts import read_table, write_json
from mlclipsim.benchmarks import cost
from mlclipsim.metric import MLCLIPSim

ENTRY = {"source": "package", "model": "scene-clip"}


@pytest.fixture
def spec():
    metrics = {
        "psnr": {"class": "fidelity", "needs": "nothing", "variant": "rgb"},
        "lpips": {"class": "perceptual", "needs": "AlexNet", "files": {"nothing.pth": None}},
    }
    return {
        "seed": 1,
        "threads": 1,
        "image_size": 64,
        "cost": {"images": 2, "rounds": 3},
        "metrics": {name: metrics[name] for name in ("psnr", "lpips")},
        "encoder": {"name": "scene-clip", "entry": ENTRY},
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.json"
    layers = [*(f"layer_{n:02d}" for n in range(1, 7)), "global"]
    fold = {"fold": 0, "weights": [1 / 7] * 7, "theta": [0.0] * 7}
    write_json(path, {"encoder": "scene-clip", "size_policy": "resize", "layers": layers, "folds": [fold]})
    return path


def test_parameters_and_multiply_adds_of_a_convolution_by_hand():
    network = nn.Conv2d(3, 8, 3, padding=1)
    images = torch.rand(2, 3, 16, 16)
    pixels = 16 * 16

    def metric(distorted, reference):
        return (network(distorted) - network(reference)).abs().mean(dim=(1, 2, 3))

    found = cost.count(metric, images, images)
    assert found == (8 * 27 + 8, 2 * pixels * 8 * 27)  # the network once, its work twice
    assert cost.count(lambda x, y: (x - y).mean(dim=(1, 2, 3)), images, images) == (0, 0)


def test_multiply_adds_of_the_shipped_tower_by_hand():
    """65 tokens of 96 in 6 blocks, MLPs of twice the width, an embedding of 128 (its config)."""
    metric = MLCLIPSim("scene-clip", weights="uniform")
    images = torch.rand(2, 3, 64, 64)
    found = cost.count(lambda x, y: metric(reference=y, distorted=x), images, images)
    tokens, width = 65, 96
    patches = 64 * width * 8 * 8 * 3
    block = tokens * width * width * (3 + 1 + 2 + 2) + 2 * tokens**2 * width
    assert found[1] == 2 * (patches + 6 * block + width * 128)
    assert found[0] == sum(p.numel() for p in metric.encoder.parameters())


def test_a_row_for_every_metric(spec, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "_in_child", lambda candidate, pair: np.array([3.0, 5.0]))
    cost.measure(spec, {"weights": weights}, {"cost": tmp_path / "cost.parquet"})
    table = read_table(tmp_path / "cost.parquet", "cost").set_index("metric")
    assert table.index.tolist() == ["ml_clipsim", "ml_clipsim_uniform", "clip_global", "psnr", "lpips"]
    assert table["variant"].tolist()[:4] == ["fitted", "uniform", "global", "rgb"]
    assert table.loc["lpips", "note"] == "not run: needs AlexNet"
    ran = table.drop(index="lpips")
    assert (ran["note"] == "").all()
    for direction in ("", "_backward"):
        low, middle, high = (ran[f"{name}{direction}"] for name in ("ms_low", "ms_per_image", "ms_high"))
        assert ((low > 0) & (low <= middle) & (middle <= high)).all()
    assert ran["ms_per_image"]["ml_clipsim"] < ran["ms_per_image_backward"]["ml_clipsim"]
    assert ran["ms_per_image"]["ml_clipsim"] > 5 * ran["ms_per_image"]["psnr"]
    assert ran["peak_mib"].tolist() == [3.0] * 4
    assert ran["peak_mib_backward"].tolist() == [5.0] * 4
    assert table[
        ["device", "threads", "image_size", "n_rounds", "n_images"]
    ].drop_duplicates().values.tolist() == [["cpu", 1, 64, 3, 2]]
    assert table["n_parameters"].isna().tolist() == [False] * 4 + [True]


def test_metrics_take_turns_and_those_without_gradient_run_forward_only():
    order = []

    def smooth(distorted, reference):
        order.append("smooth")
        return (distorted - reference).pow(2).mean(dim=(1, 2, 3))

    def rounded(distorted, reference):
        order.append("rounded")
        return smooth(distorted.detach(), reference)

    images = torch.rand(2, 1, 3, 16, 16)
    ticks = iter(range(100))
    taken = cost._seconds([smooth, rounded], tuple(images), 2, lambda: float(next(ticks)))
    assert taken == [{"forward": [1.0, 1.0], "backward": [1.0, 1.0]}, {"forward": [1.0, 1.0]}]
    assert order[-8:] == ["smooth", "smooth", "rounded", "smooth"] * 2


WEIGHED = """
import json, torch
from mlclipsim.benchmarks import cost

pair = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)

def holding(mib):
    def make():
        kept = torch.ones(mib * 2**18)
        return (lambda x, y: (x - y).mean((1, 2, 3)) + (kept[: 2**24] * 2).mean()), "v"
    return make

def loading():
    torch.ones(2**26).sum()  # 256 MiB, let go before the metric runs
    return (lambda x, y: (x - y).detach().mean((1, 2, 3))), "v"

def failing():
    raise OSError("no such weights")

def weigh(make):
    return cost._in_child(cost.Candidate("broken", "fidelity", make), pair).tolist()

peaks = [weigh(holding(128)), weigh(loading)]
try:
    weigh(failing)
except RuntimeError as error:
    print(json.dumps([peaks, str(error)]))
"""


def test_memory_is_weighed_in_a_process_of_its_own():
    """128 MiB of weights and a product of 64; what loading took is not counted; a failure is said."""
    done = subprocess.run([sys.executable, "-c", WEIGHED], capture_output=True, text=True, check=True)
    (holding, loading), error = json.loads(done.stdout)
    assert 192 <= holding[0] < 200
    assert holding[0] <= holding[1] < 205
    assert loading[0] < 5
    assert np.isnan(loading[1])
    assert "broken: expected a peak of memory from its process, which ended with code 1" in error
    assert "no such weights" in done.stderr
