"""The zoo: what ships is what the manifest says, good enough, and trained by a rule that resumes."""

import json
from importlib.resources import files

import pytest
import torch

from mlclipsim import spec
from mlclipsim.artifacts import sha256_of
from mlclipsim.world import zoo
from mlclipsim.world.architectures import ARCHITECTURES
from mlclipsim.world.pool import render_pool

WEIGHTS = files("mlclipsim.world") / "weights"
MANIFEST = json.loads((WEIGHTS / "manifest.json").read_text())
# The bars that the embedded world was built to; measured on held-out scenes by the training itself.
BARS = {
    "classification": {"accuracy": 0.85},
    "segmentation": {"mean_iou": 0.75},
    "detection": {"ap50": 0.6},
}


def shipped(name):
    return zoo.load(name, WEIGHTS / f"{name}.safetensors")


def test_files_match_the_manifest_and_stay_small():
    sizes = 0
    for name, entry in MANIFEST.items():
        path = WEIGHTS / f"{name}.safetensors"
        assert sha256_of(str(path)) == entry["sha256"], name
        assert {"command", "commit", "seed", "steps", "clean"} <= set(entry), name
        sizes += path.stat().st_size
    assert sizes <= 20e6


@pytest.mark.parametrize("name", [n for n in MANIFEST if n not in ("scene-clip", "scene-clip-resnet")])
def test_clean_accuracy_reaches_its_bar(name):
    for quantity, bar in BARS[MANIFEST[name]["task"]].items():
        assert MANIFEST[name]["clean"][quantity] >= bar


@pytest.mark.parametrize("name", ["scene-clip", "scene-clip-resnet"])
def test_clip_reads_shapes_and_colours_without_examples(name):
    assert MANIFEST[name]["clean"]["zero_shot_shape"] >= 0.6
    assert MANIFEST[name]["clean"]["zero_shot_colour"] >= 0.9


def test_segmenters_and_detector_ship():
    assert {"scene-segmenter", "scene-segmenter-darknet", "scene-detector"} <= set(MANIFEST)


def test_the_catalog_has_every_network_by_the_task_and_family_that_it_was_trained_with():
    """The family decides who may vote beside whom."""
    machines = spec.load(planning=True).catalogs["machines"]
    catalog = {name: entry for name, entry in machines.items() if entry["builder"] == "zoo"}
    assert set(catalog) | {"scene-clip", "scene-clip-resnet"} == set(MANIFEST) == set(zoo.PLANS)
    for name, entry in catalog.items():
        trained = MANIFEST[name]
        assert (entry["task"], entry["family"]) == (trained["task"], trained["family"]), name
        if trunk := trained.get("starts_from"):
            assert entry["family"] == MANIFEST[trunk]["family"], name


def test_classifiers_are_many_and_of_many_families():
    families = [e["family"] for e in MANIFEST.values() if e["task"] == "classification"]
    assert len(families) >= 8
    assert len(set(families)) >= 6
    assert not set(families) & {"vit", "resnet"}  # the encoders' families


@pytest.mark.parametrize("name", ["scene-repvgg", "scene-densenet"])
def test_manifest_accuracy_is_what_the_shipped_weights_do(name):
    """Other scenes, so within what 400 of them can say (four standard errors)."""
    clean = MANIFEST[name]["clean"]["accuracy"]
    measured = zoo.measure(name, shipped(name), render_pool("zoo_val", 400, seed=99))["accuracy"]
    assert measured == pytest.approx(clean, abs=4 * (clean * (1 - clean) / 400) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MANIFEST))
def test_manifest_is_what_the_shipped_weights_measure(name):
    pool = render_pool("zoo_val", zoo.HELD_OUT_SIZE, zoo.ZOO_SEED)
    measured = zoo.measure(name, shipped(name), pool)
    for quantity, value in MANIFEST[name]["clean"].items():
        assert measured[quantity] == pytest.approx(value, abs=0.003)  # other kernels on other machines


def test_every_architecture_builds_small_and_leaves_the_random_state_alone():
    state = torch.random.get_rng_state()
    for name in zoo.PLANS:
        model = zoo.build(name)
        if name.removeprefix("scene-") in ARCHITECTURES:
            assert sum(p.numel() for p in model.parameters()) <= 5e5, name
    assert torch.equal(state, torch.random.get_rng_state())


def test_unknown_network_is_refused():
    with pytest.raises(ValueError, match="'scene-alexnet' is unknown; expected one of scene-clip"):
        zoo.build("scene-alexnet")


def test_a_detector_waits_for_the_classifier_that_it_starts_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="scene-detector starts from scene-vovnet, whose weights"):
        zoo._make("scene-detector", tmp_path, tmp_path, 0.01, 0)
    started = zoo.build("scene-detector", shipped("scene-vovnet")).backbone.trunk.state_dict()
    for key, value in shipped("scene-vovnet").state_dict().items():
        if key.startswith("stem."):
            assert torch.equal(started[key.replace("stem.", "stem_", 1)], value), key


def test_interrupted_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    pool = render_pool("zoo_val", 64, seed=3)
    plan = zoo.Plan(steps=4, batch=8)
    whole = zoo.train("scene-vovnet", pool, plan, tmp_path / "whole.pt").state_dict()

    monkeypatch.setattr(zoo, "CHECKPOINT_SECONDS", -1.0)
    loss, calls = zoo._LOSSES["classification"], iter(range(100))

    def interrupted(*arguments):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setitem(zoo._LOSSES, "classification", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo.train("scene-vovnet", pool, plan, tmp_path / "parts.pt")
    resumed = zoo.train("scene-vovnet", pool, plan, tmp_path / "parts.pt").state_dict()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


def test_a_loss_that_is_no_number_stops_the_training(tmp_path, monkeypatch):
    pool = render_pool("zoo_val", 16, seed=3)
    nothing = lambda model, *rest: next(model.parameters()).sum() * float("nan")  # noqa: E731
    monkeypatch.setitem(zoo._LOSSES, "classification", nothing)
    with pytest.raises(FloatingPointError, match="scene-vovnet: the loss is nan at step 0"):
        zoo.train("scene-vovnet", pool, zoo.Plan(steps=2, batch=4), tmp_path / "x.pt")
