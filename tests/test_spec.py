"""Layers, checks, slices, digests and paths."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlclipsim import spec
from mlclipsim.spec import ConfigError, canonical, export_environment, load, merge
from mlclipsim.steps import STEPS


def problems(**overrides) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(overrides, planning=True)
    return caught.value.problems


def test_import_is_light():
    """The workflow imports this at every start; torch alone would take seconds."""
    code = "import sys, mlclipsim.spec, mlclipsim.steps; print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_merge_joins_dicts_and_replaces_lists():
    below = {"a": {"x": 1, "y": [1, 2]}, "b": 3}
    assert merge(below, {"a": {"y": [5]}}) == {"a": {"x": 1, "y": [5]}, "b": 3}
    assert below == {"a": {"x": 1, "y": [1, 2]}, "b": 3}


def test_layers_override_in_order():
    assert load(planning=True).config["benchmark"]["resamples"] == 2000
    assert load({"preset": "ci"}, planning=True).config["benchmark"]["resamples"] == 100
    given = load({"preset": "ci", "benchmark": {"resamples": 7}}, planning=True)
    assert given.config["benchmark"]["resamples"] == 7
    assert given.config["benchmark"]["roles"] == ["pcmp_test"]


def test_text_of_the_command_line_is_typed_by_the_key():
    """Snakemake parses `True` but hands `true` and `[a,b]` over as text."""
    given = {"require_files": "false", "encoders": "[scene-clip]", "run": "null", "assets_dir": "x: y"}
    config = load(given, planning=True).config
    assert config["require_files"] is False
    assert (config["encoders"], config["run"], config["assets_dir"]) == (["scene-clip"], None, "x: y")


@pytest.mark.parametrize("preset", ["embedded", "ci", "local", "paper"])
def test_presets_are_valid(preset):
    plan = load({"preset": preset}, planning=True)
    assert (plan.preset, plan.run) == (preset, "default")


def test_all_problems_come_in_one_message():
    found = problems(
        preset="locl",
        sed=1,
        encoder="scene-clp",
        threads=0,
        pcmp={"families": ["jpgg", "jpeg"], "target_db": [22]},
        metrics=["ssmi"],
        folds=[{"seen": ["mobilenetv1-075"], "held_out": ["mobilenetv1-025", "mcunett"]}],
    )
    text = "\n".join(found)
    for expected in (
        "preset 'locl' is unknown; did you mean 'local'?",
        "key 'sed' is unknown; did you mean 'seed'?",
        "'target_db' is unknown; did you mean 'targets_db'?",
        "'jpgg' is unknown; did you mean 'jpeg'?",
        "'scene-clp' is unknown; did you mean 'scene-clip'?",
        "'ssmi' is unknown; did you mean 'ssim'?",
        "'mcunett' is unknown; did you mean 'mcunet'?",
        "family 'mobilenetv1' is both in seen and in held_out (mobilenetv1-075, mobilenetv1-025)",
        "`threads`: 0 is less than the minimum of 1",
    ):
        assert expected in text, expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"seed": "x"}, "`seed` is 'x', expected integer"),
        ({"references": 3}, "`references` is 3, expected object"),
        ({"folds": [{"seen": "mcunet", "held_out": ["mcunet"]}]}, "expected array"),
        ({"encoder": 4}, "`encoder` is 4, expected string"),
        ({"encoders": "scene-clip"}, "`encoders` is 'scene-clip', expected array"),
        ({"run": "../elsewhere"}, "`run` is '../elsewhere', expected a name of"),
        ({"run": "shared"}, "`run` is 'shared', expected a name of"),
        ({"folds": [{"seen": ["mcunet"]}]}, "'held_out' is a required property"),
    ],
)
def test_wrong_values_are_named(overrides, expected):
    assert any(expected in problem for problem in problems(**overrides))


@pytest.mark.parametrize("group", ["seen", "held_out"])
def test_encoder_and_voters_share_no_family(group):
    folds = [{"seen": ["mcunet"], "held_out": ["squeezenet1-1"]}]
    folds[0][group] = ["mobilenetv2-075"]
    found = [p for p in problems(preset="local", feature_network=None, folds=folds) if "folds[0]" in p]
    assert len(found) == 1
    assert f"family 'mobilenetv2' is both in encoder and in {group}" in found[0]


@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        ("scene-regnet", "is of the family 'regnet', as the training voter"),
        ("scene-segmenter", "is of the family 'regnet'"),  # its backbone's
        ("scene-vgg", "is the network of the arm deep_features"),
    ],
)
def test_who_took_part_does_not_judge_codecs(judge, reason):
    (found, *_) = problems(compression={"judges": {"test": ["scene-repvgg", judge]}})
    assert f"`compression.judges.test`: {judge!r} {reason}" in found


def test_the_teacher_neither_judges_nor_chooses():
    found = problems(
        compression={
            "teacher": "scene-repvgg",
            "judges": {"test": ["scene-repvgg"], "validation": ["scene-repvgg"]},
        }
    )
    assert any("test`: 'scene-repvgg' is the teacher" in problem for problem in found)
    assert any("validation`: 'scene-repvgg' is the teacher" in problem for problem in found)


def test_a_judge_of_the_encoders_family_is_marked():
    assert load({"preset": "local"}, planning=True).marked_judges == {"deeplabv3-mobilenetv2": "mobilenetv2"}
    assert load(planning=True).marked_judges == {}


def test_a_classifier_without_temperature_does_not_judge():
    (found,) = problems(compression={"judges": {"validation": ["scene-vgg"]}})
    assert "'scene-vgg' is a classifier that votes in no fold" in found


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"points": ["q1", "q3"]}, "`compression.points`: 'q3' is unknown; did you mean 'q"),
        ({"trial_point": "q9"}, "`compression.trial_point`: 'q9' is unknown"),
        ({"rhos": [1.0]}, "1 rhos and 4 learning_rates, expected as many"),
        ({"fold": 1}, "`compression.fold` is 1, expected one of 1 folds"),
        ({"train": {"codec_train": 241}}, "961 images do not fill mosaics of 4"),
    ],
)
def test_trainings_that_cannot_start_are_refused(change, problem):
    assert any(problem in found for found in problems(compression=change))


def test_trainings_take_no_more_photographs_than_there_are():
    """Roles merge with the default's, which has some that another preset lacks; scenes are drawn at will."""
    roles = {"pcmp_train": 10, "pcmp_val": 10, "pcmp_test": 10, "codec_train": 8, "codec_val": 500}
    (found,) = problems(preset="paper", references={"roles": roles})
    assert "`compression.train`: 8000 images of codec_train, `references.roles` has 8" in found


