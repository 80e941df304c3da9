"""The similarities step: the metric's own numbers, in order, each reference encoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mlclipsim import similarities
from mlclipsim.artifacts import ArtifactError, read_table, write_table
from mlclipsim.comparison import Comparison
from mlclipsim.images import encode_image, to_tensor
from mlclipsim.metric import MLCLIPSim

ENTRY = {"source": "untrained", "model": "tiny", "family": "vit", "seed": 3}
CONFIG = """{"embed_dim": 16,
 "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32},
 "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}}"""


@pytest.fixture(autouse=True)
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny encoder in the place of those that ship."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.json").write_text(CONFIG)
    monkeypatch.setattr("mlclipsim.encoders.PACKAGED", tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)  # global: not a test's to change


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    """Four references and five images of each, by id."""
    rng = np.random.default_rng(0)
    ids = [f"r{i}" for i in range(4)]
    names = [*ids, *(f"{r}.{k}" for r in ids for k in range(5))]
    return {name: rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for name in names}


def tables(
    folder: Path, pictures: dict[str, np.ndarray], order: list[str], ids: list[str]
) -> dict[str, Path]:
    references = pd.DataFrame(
        {
            "reference_id": ids,
            "photograph": ids,
            "role": "pcmp_train",
            "label": 0,
            "caption": "",
            "image": [encode_image(pictures[i]) for i in ids],
        }
    )
    images = pd.DataFrame(
        {
            "image_id": order,
            "reference_id": [name.split(".")[0] for name in order],
            "role": "pcmp_train",
            "target_db": 25.0,
            "family": "noise",
            "photometric": False,
            "strength": 0.5,
            "psnr_db": 25.0,
            "evaluations": 1,
            "image": [encode_image(pictures[i]) for i in order],
        }
    )
    paths = {"references": folder / "references.parquet", "images": folder / "images.parquet"}
    write_table(paths["references"], references, "references")
    write_table(paths["images"], images, "images")
    return paths


def run(folder: Path, inputs: dict[str, Path], **changes: Any) -> pd.DataFrame:
    spec = {"encoder": {"name": "tiny-untrained", "entry": ENTRY}, "batch_size": 3, "threads": 1} | changes
    similarities.build(spec, inputs, {"similarities": folder / "similarities.parquet"})
    return read_table(folder / "similarities.parquet", "similarities")


def test_terms_by_channel_come_from_the_same_pass(tmp_path: Path, pictures: dict[str, np.ndarray]) -> None:
    order = [name for name in pictures if "." in name]
    inputs = tables(tmp_path, pictures, order, ["r0", "r1", "r2", "r3"])
    alone = run(tmp_path, inputs)
    outputs = {name: tmp_path / f"both_{name}.parquet" for name in ("similarities", "products")}
    spec = {"encoder": {"name": "tiny-untrained", "entry": ENTRY}, "batch_size": 3, "threads": 1}
    similarities.build(spec, inputs, outputs)
    assert outputs["similarities"].read_bytes() == (tmp_path / "similarities.parquet").read_bytes()
    products = read_table(outputs["products"], "products")
    assert list(products.columns) == list(alone.columns)
    assert list(products["image_id"]) == order
    for layer, size in (("layer_01", 32), ("layer_02", 32), ("global", 16)):
        terms = np.stack(products[layer].to_list())
        assert terms.shape == (len(order), size)
        assert terms.dtype == np.float16
        np.testing.assert_allclose(terms.astype(float).sum(axis=1), alone[layer], atol=1e-3)


def test_rows_are_the_metric_of_each_pair(tmp_path: Path, pictures: dict[str, np.ndarray]) -> None:
    order = [name for name in pictures if "." in name]
    table = run(tmp_path, tables(tmp_path, pictures, order, ["r0", "r1", "r2", "r3"]))
    assert list(table.columns) == ["image_id", "reference_id", "layer_01", "layer_02", "global"]
    assert list(table["image_id"]) == order
    metric = MLCLIPSim(similarities.load_entry("tiny-untrained", ENTRY))
    for row in table.sample(6, random_state=0).itertuples(index=False):
        expected = metric.per_layer(
            reference=to_tensor(pictures[row.reference_id])[None],
            distorted=to_tensor(pictures[row.image_id])[None],
        )
        np.testing.assert_allclose([row.layer_01, row.layer_02, row[-1]], expected[0], atol=1e-6)


