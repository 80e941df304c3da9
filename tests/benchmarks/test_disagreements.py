"""The pairs on which metric and machines disagree most: which, with whom, and with what pictures."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlclipsim.artifacts import ArtifactError, read_json, read_table, write_json, write_table
from mlclipsim.benchmarks import disagreements
from mlclipsim.images import decode_image

SPEC = {
    "seed": 1,
    "threads": 1,
    "page": {"disagreements": 5},
    "benchmark": {"roles": ["pcmp_test"]},
    "encoder": {"name": "tiny", "entry": {"source": "package", "model": "tiny"}},
}


@pytest.fixture(scope="module")
def inputs(invented_pcmp, invented_weights, tmp_path_factory):
    """The invented PCMP with the fit's scores, as clip_scores writes them."""
    from mlclipsim import fit

    scores = tmp_path_factory.mktemp("scores") / "ml_clipsim.parquet"
    fit.score({}, invented_pcmp.paths | {"weights": invented_weights}, {"scores": scores})
    return invented_pcmp.paths | {
        "weights": invented_weights,
        "scores": [scores, invented_pcmp.paths["scores"]],
    }


@pytest.fixture(scope="module")
def found(inputs, invented_pcmp, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disagreements")
    outputs = {name: folder / f"{name}.parquet" for name in ("disagreements", "sides")}
    weights = read_json(inputs["weights"])
    encoder = tiny("vit")
    layers = [f"layer_{layer:02d}" for layer in encoder.layers] + ["global"]
    equal = [fold | {"weights": [1 / len(layers)] * len(layers)} for fold in weights["folds"]]
    fitted = folder / "weights.json"
    write_json(fitted, weights | {"encoder": encoder.name, "layers": layers, "folds": equal})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disagreements, "load_entry", lambda *_: encoder)
        disagreements.find(SPEC | {"folds": invented_pcmp.folds}, inputs | {"weights": fitted}, outputs)
    return {name: read_table(path, name) for name, path in outputs.items()}


def test_they_are_of_the_test_set_no_reference_and_no_two_families_twice(found):
    pairs = found["disagreements"]
    assert len(pairs) == 5
    assert pairs["reference_id"].is_unique
    assert pairs["reference_id"].str.contains("pcmp_test").all()
    assert len({frozenset(both) for both in zip(pairs["family_a"], pairs["family_b"], strict=True)}) == 5


def test_the_metric_expects_the_other_image(found, inputs):
    pairs = found["disagreements"]
    assert ((pairs["expected"] - 0.5) * (pairs["label_held_out"] - 0.5) < 0).all()
    tau = read_json(inputs["weights"])["folds"][0]["tau"]
    margin = (pairs["score_a"] - pairs["score_b"]) / tau
    np.testing.assert_allclose(pairs["expected"], 1 / (1 + np.exp(-margin)))


def test_farther_apart_comes_first_and_nothing_is_farther():
    judged = pd.DataFrame(
        {
            "pair_id": ["p1", "p2", "p3", "p4", "p5"],
            "fold": 0,
            "reference_id": ["r1", "r2", "r2", "r3", "r4"],
            "family_a": ["jpeg", "fog", "blur", "fog", "gamma"],
            "family_b": ["blur", "jpeg", "noise", "noise", "noise"],
            "label_held_out": [1.0, 1.0, 0.0, 0.0, 0.5],
            "expected": [0.4, 0.1, 0.8, 0.7, 0.5],
        }
    )
    assert list(disagreements.choose(judged, 3)["pair_id"]) == ["p2", "p4", "p1"]  # p3 shares r2
    twice = judged.assign(family_b=["blur", "noise", "noise", "noise", "noise"])
    twice.loc[3, "family_a"] = "fog"  # as p2, in whatever order
    twice.loc[1, ["family_a", "family_b"]] = ["noise", "fog"]
    assert list(disagreements.choose(twice, 3)["pair_id"]) == ["p2", "p1", "p5"]


def test_sides_are_the_votes_and_the_metrics_own_direction(found, invented_pcmp):
    pairs, sides = found["disagreements"], found["sides"]
    votes = invented_pcmp.tables.votes.set_index(["pair_id", "voter"])["vote"]
    voters = sides[sides["kind"] != "metric"]
    assert len(voters) == 5 * 10
    for row in voters.itertuples():
        np.testing.assert_equal(row.side, votes[row.pair_id, row.name])
    scores = invented_pcmp.tables.scores
    gmsd = scores[scores["metric"] == "gmsd"].set_index("image_id")["score"]  # smaller is better
    chosen = invented_pcmp.tables.pairs.set_index("pair_id").loc[pairs["pair_id"]]
    expected = (chosen["image_a"].map(gmsd) < chosen["image_b"].map(gmsd)).to_numpy(float)
    assert list(sides.loc[sides["name"] == "gmsd", "side"]) == list(expected)
    ours = sides[(sides["name"] == "ml_clipsim") & (sides["variant"] == "fold_0")]
    assert list(ours["side"]) == list((pairs["expected"] > 0.5).astype(float))


def test_pictures_are_the_stored_ones_and_their_maps(found, invented_pcmp):
    references = invented_pcmp.tables.references.set_index("reference_id")["image"]
    for row in found["disagreements"].itertuples():
        assert row.pixels_reference == references[row.reference_id]
        size = decode_image(row.pixels_a).shape
        with Image.open(io.BytesIO(row.map_b)) as picture:
            assert (picture.height, picture.width, 3) == size


def test_without_labels_it_says_so(inputs, invented_pcmp, tmp_path):
    labels = invented_pcmp.tables.labels
    write_table(tmp_path / "labels.parquet", labels[labels["group"] == "seen"], "labels")
    with pytest.raises(ArtifactError, match="held-out voters labelled"):
        disagreements.find(
            SPEC | {"folds": invented_pcmp.folds}, inputs | {"labels": tmp_path / "labels.parquet"}, {}
        )