def test_deep_features_need_a_network():
    arms = load(planning=True).trained_arms
    assert "deep_features" in arms
    without = load({"feature_network": None}, planning=True).trained_arms
    assert without == [arm for arm in arms if arm != "deep_features"]


def test_codecs_ship_or_are_trained_in_the_run():
    shipped, again = load(planning=True), load({"retrain_codecs": True}, planning=True)
    assert shipped.codec_manifest.endswith("mlclipsim/compression/weights/manifest.json")
    assert again.codec_manifest == "results/embedded/default/compression/codecs/manifest.json"
    assert (shipped.trains_codecs, again.trains_codecs) == (False, True)
    assert load({"preset": "local"}, planning=True).trains_codecs


def test_shipped_codecs_have_the_checksums_of_their_manifest():
    from mlclipsim.artifacts import sha256_of
    from mlclipsim.places import locate

    points = load(planning=True).slice("codec_arm")["codec"]["entry"]["points"]
    assert set(points) == {"q1", "q2", "q4", "q6"}
    for point in points.values():
        assert point["sha256"] == sha256_of(locate(point["weights"]))


def test_a_training_reads_no_more_of_the_config_than_it_needs():
    plan = load(planning=True)
    item = {"arm": "mse", "point": "q1", "training_seed": 2}
    read = plan.slice("codec_arm", **item)
    assert {key: read[key] for key in item} == item
    assert "rhos" not in read["compression"]  # its choice is a file
    assert "rhos" in plan.slice("codec_trial", arm="mse", trial=0)["compression"]
    changed = load({"compression": {"judges": {"validation": ["scene-dla"]}}}, planning=True)
    assert changed.text("codec_arm", **item) == plan.text("codec_arm", **item)
    assert changed.text("codec_choice", arm="mse") != plan.text("codec_choice", arm="mse")


