"""What is listed: names that can be used, and whether what they need is here."""

from __future__ import annotations

import open_clip
import pytest

from mlclipsim import cli, encoders, listing


def rows(text):
    """Lines of a table cut at the columns of its header, up to the first empty line."""
    lines = text.split("\n\n")[0].splitlines()
    header = lines[0]
    names = [name for name in header.split("  ") if name]
    starts = [header.index(name.strip()) for name in names]
    cuts = [slice(a, b) for a, b in zip(starts, [*starts[1:], None], strict=True)]
    return [{n.strip(): line[cut].strip() for n, cut in zip(names, cuts, strict=True)} for line in lines[1:]]


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """No project here: what is installed stands alone."""
    from mlclipsim import spec

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spec, "__file__", str(tmp_path / "site-packages" / "mlclipsim" / "spec.py"))


def test_encoders_of_the_project(capsys):
    assert cli.main(["encoders"]) == 0
    table = {(row["encoder"], row["pretrained"]): row for row in rows(capsys.readouterr().out)}
    assert table["scene-clip", ""]["weights"] == "in the package"
    assert table["lit-mobilenetv2", ""]["weights"].startswith("needs a checkpoint")
    default = table["ViT-B-32-quickgelu", "openai"]
    assert default["weights"].endswith("(the default)")
    assert default["in the catalog"] == "vit-b-32-openai"


def test_encoders_outside_the_project(outside):
    text = listing.encoders()
    names = [row["encoder"] for row in rows(text)]
    assert set(names) >= {"scene-clip", "scene-clip-resnet", "ViT-B-32-quickgelu"}
    assert "in the catalog" not in text
    assert "more can be downloaded: mlclipsim encoders --all" in text


def test_all_encoders_are_those_that_load(outside):
    found = {(row["encoder"], row["pretrained"]) for row in rows(listing.encoders(everything=True))}
    downloads = {names for names in found if names[1]}
    assert downloads < set(open_clip.list_pretrained())
    assert ("RN50", "openai") not in downloads  # of the other activation
    assert ("RN50-quickgelu", "openai") in downloads


def test_cached_encoders_are_marked_and_come_first(outside, monkeypatch, tmp_path):
    laion = open_clip.get_pretrained_cfg("ViT-L-14", "laion2b_s32b_b82k")
    monkeypatch.setattr(encoders, "cached", lambda known: tmp_path if known == laion else None)
    table = rows(listing.encoders())
    assert table[0] == {
        "encoder": "ViT-L-14",
        "pretrained": "laion2b_s32b_b82k",
        "weights": "in open_clip's cache",
    }
    assert all(row["weights"].startswith("needs") for row in table[3:])


def test_metrics_with_their_direction_and_state(capsys, monkeypatch):
    assert cli.main(["metrics"]) == 0
    table = {row["metric"]: row for row in rows(capsys.readouterr().out)}
    assert table["gmsd"] == {
        "metric": "gmsd",
        "library": "piq",
        "variant": "luma",
        "better": "lower",
        "class": "fidelity",
        "state": "ready",
    }
    assert table["psnr"]["better"] == "higher"
    monkeypatch.setattr(listing, "find_spec", lambda library: None)
    states = {row["metric"]: row["state"] for row in rows(listing.metrics())}
    assert states["gmsd"] == "needs piq: pip install 'mlclipsim[suite]'"
    assert states["dreamsim"] == "needs dreamsim: pip install dreamsim"


def test_metrics_outside_the_project_say_where_to_go(outside, capsys):
    assert cli.main(["metrics"]) == 2
    assert "change to the project's folder" in capsys.readouterr().err
