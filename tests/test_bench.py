"""A callable judged on a run: exactly as the same metric was as one of the run's own."""

from __future__ import annotations

import re
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from mlclipsim import baselines, bench, provenance
from mlclipsim.artifacts import ArtifactError, read_json, read_table, write_table
from mlclipsim.benchmarks import machine_preference, severity
from mlclipsim.cli import main
from mlclipsim.images import encode_image
from mlclipsim.report.tables import table_2
from mlclipsim.report.tables.writer import write_csv
from mlclipsim.usage import UsageError
from mlclipsim.verify import verify

CATALOG = yaml.safe_load((Path(__file__).parents[1] / "config/catalog/metrics.yaml").read_text())
TRIED = """
import piq
import torch

def psnr(distorted, reference):  # in this order, so that it works by name alone
    return piq.psnr(distorted, reference, reduction="none")

class Distance(torch.nn.Module):
    def forward(self, x, y):
        return -psnr(reference=x, distorted=y)

def gappy(x, y):
    values = psnr(y, x)
    return torch.where(values > values.median(), torch.nan, values)

def mean(x, y):
    return psnr(y, x).mean()

def failing(x, y):
    raise RuntimeError("no such\\nlayer")

word = "psnr"
"""


@pytest.fixture(scope="module")
def run(invented_pcmp, invented_weights, tmp_path_factory) -> Path:
    """A run whose metric was PSNR, on invented images that differ, with the records of its steps."""
    preset = tmp_path_factory.mktemp("bench") / "results" / "tiny"
    run, shared = preset / "default", preset / "shared"
    images, scores = shared / "pcmp_images-0/images.parquet", shared / "baselines-0/scores.parquet"
    stored = invented_pcmp.tables.images
    noise = [np.random.default_rng(zlib.crc32(name.encode())) for name in stored["image_id"]]
    drawn = [encode_image(rng.integers(96, 160, (16, 16, 3), dtype=np.uint8)) for rng in noise]
    write_table(images, stored.assign(image=drawn), "images")

    read = {"references": invented_pcmp.paths["references"], "images": images}
    settings = {"metrics": {"psnr": CATALOG["psnr"]}, "roles": ["pcmp_test"], "batch_size": 16, "threads": 1}
    baselines.score(settings, read, {"scores": scores})
    provenance.write(provenance.beside({"s": scores}), "baselines", settings, read, {"s": scores}, started=0)

    names = ("pairs", "labels", "votes", "voters", "predictions", "similarities")
    read = {name: invented_pcmp.paths[name] for name in names}
    read |= {"weights": invented_weights, "baselines": scores}
    judged = {
        name: run / "benchmarks" / f"{name}.parquet" for name in ("preference", "comparisons", "ceilings")
    }
    settings = {"seed": 7, "folds": invented_pcmp.folds, "benchmark": {"resamples": 60}}
    machine_preference.evaluate(settings, read, judged)
    provenance.write(provenance.beside(judged), "preference", settings, read, judged, started=1)
    severity.evaluate(
        settings, {"images": images, "scores": [scores]}, {"severity": run / "benchmarks/severity.parquet"}
    )
    return run


@pytest.fixture
def tried(run, tmp_path, monkeypatch):
    """A module to be judged, and the working directory of the run."""
    (tmp_path / "tried.py").write_text(TRIED)
    monkeypatch.chdir(run.parents[2])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tried", raising=False)