def test_the_feature_network_is_of_no_voters_family():
    found = [p for p in problems(feature_network="scene-darknet") if "folds[0]" in p]
    assert len(found) == 1
    assert "family 'darknet' is both in feature_network and in held_out (scene-darknet)" in found[0]
    assert "did you mean 'scene-vgg'?" in problems(feature_network="scene-vg")[0]


def test_the_backbone_of_a_detector_or_segmenter_counts():
    folds = [{"seen": ["mcunet", "deeplabv3-mobilenetv2"], "held_out": ["squeezenet1-1"]}]
    found = [p for p in problems(preset="local", feature_network=None, folds=folds) if "folds[0]" in p]
    assert len(found) == 1
    assert "family 'mobilenetv2' is both in encoder and in seen (lit-mobilenetv2, deeplabv3" in found[0]
    folds = [{"seen": ["scene-detector", "scene-dla"], "held_out": ["scene-vovnet"]}]
    found = [problem for problem in problems(folds=folds) if "family" in problem]
    assert "family 'vovnet' is both in seen and in held_out (scene-detector, scene-vovnet)" in found[0]


def test_missing_assets_folder_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MLCLIPSIM_ASSETS", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="is not there; set MLCLIPSIM_ASSETS") as caught:
        load({"preset": "local"})
    assert len(caught.value.problems) == 1


def test_missing_files_are_listed_each(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load({"preset": "local", "assets_dir": str(tmp_path)})
    assert (
        sum("which is not there" in problem for problem in caught.value.problems) == 13
    )  # photographs, trunk, 6 voters, feature network, segmenter, COCO, opinions, the photographs under them


def test_planning_lists_missing_files_without_stopping(tmp_path):
    plan = load({"preset": "local", "assets_dir": str(tmp_path)}, planning=True)
    assert len(plan.missing) == 13
    with pytest.raises(ConfigError):
        plan.require_files()
    load({"preset": "local", "assets_dir": str(tmp_path), "require_files": False}).require_files()


def test_broken_yaml_is_one_sentence(tmp_path):
    (tmp_path / "x.yaml").write_text("a: [1,\nb: 2")
    with pytest.raises(ConfigError, match=r"x\.yaml cannot be read as YAML"):
        spec.read_yaml(tmp_path / "x.yaml")


def test_canonical_json_ignores_order():
    assert canonical({"b": [1, 2], "a": {"d": 1, "c": 2}}) == canonical({"a": {"c": 2, "d": 1}, "b": [1, 2]})
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"a": float("nan")})


def test_precision_makes_other_results_of_what_passes_through_networks_only():
    usual, half = (load({"precision": p}, planning=True) for p in ("float32", "bfloat16"))
    assert "precision" not in usual.slice("predictions")
    for step in ("predictions", "similarities", "votes"):
        assert usual.digest(step, "scene-clip") != half.digest(step, "scene-clip")
    for step in ("references", "pcmp_images", "pcmp_pairs", "baselines"):
        assert usual.digest(step) == half.digest(step)