def test_bfloat16_rounds_the_tower_and_nothing_else(tmp_path: Path, pictures: dict[str, np.ndarray]) -> None:
    order = [name for name in pictures if "." in name]
    inputs = tables(tmp_path, pictures, order, ["r0", "r1", "r2", "r3"])
    numbers = ["layer_01", "layer_02", "global"]
    single, half = run(tmp_path, inputs)[numbers], run(tmp_path, inputs, precision="bfloat16")[numbers]
    difference = (single - half).abs().to_numpy()
    assert 1e-6 < difference.max() < 1e-2
    # Not rounded to eight bits on the way: of numbers near 1 those would be multiples of 1/256.
    assert np.abs(half * 256 - np.round(half * 256)).to_numpy().max() > 0.01


def test_each_reference_is_encoded_once(
    tmp_path: Path, pictures: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    original = Comparison.encode
    monkeypatch.setattr(Comparison, "encode", lambda self, x: encoded.append(len(x)) or original(self, x))
    order = [name for name in pictures if "." in name]
    run(tmp_path, tables(tmp_path, pictures, order, ["r3", "r1", "r0", "r2"]))
    assert encoded == [1, 3, 2] * 4  # a reference, and its five images in batches of three


def test_any_order_and_batch_and_the_same_bytes(tmp_path: Path, pictures: dict[str, np.ndarray]) -> None:
    order = [name for name in pictures if "." in name]
    inputs = tables(tmp_path, pictures, order, ["r0", "r1", "r2", "r3"])
    first = run(tmp_path, inputs)
    written = (tmp_path / "similarities.parquet").read_bytes()
    run(tmp_path, inputs)
    assert (tmp_path / "similarities.parquet").read_bytes() == written
    one_by_one = run(tmp_path, inputs, batch_size=1)
    shuffled = list(np.random.default_rng(1).permutation(order))
    mixed = run(tmp_path, tables(tmp_path, pictures, shuffled, ["r2", "r0", "r3", "r1"]))
    assert list(mixed["image_id"]) == shuffled
    numbers = ["layer_01", "layer_02", "global"]
    for other in (one_by_one, mixed.set_index("image_id").loc[order].reset_index()):
        np.testing.assert_allclose(first[numbers], other[numbers], atol=1e-6)


def test_missing_reference(tmp_path: Path, pictures: dict[str, np.ndarray]) -> None:
    order = [name for name in pictures if "." in name]
    inputs = tables(tmp_path, pictures, order, ["r0", "r1", "r3"])
    with pytest.raises(ArtifactError, match="lacks the reference r2"):
        run(tmp_path, inputs)
    assert not (tmp_path / "similarities.parquet").exists()


def test_sources(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="source 'cloud', expected package, open_clip"):
        similarities.load_entry("x", {"source": "cloud", "model": "tiny"})
    with pytest.raises(ValueError, match="expected the checkpoint that the step lit_encoder makes"):
        similarities.load_entry("x", {"source": "lit", "model": "tiny"})


def test_a_checkpoint_is_called_as_its_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted weights name the entry, whatever the model behind it is called."""
    loaded: list[dict] = []

    real = similarities.load_encoder
    monkeypatch.setattr(
        similarities, "load_encoder", lambda model, **a: loaded.append(a) or real(model, seed=0)
    )
    entry = {"source": "checkpoint", "model": ENTRY["model"], "checkpoint": "mine.pt", "sha256": "0" * 64}
    assert similarities.load_entry("mine", entry).name == "mine"
    assert loaded == [{"checkpoint": Path("mine.pt"), "sha256": "0" * 64}]