@pytest.mark.usefixtures("tried")
def test_the_rows_are_those_of_the_same_metric_in_table_2(run, tmp_path, capsys):
    assert main(["bench", "tried:Distance", "--lower-is-better", "--run", str(run)]) == 0
    folder = run.parent / "bench" / "default" / "tried.Distance"
    steps = ("preference", "severity")
    own = table_2.of_pcmp(*(read_table(run / f"benchmarks/{step}.parquet", "preference") for step in steps))
    write_csv(tmp_path / "own.csv", own[own["metric"] == "psnr"])
    found, expected = pd.read_csv(folder / "table_2.csv"), pd.read_csv(tmp_path / "own.csv")
    assert set(found["metric"]) == {"tried:Distance"}
    assert found["variant"].str.fullmatch("sha256:[0-9a-f]{8}").all()
    named = ["metric", "variant", "class"]
    pd.testing.assert_frame_equal(found.drop(columns=named), expected.drop(columns=named))

    compared = pd.read_csv(folder / "comparisons.csv").set_index(["voters", "metric"])
    assert compared.loc[("held_out", "psnr"), "difference"] == 0
    theirs = {
        (row["voters"], row["metric"]): row
        for row in read_json(run / "benchmarks/comparisons.parquet")["comparisons"]
    }
    for group in ("seen", "held_out"):  # ours against it, seen from the other side
        here = compared.loc[(group, "ml_clipsim")]
        assert here["difference"] == pytest.approx(-theirs[group, "psnr"]["difference"], rel=1e-4)
        assert here["p"] == pytest.approx(theirs[group, "psnr"]["p"], rel=1e-4)
    printed = capsys.readouterr().out
    assert "ML-CLIPSim" in printed
    assert "severity (tau)" in printed
    assert "baselines: " in provenance.as_tree(folder / "table_2.csv")
    assert verify(folder).problems == []


@pytest.mark.usefixtures("tried")
def test_without_several_levels_of_psnr_there_is_no_severity_to_tell(run, tmp_path):
    verdict = bench.judge("tried:psnr", run, tmp_path / "out")
    assert "severity (tau)" in verdict.as_text()
    of_one = replace(verdict, rows=verdict.rows[verdict.rows["voters"] != "none"])
    assert "severity" not in of_one.as_text()


@pytest.mark.usefixtures("tried")
def test_scores_that_are_no_numbers_are_counted(run, tmp_path):
    verdict = bench.judge("tried:gappy", run, tmp_path / "out")
    scores = read_table(tmp_path / "out" / "scores.parquet", "scores")["score"]
    assert verdict.n_lost == scores.isna().sum() > 0
    assert verdict.n_images == len(scores)
    macro = verdict.rows.set_index(["voters", "slice"]).loc[("held_out", "macro")]
    assert macro["n_unscored"] > 0
    text = verdict.as_text()
    assert (
        f"{verdict.n_lost:,} of {len(scores):,} scores are not numbers; {macro['n_unscored']:,} pairs" in text
    )


@pytest.mark.usefixtures("tried")
@pytest.mark.parametrize(
    ("named", "problem", "code"),
    [
        ("nowhere:metric", "there is no module 'nowhere'", 2),
        ("tried:nothing", "module tried has no 'nothing'", 2),
        ("tried", "expected code as module:name, got 'tried'", 2),
        ("tried:word", "tried:word: expected a metric to call, got str", 1),
        (
            "tried:mean",
            r"tried:mean: expected a tensor of shape \(16,\), a score per image, got shape \(\)",
            1,
        ),
        ("tried:failing", r"tried:failing failed on images .* \(RuntimeError: no such layer\); mend it", 1),
    ],
)
def test_what_cannot_be_judged_is_one_sentence(run, tmp_path, capsys, named, problem, code):
    assert main(["bench", named, "--run", str(run), "--output", str(tmp_path / "out")]) == code
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("mlclipsim:")]
    assert re.search(problem, line)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("tried")
def test_only_a_finished_run_that_nobody_touched_judges(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is of another project; run this in its folder"):
        bench.judge("tried:psnr", run, tmp_path)
    monkeypatch.chdir(run.parents[2])
    with pytest.raises(ArtifactError, match="is not there"):
        bench.judge("tried:psnr", run.parent / "other", tmp_path)
    with pytest.raises(ArtifactError, match=r"no record of its step preference.*preset="):
        bench.judge("tried:psnr", run.parent / "shared", tmp_path)
    scores = run.parent / "shared/baselines-0/scores.parquet"
    kept = scores.read_bytes()
    try:
        scores.write_bytes(kept + b" ")
        with pytest.raises(ArtifactError, match=r"is not what the metrics of .* were judged on"):
            bench.judge("tried:psnr", run, tmp_path)
    finally:
        scores.write_bytes(kept)
