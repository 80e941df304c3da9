"""Where the weights of catalog entries lie, and what gets those that are not here."""

from __future__ import annotations

import pytest

from mlclipsim import pretrained, spec

TIMM = {"builder": "timm", "architecture": "efficientnet_b0", "weights": "ra_in1k"}
TORCHVISION = {"builder": "torchvision", "architecture": "squeezenet1_1", "weights": "IMAGENET1K_V1"}


def test_files_are_found_where_the_library_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert pretrained.files(TORCHVISION) == {"squeezenet1_1.IMAGENET1K_V1": None}
    path = tmp_path / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth"
    path.parent.mkdir(parents=True)
    path.write_text("x")
    assert pretrained.files(TORCHVISION) == {"squeezenet1_1.IMAGENET1K_V1": path}


def test_tags_of_timm_lie_in_the_cache_of_hugging_face(tmp_path, monkeypatch):
    import huggingface_hub

    def cached(repository, name):
        return (
            str(tmp_path)
            if (repository, name) == ("timm/efficientnet_b0.ra_in1k", "model.safetensors")
            else None
        )

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    assert pretrained.files(TIMM) == {"efficientnet_b0.ra_in1k": tmp_path}


def test_files_of_assets_and_of_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("MLCLIPSIM_ASSETS", str(tmp_path))
    entry = {"builder": "onnx", "architecture": "x", "weights": "assets:weights/x.onnx"}
    assert pretrained.files(entry) == {"assets:weights/x.onnx": None}
    assert pretrained.sources(entry) == []
    entry |= {"url": "https://a.org/x.onnx", "mirrors": ["https://b.org/x.onnx"], "sha256": "0" * 64}
    (source,) = pretrained.sources(entry)
    assert source.path == tmp_path / "weights/x.onnx"
    assert source.urls == ("https://a.org/x.onnx", "https://b.org/x.onnx")
    shipped = {"source": "package", "model": "m", "checkpoint": "package:world/weights/manifest.json"}
    assert pretrained.files(shipped)["package:world/weights/manifest.json"].is_file()
    assert pretrained.files({"source": "untrained", "model": "m", "seed": 0}) == {}


@pytest.mark.parametrize("catalog", ["encoders", "machines"])
def test_every_tag_is_one_that_its_library_knows(catalog):
    import open_clip
    import timm
    from torchvision.models import get_model_weights

    plan = spec.load({"preset": "paper"}, planning=True)
    for name in plan.catalogs[catalog]:
        entry = plan.entry(catalog, name)
        if not pretrained.is_fetched(entry):
            continue
        if entry.get("builder") == "timm":
            assert timm.get_pretrained_cfg(f"{entry['architecture']}.{entry['weights']}"), name
        elif entry.get("builder") == "torchvision":
            assert entry["weights"] in get_model_weights(entry["architecture"]).__members__, name
        else:
            assert (entry["model"], entry["pretrained"]) in open_clip.list_pretrained(), name
    assert pretrained.hub_folder().name == "hub"