def test_jobs_get_their_environment_and_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mlclipsim.spec.os.environ", {"PATH": "/bin", "TQDM_MININTERVAL": "1"})
    plan = load(planning=True)
    export_environment(plan)
    given = dict(os.environ)
    assert given["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/bin"
    assert given["MLCLIPSIM_ASSETS"] == str(plan.assets_dir)
    assert given["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert given["TQDM_MININTERVAL"] == "1"


def test_run_is_default_only_for_the_presets_own_encoder():
    assert load(planning=True).run == "default"
    assert load({"encoder": "scene-clip-resnet"}, planning=True).run == "scene-clip-resnet"
    assert load({"encoder": "scene-clip-resnet", "run": "mine"}, planning=True).run == "mine"
    assert load({"preset": "local"}, planning=True).own("claims.json") == "results/local/default/claims.json"


def test_every_encoder_has_an_untrained_control():
    plan = load({"encoder": "scene-clip-resnet"}, planning=True)
    assert plan.untrained == "scene-clip-resnet-untrained"
    entry = plan.entry("encoders", plan.untrained)
    assert (entry["source"], entry["model"], entry["family"]) == ("untrained", "scene-clip-resnet", "resnet")
    assert load({"encoder": "scene-clip-untrained"}, planning=True).untrained == "scene-clip-untrained"


SHARED = ("references", "pcmp_images", "pcmp_pairs", "predictions", "votes", "baselines")


def changed(**overrides) -> set[str]:
    before, after = load(planning=True), load(overrides, planning=True)
    steps = {step for step in SHARED if before.shared(step, "x") != after.shared(step, "x")}
    name = "similarities"
    return steps | (
        {name} if before.shared(name, "x", "scene-clip") != after.shared(name, "x", "scene-clip") else set()
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"seed": 1}, {*SHARED, "similarities"}),
        ({"references": {"roles": {"pcmp_test": 3}}}, {*SHARED, "similarities"}),
        ({"pcmp": {"tolerance_db": 0.02}}, {*SHARED[1:], "similarities"}),
        ({"votes": {"tie_log": 0.5}}, {"votes"}),
        ({"metrics": ["psnr"]}, {"baselines"}),
        ({"feature_network": None}, {"baselines"}),
        ({"encoder": "scene-clip-resnet"}, set()),
        ({"fit": {"bootstrap": 3}}, set()),
        ({"threads": 3, "workers": 5, "batch_size": 8}, set()),
        ({"style": "ieee", "run": "mine"}, set()),
    ],
)
def test_a_key_moves_exactly_what_depends_on_it(overrides, expected):
    assert changed(**overrides) == expected


