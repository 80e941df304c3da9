"""Weights, graphs and pictures from strangers: refused in the declared way, within bounded memory."""

from __future__ import annotations

import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from mlclipsim.artifacts import ArtifactError, sha256_of
from mlclipsim.encoders import WeightsError, load_encoder
from mlclipsim.images import MAX_PIXELS, ImageError, decode_image
from mlclipsim.machines import load

sys.path.insert(0, str(Path(__file__).parent / "machines"))
from onnx_bytes import graph, node, tensor

SOUND = save({"weight": torch.ones(4, 4)})


def header(length: int, text: str, body: bytes = b"") -> bytes:
    """A safetensors file as its format has it: eight bytes of length, JSON, tensors."""
    return struct.pack("<Q", length) + text.encode() + body


def tensors(shape: list[int], offsets: list[int], kind: str = "F32") -> bytes:
    text = json.dumps({"weight": {"dtype": kind, "shape": shape, "data_offsets": offsets}})
    return header(len(text), text, bytes(64))


STRANGE = {
    "no bytes": b"",
    "cut in the header": SOUND[:20],
    "cut in the tensors": SOUND[:-8],
    "header of 2^63 bytes": header(2**63, "{}"),
    "header of a terabyte": header(2**40, "{}"),
    "a header that is no JSON": header(4, "{{{{"),
    "deeply nested": header(100_000, '{"a":' * 20_000),
    "a tensor of 2^60 numbers": tensors([2**60], [0, 64]),
    "sizes whose product overflows": tensors([2**32, 2**32, 16], [0, 64]),
    "negative size": tensors([-4, -4], [0, 64]),
    "offsets beyond the end": tensors([4, 4], [0, 2**40]),
    "offsets backwards": tensors([4, 4], [64, 0]),
    "an unknown kind of number": tensors([4, 4], [0, 64], "F31"),
    "a pickle": b"cos\nsystem\n(S'touch canary'\ntR.",
}


@pytest.mark.parametrize("kind", STRANGE)
def test_safetensors_that_lie(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("strange.safetensors")
    path.write_bytes(STRANGE[kind])
    with pytest.raises(WeightsError, match=r"strange\.safetensors"):
        load_encoder("scene-clip", checkpoint=path)
    entry = {
        "task": "classification",
        "builder": "torchvision",
        "architecture": "squeezenet1_1",
        "arguments": {"num_classes": 2},
        "weights": str(path),
        "sha256": sha256_of(path),
        "input_size": 48,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    with pytest.raises(ArtifactError, match=r"strange\.safetensors does not fit the architecture"):
        load("stranger", entry)
    assert not Path("canary").exists()


@pytest.mark.parametrize(
    "metadata",
    [
        "{",
        "[]",
        "{}",
        '{"vision_cfg": 1, "text_cfg": 2}',
        '{"embed_dim": 1000000000, "vision_cfg": {"width": 1000000000}, "text_cfg": {}}',
        '{"embed_dim": 64, "vision_cfg": {"layers": 1000000}, "text_cfg": {}}',
        "[" * 50_000,
    ],
)
def test_a_network_that_its_tensors_could_not_fill_is_not_built(metadata, tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes(save({"weight": torch.ones(4, 4)}, metadata={"open_clip_config": metadata}))
    with pytest.raises(WeightsError, match="expected metadata that describe the network of its tensors"):
        load_encoder("own", checkpoint=path)


def onnx(nodes: list[bytes], *tensors: bytes) -> bytes:
    """A graph of x (N x 3 x 16 x 16) -> y (N x 3)."""
    return graph(nodes, {"x": ["n", 3, 16, 16]}, ["n", 3], list(tensors))


def onnx_entry(path: Path, data: bytes) -> dict:
    path.write_bytes(data)
    return {
        "task": "classification",
        "builder": "onnx",
        "architecture": "a",
        "weights": str(path),
        "sha256": sha256_of(path),
        "input_size": 16,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
    }


POOLED = [node("GlobalAveragePool", ["x"], ["p"]), node("Flatten", ["p"], ["f"])]
SUM = [*POOLED, node("Add", ["f", "w"], ["y"])]


def test_the_graphs_below_are_sound_but_for_what_is_strange(tmp_path):
    weights = np.array([1, 2, 3], "<f4").tobytes()
    machine = load("ours", onnx_entry(tmp_path / "ours.onnx", onnx(SUM, tensor("w", [3], raw=weights))))
    np.testing.assert_allclose(machine(torch.zeros(2, 3, 16, 16)), [[1, 2, 3]] * 2)


@pytest.mark.parametrize(
    "place", ["secret.bin", "../secret.bin", "/{folder}/secret.bin", "./a/../secret.bin"]
)
@pytest.mark.parametrize("here", [True, False])
def test_a_graph_reads_no_other_file(place, here, tmp_path, monkeypatch):
    """Of which nobody knows a sha256, wherever it lies and whatever the working directory."""
    folder = tmp_path / "models"
    (folder / "a").mkdir(parents=True)
    for path in (folder / "secret.bin", tmp_path / "secret.bin"):
        path.write_bytes(bytes(12))
    monkeypatch.chdir(folder if here else tmp_path)
    data = onnx(SUM, tensor("w", [3], outside=place.format(folder=str(folder)[1:])))
    with pytest.raises(ArtifactError, match=r"stranger\.onnx is no ONNX graph that runs here"):
        load("stranger", onnx_entry(folder / "stranger.onnx", data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        onnx(SUM, tensor("w", [3], raw=bytes(12)))[:-9],
        onnx(SUM, tensor("w", [2**40], raw=bytes(12))),
        onnx(SUM, tensor("w", [3], raw=bytes(4))),
        onnx([node("Add", ["f", "a"], ["b"]), node("Add", ["b", "b"], ["a"]), *POOLED]),
        onnx([node("Shell", ["x"], ["y"])]),
        b"\x0a" * 100_000,
    ],
    ids=["empty", "cut", "a tensor that lies", "too few bytes", "cyclic", "unknown operator", "nested"],
)
def test_onnx_graphs_that_lie(data, tmp_path):
    with pytest.raises(ArtifactError, match=r"stranger\.onnx is no ONNX graph that runs here"):
        load("stranger", onnx_entry(tmp_path / "stranger.onnx", data))


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises this much, and which holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 20_000, 2**31 - 1])
def test_a_bomb_is_not_decoded(side):
    assert side**2 > MAX_PIXELS
    with pytest.raises(
        ImageError, match="its header says more than 67 million pixels, the most that is read"
    ):
        decode_image(png(side, side))


def test_a_picture_that_fits_is_none():
    stream = io.BytesIO()
    Image.new("RGB", (4000, 16)).save(stream, "PNG")
    assert decode_image(stream.getvalue()).shape == (16, 4000, 3)


def test_a_stream_that_promises_too_many_pixels_is_not_decoded(tmp_path):
    from mlclipsim.compression import coding
    from mlclipsim.compression.container import Header, pack

    codec = coding.entry_of("scene-factorized")["id"]
    (tmp_path / "bomb").write_bytes(pack(Header(codec, 2, b"abc", (65_535, 65_535)), [bytes(9)]))
    with pytest.raises(ValueError, match=r"bomb: says that it holds 65535x65535 pixels"):
        coding.decompress(tmp_path / "bomb", tmp_path / "out.png")
