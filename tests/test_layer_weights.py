"""Layer weights: out of files of the fit, checked to belong to the metric; shipped ones are taken unasked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlclipsim import layer_weights
from mlclipsim.encoders import Encoder
from mlclipsim.metric import MLCLIPSim


@pytest.fixture(scope="module")
def vit(tiny: Callable[[str], Encoder]) -> Encoder:
    return tiny("vit")


def write_weights(path, encoder="tiny-vit", policy="resize", folds=((0.1, 0.2, 0.3, 0.4),)):
    names = ["layer_01", "layer_02", "layer_03", "global"]
    entries = [{"fold": i, "weights": list(w)} for i, w in enumerate(folds)]
    path.write_text(
        json.dumps({"encoder": encoder, "size_policy": policy, "layers": names, "folds": entries})
    )
    return path


def test_weights_of_the_fit(tmp_path, vit: Encoder) -> None:
    path = write_weights(tmp_path / "weights.json")
    assert list(MLCLIPSim(vit, weights=path).weights.values()) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    subset = MLCLIPSim(vit, weights=path, layers=[1, 2], use_global=False)
    assert subset.weights == pytest.approx({"layer_01": 1 / 3, "layer_02": 2 / 3})
    two = write_weights(tmp_path / "two.json", folds=((0.1, 0.2, 0.3, 0.4), (0.3, 0.2, 0.1, 0.4)))
    assert list(MLCLIPSim(vit, weights=two).weights.values()) == pytest.approx([0.2, 0.2, 0.2, 0.4])
    assert list(MLCLIPSim(vit, weights=two, fold=1).weights.values()) == pytest.approx([0.3, 0.2, 0.1, 0.4])
    boundary = write_weights(tmp_path / "boundary.json", folds=((1.0, 0.0, 0.0, 0.0),))
    assert list(MLCLIPSim(vit, weights=boundary).weights.values()) == pytest.approx([1, 0, 0, 0], abs=1e-9)


def test_wrong_weights(tmp_path, tiny, vit: Encoder) -> None:
    with pytest.raises(ValueError, match="fitted for encoder scene-clip, but this metric has tiny-vit"):
        MLCLIPSim(vit, weights=write_weights(tmp_path / "a.json", encoder="scene-clip"))
    with pytest.raises(ValueError, match="fitted for size_policy 'native'"):
        MLCLIPSim(vit, weights=write_weights(tmp_path / "b.json", policy="native"))
    with pytest.raises(ValueError, match=r"fitted for .* but tiny-resnet has"):
        MLCLIPSim(tiny("resnet"), weights=write_weights(tmp_path / "c.json", encoder="tiny-resnet"))
    with pytest.raises(ValueError, match="has no fold 7"):
        MLCLIPSim(vit, weights=write_weights(tmp_path / "d.json"), fold=7)
    with pytest.raises(ValueError, match="expected uniform, global"):
        MLCLIPSim(vit, weights="unifrom")
    (tmp_path / "e.json").write_text("{")
    with pytest.raises(ValueError, match="not a weights file"):
        MLCLIPSim(vit, weights=tmp_path / "e.json")
    with pytest.raises(ValueError, match=r"\['layer_02', 'layer_03', 'global'\] missing"):
        MLCLIPSim(vit, weights={"layer_01": 1.0})
    with pytest.raises(ValueError, match="numbers >= 0"):
        MLCLIPSim(vit, weights={"layer_01": 1.0, "layer_02": -1, "layer_03": 1, "global": 1})


def test_shipped_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny, vit: Encoder) -> None:
    """From the fit's file into the package, where exactly this encoder and size policy take it unasked."""
    monkeypatch.setattr(layer_weights, "FITTED", tmp_path / "fitted")
    assert MLCLIPSim(vit).identity["weights"] == "uniform"
    vit.pretrained = "sha256:0123456789ab"
    try:
        shipped = layer_weights.ship(write_weights(tmp_path / "weights.json"), vit)
        assert shipped == tmp_path / "fitted" / "tiny-vit.json"
        metric = MLCLIPSim(vit)
        assert metric.identity["weights"] == "tiny-vit"
        assert list(metric.weights.values()) == pytest.approx([0.1, 0.2, 0.3, 0.4])
        assert MLCLIPSim(vit, weights="tiny-vit").weights == metric.weights
        # another size policy, a part of the layers, or other weights of that network: not fitted for those
        assert MLCLIPSim(vit, size_policy="native").identity["weights"] == "uniform"
        assert MLCLIPSim(vit, layers=[1, 2]).identity["weights"] == "uniform"
        assert MLCLIPSim(tiny("vit")).identity["weights"] == "uniform"
        with pytest.raises(ValueError, match="with weights sha256:0123456789ab, but these are unnamed"):
            MLCLIPSim(tiny("vit"), weights="tiny-vit")
        with pytest.raises(ValueError, match=r"shipped ones \(tiny-vit\), got 'tiny-vti'"):
            MLCLIPSim(vit, weights="tiny-vti")
    finally:
        vit.pretrained = "unnamed"
    with pytest.raises(ValueError, match="fitted for encoder tiny-vit, but this metric has tiny-resnet"):
        layer_weights.ship(tmp_path / "weights.json", tiny("resnet"))


def test_what_ships_belongs_to_what_ships() -> None:
    """Every file of fitted weights in the package is that of an encoder as it now is."""
    from mlclipsim.encoders import load_encoder

    for path in layer_weights.FITTED.glob("*.json"):
        fitted = json.loads(path.read_text(encoding="utf-8"))
        if "/" not in fitted["encoder"]:
            assert fitted["pretrained"] == load_encoder(fitted["encoder"]).pretrained, path.name


def test_a_file_is_named_by_its_digest(tmp_path: Path, vit: Encoder) -> None:
    path = write_weights(tmp_path / "weights.json")
    label = MLCLIPSim(vit, weights=path, fold=0).identity["weights"]
    assert label.startswith("weights.json sha256:")
    assert label.endswith(" fold 0")
    other = write_weights(tmp_path / "weights.json", folds=((0.4, 0.3, 0.2, 0.1),))
    assert MLCLIPSim(vit, weights=other, fold=0).identity["weights"] != label
