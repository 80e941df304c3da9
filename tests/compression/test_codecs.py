"""Learned codecs: what decodes is what the encoder saw, what is loaded is what was saved."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mlclipsim.artifacts import ArtifactError, sha256_of
from mlclipsim.compression import codecs
from mlclipsim.compression.bitstream import Bitstream
from mlclipsim.compression.codecs import CompressionModel, LearnedCodec
from mlclipsim.images import to_tensor, to_uint8
from mlclipsim.spec import project_root

Photograph = Callable[[int, int], np.ndarray]
Make = Callable[[str], CompressionModel]
CATALOG = yaml.safe_load((project_root() / "config/catalog/codecs.yaml").read_text(encoding="utf-8"))
PARALLEL = ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean")
SERIAL = ("mbt2018", "cheng2020-anchor")  # autoregressive, so slow
FACTORIZED = "bmshj2018-factorized"


@pytest.mark.parametrize("model", PARALLEL)
@pytest.mark.parametrize("size", [(64, 128), (50, 77)])
def test_decodes_what_the_encoder_saw(
    model: str, size: tuple[int, int], random_codec: Make, photograph: Photograph
) -> None:
    """``forward`` in evaluation mode quantises as ``compress`` does: it is the encoder's side."""
    codec, image = LearnedCodec(random_codec(model)), photograph(*size)
    stream = codec.encode(image)
    below, right = codec.padding(size)
    edge = to_tensor(np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge"))[None]
    with torch.no_grad():
        seen = codec.model(edge)["x_hat"][0, :, : size[0], : size[1]].clamp(0, 1)
    torch.testing.assert_close(codec.reconstruct(stream), seen, rtol=0, atol=0)
    np.testing.assert_array_equal(codec.decode(stream), to_uint8(seen))
    assert codec.decode(stream).std() > 0
    assert codec.encode(image) == stream
    assert stream.size == size
    assert stream.shape == codec.shape(size)
    assert len(stream.strings) == codec.n_strings
    assert stream.bpp == 8 * stream.payload_bytes / (size[0] * size[1])


@pytest.mark.parametrize("model", SERIAL)
def test_autoregressive_decodes_what_the_encoder_saw(
    model: str, random_codec: Make, photograph: Photograph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here ``forward`` rounds otherwise than ``compress``, so the encoder's own latent is looked at."""
    codec, seen = LearnedCodec(random_codec(model)), []
    compress = codec.model._compress_ar

    def watched(y_hat: torch.Tensor, *arguments: Any) -> bytes:
        string = compress(y_hat, *arguments)  # rounds y_hat in place, symbol by symbol
        seen.append(y_hat[..., 2:-2, 2:-2].clone())
        return string

    monkeypatch.setattr(codec.model, "_compress_ar", watched)
    stream = codec.encode(photograph(64, 64))
    with torch.no_grad():
        expected = codec.model.g_s(seen[0])[0].clamp(0, 1)
    torch.testing.assert_close(codec.reconstruct(stream), expected, rtol=0, atol=0)


def test_any_number_of_threads_gives_the_same(random_codec: Make, photograph: Photograph) -> None:
    codec, image = LearnedCodec(random_codec("bmshj2018-hyperprior")), photograph(64, 64)
    stream, threads = codec.encode(image), torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert codec.encode(image) == stream
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("model", PARALLEL)
def test_payload_is_the_entropy_estimate(model: str, random_codec: Make, photograph: Photograph) -> None:
    """Within 2 % and 16 bytes per string, summed over a set."""
    codec = LearnedCodec(random_codec(model))
    images = [photograph(*size) for size in ((64, 64), (128, 64), (100, 77))]
    streams = [codec.encode(image) for image in images]
    payload = sum(stream.payload_bytes for stream in streams)
    estimate = sum(codecs.estimate_bits(codec.model, image) for image in images) / 8
    assert estimate > 100
    assert abs(payload - estimate) <= 0.02 * estimate + 16 * codec.n_strings * len(images)


@pytest.mark.parametrize("model", [*PARALLEL, *SERIAL])
def test_the_entropy_estimate_is_that_of_the_whole_forward(
    model: str, random_codec: Make, photograph: Photograph
) -> None:
    network, image = random_codec(model).eval(), photograph(64, 64)
    estimate = codecs.estimate_bits(network, image)
    with torch.no_grad():
        output = network(to_tensor(image)[None])  # its synthesis is in place again
    assert output["x_hat"].shape == (1, 3, 64, 64)
    assert estimate == sum(-float(p.double().log2().sum()) for p in output["likelihoods"].values())


def test_training_goes_on_after_coding(random_codec: Make, photograph: Photograph) -> None:
    model = random_codec("mbt2018")
    model.train()
    LearnedCodec(model).encode(photograph(64, 64))
    assert model.training
    model(to_tensor(photograph(64, 64))[None])["likelihoods"]["y"].log().mean().backward()
    assert model.context_prediction.weight.grad is not None


def test_saved_weights_are_half_of_it_and_all_that_is_evaluated(
    tmp_path: Path, random_codec: Make, photograph: Photograph
) -> None:
    model, path = random_codec(FACTORIZED), tmp_path / "codec.safetensors"
    codecs.save(model, path)
    stored = load_file(path)
    assert set(stored) == {name for name, _ in model.named_parameters()}
    assert {value.dtype for value in stored.values()} == {torch.float16}
    entry = {"model": FACTORIZED, "channels": [12, 16], "points": {"q1": {"lambda": 0.0018}}}
    state = torch.random.get_rng_state()
    loaded = codecs.load(entry, "q1", path)
    assert torch.equal(torch.random.get_rng_state(), state)
    codecs.save(loaded, tmp_path / "again.safetensors")
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    codec = LearnedCodec(loaded)
    assert codec.fingerprint == LearnedCodec(codecs.load(entry, "q1", path)).fingerprint
    assert codec.fingerprint != LearnedCodec(model).fingerprint
    assert codec.decode(codec.encode(photograph(64, 64))).shape == (64, 64, 3)
    model.g_a[0].weight.data[0] = 1e6
    with pytest.raises(ValueError, match=r"got more or NaN in g_a\.0\.weight"):
        codecs.save(model, path)


def test_tables_are_the_likelihoods_in_float64(random_codec: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another processor's sigmoid differs in the last bit of its float; the tables must not."""
    model = random_codec(FACTORIZED)
    bottleneck = model.entropy_bottleneck
    tables = bottleneck._quantized_cdf.clone()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    samples = torch.arange(-10.0, 11.0).expand(16, 1, -1)  # the table's range, of quantiles at -10 and 10
    with torch.no_grad():
        likelihoods = bottleneck._likelihood(samples)[0][:, 0]
    torch.testing.assert_close(tables.diff(dim=1)[:, :21] / 2**16, likelihoods, rtol=0, atol=2e-4)

    sigmoid = torch.sigmoid

    def another(values: torch.Tensor) -> torch.Tensor:
        return sigmoid(values) * (1 + 2 * torch.finfo(values.dtype).eps)

    monkeypatch.setattr(torch, "sigmoid", another)
    codecs.update_tables(model)
    torch.testing.assert_close(bottleneck._quantized_cdf, tables, rtol=0, atol=0)


def test_checkpoints_of_compressai_keep_their_tables(tmp_path: Path, random_codec: Make) -> None:
    model = random_codec("bmshj2018-hyperprior")
    state = model.state_dict()
    state["entropy_bottleneck._quantized_cdf"] = state["entropy_bottleneck._quantized_cdf"] + 1
    names = {
        "matrices.": "_matrix",
        "biases.": "_bias",
        "factors.": "_factor",
    }  # as in CompressAI's own files
    old = {re.sub("|".join(names), lambda m: names[m[0]], key): value for key, value in state.items()}
    assert "entropy_bottleneck._matrix0" in old
    torch.save({"network": old}, tmp_path / "checkpoint.pth.tar")
    digest = sha256_of(tmp_path / "checkpoint.pth.tar")
    point = {"lambda": 0.01, "weights": str(tmp_path / "checkpoint.pth.tar"), "sha256": digest}
    entry = {"model": "bmshj2018-hyperprior", "channels": [8, 12], "points": {"q3": point}}
    loaded = codecs.load(entry, "q3")
    for name, value in state.items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)
    point["sha256"] = "0" * 64
    with pytest.raises(ArtifactError, match=f"expected sha256 0{{64}}, got {digest}"):
        codecs.load(entry, "q3")


def test_refuses_weights_that_do_not_fit(tmp_path: Path, random_codec: Make) -> None:
    entry = {"model": FACTORIZED, "channels": [12, 16], "points": {"q1": {"lambda": 0.0018}}}
    path = tmp_path / "codec.safetensors"
    with pytest.raises(ArtifactError, match="expected the weights of bmshj2018-factorized q1, found none"):
        codecs.load(entry, "q1", path)
    codecs.save(random_codec(FACTORIZED), path)
    with pytest.raises(ArtifactError, match="no weights of bmshj2018-factorized q1"):
        codecs.load(entry | {"channels": [12, 20]}, "q1", path)
    with pytest.raises(ValueError, match="point 'q2' is unknown; expected one of q1"):
        codecs.load(entry, "q2", path)
    stored = load_file(path)
    del stored["g_s.6.bias"]
    save_file(stored, path)
    with pytest.raises(ArtifactError, match="no weights of bmshj2018-factorized q1"):
        codecs.load(entry, "q1", path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match="no weights of bmshj2018-factorized q1"):
        codecs.load(entry, "q1", path)


def test_refuses_models_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="model 'vvc' is unknown; expected one of bmshj2018-factorized"):
        codecs.build("vvc", (8, 12))
    with pytest.raises(ValueError, match=r"cheng2020-anchor: expected channels \[N\], got \[8, 12\]"):
        codecs.build("cheng2020-anchor", (8, 12))
    with pytest.raises(ValueError, match=r"got none; call update_tables\(model\)"):
        LearnedCodec(codecs.build(FACTORIZED, (8, 12)))


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if "pretrained" in entry])
def test_catalog_names_compressais_own_networks(name: str, tmp_path: Path, monkeypatch) -> None:
    """Each point has a pretrained file of CompressAI's, the lambda of its training, and a known digest."""
    from compressai.zoo.image import cfgs

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    lambdas = dict(enumerate((0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800), start=1))
    entry = CATALOG[name]
    assert entry["model"] == name
    assert {int(point[1:]): settings["lambda"] for point, settings in entry["points"].items()} == {
        quality: lambdas[quality] for quality in cfgs[name]
    }
    for point in entry["points"]:
        path, digest = codecs.weights_file(entry, point)
        assert path.parent == tmp_path / "checkpoints"
        assert f"-{point[1:]}-{digest}.pth.tar" in path.name
        with pytest.raises(ArtifactError, match="found none; fetch or train them"):
            codecs.load(entry, point)


