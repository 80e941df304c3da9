"""ML-CLIPSim: its formula against NumPy, and what anything called a similarity must keep to."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from mlclipsim.encoders import Encoder, build_clip
from mlclipsim.images import to_tensor
from mlclipsim.metric import MLCLIPSim, cosine, layer_name, ml_clip_sim

TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
VIT = {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 64}
RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 64}
LAYERS = {"vit": 3, "resnet": 5}


def tiny(family: str) -> Encoder:
    """A random tower small enough for tests, the same one every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_clip(
            {"embed_dim": 16, "vision_cfg": {"vit": VIT, "resnet": RESNET}[family], "text_cfg": TEXT}
        )
    for (
        parameter
    ) in model.visual.parameters():  # ModifiedResNet starts its last norms at zero: blocks do nothing
        if not parameter.any():
            torch.nn.init.constant_(parameter, 0.5)
    return Encoder(model.visual, name=f"tiny-{family}")


@pytest.fixture(scope="module", params=["vit", "resnet"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return tiny(request.param)


@pytest.fixture(scope="module")
def vit() -> Encoder:
    return tiny("vit")


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Three smooth 64-px images, and the same with noise of growing strength."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] / 64
    waves = [np.sin(6 * (x * a + y * b + c)) / 2 + 0.5 for a, b, c in rng.uniform(0.3, 2, (9, 3))]
    reference = torch.tensor(np.stack(waves).reshape(3, 3, 64, 64), dtype=torch.float32)
    noise = torch.tensor(rng.normal(size=(3, 3, 64, 64)), dtype=torch.float32)
    return reference, (reference + noise * torch.tensor([0.02, 0.1, 0.4]).view(3, 1, 1, 1)).clamp(0, 1)


def by_hand(encoder: Encoder, reference: torch.Tensor, distorted: torch.Tensor) -> np.ndarray:
    """[s_1 .. s_L, s_g] with hooks and NumPy: no forward_intermediates, no code of the metric."""

    def features(images: torch.Tensor) -> list[np.ndarray]:
        maps: list[np.ndarray] = []
        visual = encoder.visual
        if encoder.family == "vit":
            blocks, drop_class = list(visual.transformer.resblocks), 1
        else:
            blocks, drop_class = [visual.avgpool, *(getattr(visual, f"layer{i}") for i in range(1, 5))], 0

        def keep(_module: object, _inputs: object, output: torch.Tensor) -> None:
            if drop_class:
                maps.append(output[:, 1:].double().numpy())  # (B, P, D)
            else:
                maps.append(output.flatten(2).transpose(1, 2).double().numpy())

        hooks = [block.register_forward_hook(keep) for block in blocks]
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)  # Radford et al. 2021
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
        with torch.no_grad():
            embedding = visual((images - mean) / std)
        for hook in hooks:
            hook.remove()
        return [*maps, embedding.double().numpy()[:, None]]

    columns = []
    for a, b in zip(features(reference), features(distorted), strict=True):
        norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        columns.append(((a * b).sum(-1) / norms).mean(1))
    return np.stack(columns, axis=1)


def test_formula_against_numpy(encoder: Encoder, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    expected = by_hand(encoder, *pair)
    assert expected.shape == (3, LAYERS[encoder.family] + 1)
    weights = {layer_name(i + 1): float(i + 1) for i in range(encoder.n_layers)} | {"global": 2.5}
    metric = MLCLIPSim(encoder, weights=weights)
    got = metric.per_layer(reference=pair[0], distorted=pair[1])
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
    w = np.array(list(weights.values())) / sum(weights.values())
    np.testing.assert_allclose(metric.score(reference=pair[0], distorted=pair[1]), expected @ w, atol=1e-5)
    np.testing.assert_allclose(list(metric.weights.values()), w, atol=1e-6)


def test_more_noise_is_less_similar(encoder: Encoder, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    image = pair[0][:1].expand(3, -1, -1, -1)
    noise = torch.tensor(np.random.default_rng(1).normal(size=(1, 3, 64, 64)), dtype=torch.float32)
    distorted = (image + noise * torch.tensor([0.02, 0.1, 0.4]).view(3, 1, 1, 1)).clamp(0, 1)
    score = MLCLIPSim(encoder).score(reference=image, distorted=distorted)
    assert score[0] > score[1] > score[2]


def test_identity_symmetry_bounds(encoder: Encoder, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    metric = MLCLIPSim(encoder)
    x, y = pair
    per_layer = metric.per_layer(reference=x, distorted=x)
    assert torch.equal(per_layer, torch.ones_like(per_layer))
    forward = metric.per_layer(reference=x, distorted=y)
    torch.testing.assert_close(forward, metric.per_layer(reference=y, distorted=x), atol=1e-6, rtol=0)
    assert (forward <= 1).all()
    assert (forward >= -1).all()
    assert (metric.score(reference=x, distorted=y) < 1).all()
    assert metric.higher_is_better
    assert metric.is_differentiable


def test_zero_tokens_are_alike() -> None:
    """Two zero tokens are the same token; a zero and another one share nothing."""
    zero, one = torch.zeros(4), torch.ones(4)
    assert cosine(zero, zero) == 1
    assert cosine(one, one) == 1
    assert abs(cosine(zero, one)) < 1e-4
    torch.testing.assert_close(cosine(one, torch.tensor([1.0, 1, 0, 0])), torch.tensor(2**-0.5))


def test_loss_is_one_minus_score(encoder: Encoder, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    metric = MLCLIPSim(encoder)
    x, y = pair[0], pair[1].clone().requires_grad_()
    score = metric.score(reference=x, distorted=y)
    assert not score.requires_grad
    loss = metric.loss(reference=x, distorted=y, reduction="none")
    assert loss.requires_grad
    torch.testing.assert_close(loss.detach(), 1 - score, atol=1e-5, rtol=0)
    metric.loss(reference=x, distorted=y).backward()
    assert y.grad is not None
    assert y.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in metric.parameters())


def test_a_gradient_step_helps(vit: Encoder, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    metric = MLCLIPSim(vit)
    x, y = pair[0], pair[1].clone().requires_grad_()
    before = metric.loss(reference=x, distorted=y)
    before.backward()
    assert y.grad is not None
    after = metric.loss(reference=x, distorted=(y - 0.1 * y.grad / y.grad.abs().max()).clamp(0, 1))
    assert after < before


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("case", ["equal", "black", "constant", "black on white"])
def test_gradients_are_finite(encoder: Encoder, case: str, autocast: bool) -> None:
    values = {"equal": None, "black": (0.0, 0.0), "constant": (0.5, 0.5), "black on white": (1.0, 0.0)}[case]
    noise = torch.tensor(np.random.default_rng(2).random((1, 3, 64, 64)), dtype=torch.float32)
    x, y = (noise, noise.clone()) if values is None else (torch.full_like(noise, value) for value in values)
    y.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = MLCLIPSim(encoder).loss(reference=x, distorted=y)
    assert loss.dtype == torch.float32
    loss.backward()
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()


def test_cosine_is_float32_under_autocast() -> None:
    a = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cosine(a, a * 1.01), cosine(a, a * 1.01).float())
        half = cosine(a.bfloat16(), a.bfloat16())
    assert half.dtype == torch.float32
    assert torch.equal(half, torch.ones(8))


def test_batch_invariance(encoder: Encoder, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    metric = MLCLIPSim(encoder)
    together = metric.score(reference=pair[0], distorted=pair[1])
    alone = torch.cat(
        [metric.score(reference=x[None], distorted=y[None]) for x, y in zip(*pair, strict=True)]
    )
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert torch.equal(together, metric.score(reference=pair[0], distorted=pair[1]))


def test_encoded_reference_and_one_for_many(
    encoder: Encoder, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    metric = MLCLIPSim(encoder)
    x, y = pair
    torch.testing.assert_close(
        metric.score(reference=metric.encode(x), distorted=y), metric.score(reference=x, distorted=y)
    )
    one = metric.score(reference=metric.encode(x[:1]), distorted=y)
    many = metric.score(reference=x[:1].expand(3, -1, -1, -1), distorted=y)
    torch.testing.assert_close(one, many, atol=1e-6, rtol=0)


def test_functional_equals_module(encoder: Encoder, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = pair
    functional = ml_clip_sim(reference=x, distorted=y, encoder=encoder)
    assert not functional.requires_grad
    torch.testing.assert_close(functional, MLCLIPSim(encoder).score(reference=x, distorted=y))
    with pytest.raises(ValueError, match=r"theta: expected shape"):
        ml_clip_sim(reference=x, distorted=y, encoder=encoder, theta=torch.zeros(2))


def test_keyword_only(vit: Encoder, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    metric = MLCLIPSim(vit)
    for call in (metric.score, metric.loss, metric.per_layer, metric.map, ml_clip_sim):
        with pytest.raises(TypeError, match="positional"):
            call(*pair)


def test_layer_choice(encoder: Encoder, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    everything = MLCLIPSim(encoder).per_layer(reference=pair[0], distorted=pair[1])
    some = MLCLIPSim(encoder, layers=[3, 1])
    assert some.names == ["layer_01", "layer_03", "global"]
    torch.testing.assert_close(
        some.per_layer(reference=pair[0], distorted=pair[1]), everything[:, [0, 2, -1]], atol=1e-6, rtol=0
    )
    local = MLCLIPSim(encoder, layers=[2], use_global=False)
    torch.testing.assert_close(
        local.score(reference=pair[0], distorted=pair[1]), everything[:, 1], atol=1e-6, rtol=0
    )
    whole = MLCLIPSim(encoder, weights="global")
    assert whole.names == ["global"]
    torch.testing.assert_close(
        whole.score(reference=pair[0], distorted=pair[1]), everything[:, -1], atol=1e-6, rtol=0
    )
    with pytest.raises(ValueError, match=r"within 1\.\."):
        MLCLIPSim(encoder, layers=[0])
    with pytest.raises(ValueError, match="at least one"):
        MLCLIPSim(encoder, layers=[], use_global=False)


@pytest.mark.parametrize(("use_global", "expected"), [(True, 3), (False, 2)])
def test_blocks_above_the_last_layer_are_not_computed(use_global: bool, expected: int) -> None:
    for family in ("vit", "resnet"):
        encoder = tiny(family)
        visual = encoder.visual
        blocks = (
            list(visual.transformer.resblocks)
            if family == "vit"
            else [visual.avgpool, visual.layer1, visual.layer2]  # the first three "layers"
        )
        calls: list[int] = []
        for i, block in enumerate(blocks):
            block.register_forward_hook(partial(lambda calls, i, *_: calls.append(i), calls, i))
        metric = MLCLIPSim(encoder, layers=[2], use_global=use_global)
        metric.encode(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        assert len(calls) == expected


def test_bad_images(vit: Encoder, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    metric = MLCLIPSim(vit)
    x, y = pair
    with pytest.raises(ValueError, match=r"distorted: expected values in \[0, 1\].*divide by 255"):
        metric.score(reference=x, distorted=y * 255)
    with pytest.raises(ValueError, match=r"reference: expected values in \[0, 1\]"):
        metric.score(reference=x * 2 - 1, distorted=y)
    with pytest.raises(ValueError, match=r"64x64, distorted 64x48, expected equal sizes"):
        metric.score(reference=x, distorted=y[..., :48])
    with pytest.raises(ValueError, match=r"one reference or as many as distorted images \(3\), got 2"):
        metric.score(reference=x[:2], distorted=y)


def test_uint8_is_taken(vit: Encoder) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    as_bytes = torch.from_numpy(images).permute(0, 3, 1, 2)
    metric = MLCLIPSim(vit)
    assert torch.equal(
        metric.score(reference=as_bytes[:1], distorted=as_bytes[1:]),
        metric.score(reference=to_tensor(images[:1]), distorted=to_tensor(images[1:])),
    )


def test_size_policies(encoder: Encoder) -> None:
    images = torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    x, y = images[:1], (images[:1] * 0.7 + images[1:] * 0.3)
    scores = {}
    for policy in ("resize", "native", "tile"):
        metric = MLCLIPSim(encoder, size_policy=policy)
        scores[policy] = metric.score(reference=x, distorted=y).item()
        assert metric.score(reference=x, distorted=x).item() == pytest.approx(1, abs=1e-6)
    assert len(set(scores.values())) == 3
    small = MLCLIPSim(encoder, size_policy="resize")
    tiles = [(top, left) for top in (0, 64) for left in (0, 64, 128)]
    cut = [[z[..., i : i + 64, j : j + 64] for i, j in tiles] for z in (x, y)]
    mean = small.score(reference=torch.cat(cut[0]), distorted=torch.cat(cut[1])).mean().item()
    assert scores["tile"] == pytest.approx(mean, abs=1e-6)
    odd = MLCLIPSim(encoder, size_policy="native")
    a = odd.score(reference=x[..., 2:-3, 1:-2], distorted=y[..., 2:-3, 1:-2])
    assert torch.isfinite(a).all()
    with pytest.raises(ValueError, match="tile: expected at least 64x64"):
        MLCLIPSim(encoder, size_policy="tile").encode(x[..., :32, :32])
    with pytest.raises(ValueError, match="size_policy: expected one of"):
        MLCLIPSim(encoder, size_policy="squash")  # type: ignore[arg-type]


def test_map(encoder: Encoder, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    metric = MLCLIPSim(encoder)
    x = pair[0][:1]
    y = x.clone()
    y[..., :32, :32] = 1 - y[..., :32, :32]
    where = metric.map(reference=x, distorted=y, resize=False)
    side = {"vit": 8, "resnet": 16}[encoder.family]
    assert where.shape == (1, side, side)
    assert where[0, : side // 2, : side // 2].mean() < where[0, side // 2 :, side // 2 :].mean()
    if encoder.family == "vit":
        local = MLCLIPSim(encoder, use_global=False)
        torch.testing.assert_close(where.mean(), local.score(reference=x, distorted=y)[0], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="a map needs layers"):
        MLCLIPSim(encoder, weights="global").map(reference=x, distorted=y)


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


def test_wrong_weights(tmp_path, vit: Encoder) -> None:
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


def test_import_is_light() -> None:
    """A user who wants the metric alone pays for torch and open_clip, not for the workflow."""
    heavy = ["pandas", "pyarrow", "snakemake", "matplotlib", "compressai", "sklearn", "skimage", "piq"]
    code = f"import sys, mlclipsim.metric; print([m for m in {heavy!r} if m in sys.modules])"
    lazy = "import mlclipsim, sys; assert 'torch' not in sys.modules; mlclipsim.__version__; "
    result = subprocess.run([sys.executable, "-c", lazy + code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