def test_a_style_changes_the_figures_and_nothing_else():
    plain, other = (
        load({"preset": "ci"}, planning=True),
        load({"preset": "ci", "style": "ieee"}, planning=True),
    )
    changed = {step for step in STEPS if plain.text(step) != other.text(step)}
    assert changed - {"record"} == {step for step in STEPS if step.startswith("figure_")}
    assert json.loads(other.text("figure_3"))["style"]["column_mm"] == 88.9
    page = (spec.project_root() / "docs" / "catalogs.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    own = load({"preset": "ci"} | yaml.safe_load(block), planning=True)
    assert own.slice("figure_3")["style"]["font"] == "DejaVu Serif"
    assert problems(preset="ci", style="iee") == [
        "`style`: 'iee' is unknown; did you mean 'ieee'? (config/catalog/styles.yaml)"
    ]
    assert "`style` is {'dpi': 100}, expected string" in problems(preset="ci", style={"dpi": 100})


def test_slices_hold_catalog_entries_and_nothing_of_the_machine(tmp_path):
    plan = load({"preset": "local", "assets_dir": str(tmp_path)}, planning=True)
    voters = plan.slice("predictions")["voters"]
    assert voters["mcunet"]["input_size"] == 176
    assert list(plan.slice("predictions")) == ["seed", "threads", "voters", "batch_size"]
    assert plan.slice("references")["references"]["dataset"]["reader"] == "photographs"
    steps = (
        "references",
        "predictions",
        "votes",
        "baselines",
        "preference",
        "table_1",
        "lit_encoder",
        "similarities",
    )
    for step in steps:
        assert str(tmp_path) not in plan.text(step)
        assert json.loads(plan.text(step)) == plan.slice(step)


def test_the_feature_network_is_an_argument_and_names_the_variant():
    def entry(**overrides):
        return load(overrides, planning=True).slice("baselines")["metrics"]["deep_features"]

    assert entry()["variant"] == entry()["arguments"]["network"]["name"] == "scene-vgg"
    assert len(entry()["arguments"]["network"]["entry"]["sha256"]) == 64
    assert entry(preset="local")["variant"] == "mobilenetv2-075"
    assert entry(preset="paper")["arguments"] == {"network": None}


def test_a_lit_encoder_follows_its_photographs_and_settings():
    def path(**overrides):
        return load({"preset": "local", **overrides}, planning=True).shared(
            "similarities", "x", "lit-mobilenetv2"
        )

    assert path() != path(lit={"epochs": 1})
    assert path() == path(lit={"epochs": 30})
    other = [
        load({"preset": "embedded", **o}, planning=True).shared("similarities", "x", "scene-clip")
        for o in ({}, {"lit": {"epochs": 1}})
    ]
    assert other[0] == other[1]


def human(step: str, dataset: str = "tid2013-rederived", **overrides) -> str:
    return load({"preset": "local", **overrides}, planning=True).shared(step, "x", dataset=dataset)


def test_what_people_judged_is_scored_once_for_all_seeds_encoders_and_lists():
    for step in ("human_images", "human_baselines"):
        assert (
            human(step)
            == human(step, seed=5)
            == human(step, human={"datasets": ["tid2013-rederived", "live"]})
        )
        assert human(step) == human(step, encoder="scene-clip")
        assert human(step) != human(step, dataset="live")
    assert human("human_baselines") != human("human_baselines", metrics=["psnr"])
    assert human("human_images") == human("human_images", metrics=["psnr"])


def test_temperatures_of_the_machines_that_judge_come_with_their_seed():
    """They are calibrated on PCMP's references."""
    assert human("human_predictions") != human("human_predictions", seed=5)
    assert human("human_predictions") == human("human_predictions", votes={"tie_log": 0.5})


def test_a_data_set_without_opinions_is_refused():
    found = problems(preset="local", human={"datasets": ["kodak", "tid2031"]})
    assert any("'kodak' holds no opinions of people" in problem for problem in found)
    found = problems(human={"datasets": ["mpd"]}, machine_iqa={"datasets": ["live", "miqd"]})
    assert any("`human.datasets`: 'mpd' holds no opinions of people; take some of" in p for p in found)
    assert any("`machine_iqa.datasets`: 'live' holds no opinions of machines" in p for p in found)
    assert not any("'miqd' holds no" in problem for problem in found)


def test_tables_3_and_2_know_the_data_sets_of_people_and_of_machines():
    plan = load({"preset": "local", "machine_iqa": {"datasets": ["miqd"]}}, planning=True)
    people, machines = plan.slice("human_iqa"), plan.slice("machine_iqa")
    assert people["datasets"] == ["tid2013-rederived"]
    assert machines["datasets"] == ["miqd"]
    assert set(machines["known"]) == {"mpd", "miqd", "miqd-det", "miqd-ins"}
    assert "live" in people["known"]
    assert not set(people["known"]) & set(machines["known"])
    assert machines["known"]["mpd"].endswith("and a place in machine_iqa.datasets")


def test_a_data_set_unknown_to_the_catalog_is_refused():
    found = problems(preset="local", human={"datasets": ["kodak", "tid2031"]})
    assert any("'tid2031' is unknown; did you mean 'tid2013'?" in problem for problem in found)