def test_a_pretrained_file_is_believed_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    entry = CATALOG[FACTORIZED]
    path, _ = codecs.weights_file(entry, "q1")
    assert path == tmp_path / "checkpoints" / "bmshj2018-factorized-prior-1-446d5c7f.pth.tar"
    assert codecs.address(entry, "q1").endswith(f"/{path.name}")
    path.parent.mkdir()
    network = codecs.build(FACTORIZED, (128, 192))
    codecs.update_tables(network)
    torch.save(network.state_dict(), path)
    with pytest.raises(ArtifactError, match="expected sha256 446d5c7f, got"):
        codecs.load(entry, "q1")
    loaded = codecs.load(entry, "q1", path)  # a file of one's own is what one says it is
    assert (loaded.N, loaded.M) == (128, 192)


def test_says_which_points_lack_weights_or_channels(tmp_path: Path) -> None:
    points = {"q9": {"lambda": 0.3}}
    with pytest.raises(ValueError, match="q9: expected weights, since CompressAI has none for mse"):
        codecs.load({"model": FACTORIZED, "pretrained": "mse", "points": points}, "q9")
    (tmp_path / "w.safetensors").touch()
    with pytest.raises(ValueError, match="q9: expected channels, since CompressAI has no such network"):
        codecs.load({"model": FACTORIZED, "points": points}, "q9", tmp_path / "w.safetensors")
    assert codecs.address({"model": FACTORIZED, "pretrained": "mse", "points": points}, "q9") is None


@pytest.mark.parametrize("model", ["bmshj2018-factorized", "bmshj2018-hyperprior"])
def test_a_forward_pass_takes_images_of_any_size(
    random_codec: Make, photograph: Photograph, model: str
) -> None:
    """The reconstruction is what padding by hand gives, cut back; whole multiples are left as they are."""
    network, images = random_codec(model), to_tensor(photograph(72, 96))[None]
    step = codecs.stride(network)
    rows, columns = -72 % step, -96 % step
    padded = torch.nn.functional.pad(images, (0, columns, 0, rows), mode="replicate")
    with torch.no_grad():
        output, by_hand = codecs.forward(network, images), network(padded)
    assert output["x_hat"].shape == images.shape
    assert torch.equal(output["x_hat"], by_hand["x_hat"][..., :72, :96])
    assert all(torch.equal(output["likelihoods"][k], v) for k, v in by_hand["likelihoods"].items())


@pytest.fixture(scope="module", params=["bmshj2018-factorized", "bmshj2018-hyperprior"])
def coded(request, random_codec: Make, photograph: Photograph) -> tuple[LearnedCodec, Bitstream]:
    codec = LearnedCodec(random_codec(request.param))
    return codec, codec.encode(photograph(64, 48))


@settings(max_examples=25, deadline=None)
@given(strings=st.lists(st.binary(max_size=200), min_size=2, max_size=2), cut=st.integers(0, 300))
def test_damaged_strings_decode_to_the_right_size(
    coded: tuple[LearnedCodec, Bitstream], strings: list[bytes], cut: int
) -> None:
    codec, stream = coded
    torn = tuple(string[:cut] + other for string, other in zip(stream.strings, strings, strict=False))
    for damaged in (tuple(strings[: codec.n_strings]), torn):
        assert codec.decode(dataclasses.replace(stream, strings=damaged)).shape == (64, 48, 3)


@pytest.mark.parametrize("string", [b"", b"\xff" * 3000, bytes(3000)])
def test_the_worst_strings_decode_to_the_right_size(
    coded: tuple[LearnedCodec, Bitstream], string: bytes
) -> None:
    codec, stream = coded
    damaged = dataclasses.replace(stream, strings=(string,) * codec.n_strings)
    assert codec.decode(damaged).shape == (64, 48, 3)


def test_refuses_streams_of_other_shapes(random_codec: Make, photograph: Photograph) -> None:
    codec = LearnedCodec(random_codec(FACTORIZED))
    stream = codec.encode(photograph(64, 48))
    for wrong in (
        {"strings": stream.strings * 2},
        {"shape": (4, 4)},
        {"size": (64, 64)},
    ):
        with pytest.raises(ValueError, match="decode with the codec that encoded"):
            codec.decode(dataclasses.replace(stream, **wrong))
    with pytest.raises(ValueError, match="expected 1 strings for a latent of 4x3, got 2 for 4x3"):
        codec.decode(Bitstream(stream.strings * 2, (4, 3), (64, 48)))
    with pytest.raises(TypeError, match="expected a uint8 array"):
        codec.encode(photograph(64, 48).astype(np.float32))


def test_moved_weights_come_back_and_what_stayed_is_equal(random_codec: Make, tmp_path: Path) -> None:
    base, other, moved = (tmp_path / f"{name}.safetensors" for name in ("base", "other", "moved"))
    entry = {
        "model": FACTORIZED,
        "channels": [12, 16],
        "points": {"q1": {"weights": str(base)}, "q2": {"weights": str(other)}},
    }
    codecs.save(random_codec(FACTORIZED), base)
    codecs.save(random_codec(FACTORIZED).requires_grad_(False).apply(_halve_biases), other)
    model = codecs.load(entry, "q1")
    start = {name: value.clone() for name, value in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for value in model.g_s.parameters():
        value.data += 0.01 * torch.randn(value.shape, generator=generator)
    codecs.save_moved(model, base, moved)
    again = codecs.load(entry, "q1", moved)
    for name, value in again.named_parameters():
        wanted = model.get_parameter(name)
        if name.startswith("g_s."):
            longest = (wanted - start[name]).abs().max()
            assert (value - wanted).abs().max() <= longest / 127
        else:
            assert torch.equal(value, start[name])
    assert moved.stat().st_size < base.stat().st_size / 3  # of 16 bits, half of the network in 8
    with pytest.raises(ArtifactError, match="from which the trained weights start"):
        codecs.load(entry, "q2", moved)


def _halve_biases(module: torch.nn.Module) -> None:
    if isinstance(module, torch.nn.Conv2d):
        module.bias.data /= 2  # type: ignore[union-attr]
