"""ML-CLIPSim: its formula against NumPy, and what anything called a similarity must keep to."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlclipsim.encoders import Encoder
from mlclipsim.images import read_image, resize, to_tensor
from mlclipsim.metric import MLCLIPSim, cosine, layer_name, ml_clip_sim

Tiny = Callable[[str], Encoder]
LAYERS = {"vit": 3, "resnet": 5}


@pytest.fixture(scope="module", params=["vit", "resnet"])
def encoder(request: pytest.FixtureRequest, tiny: Tiny) -> Encoder:
    return tiny(request.param)


@pytest.fixture(scope="module")
def vit(tiny: Tiny) -> Encoder:
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
        with pytest.raises(TypeError, match=r"got \d by position; write \w+\(reference=x, distorted=y\)"):
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
def test_blocks_above_the_last_layer_are_not_computed(tiny: Tiny, use_global: bool, expected: int) -> None:
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


def test_import_is_light() -> None:
    """A user who wants the metric alone pays for torch and open_clip, not for the workflow."""
    heavy = ["pandas", "pyarrow", "snakemake", "matplotlib", "compressai", "sklearn", "skimage", "piq"]
    heavy += ["torchmetrics", "pyiqa"]
    code = f"import sys, mlclipsim.metric; print([m for m in {heavy!r} if m in sys.modules])"
    lazy = "import mlclipsim, sys; assert 'torch' not in sys.modules; mlclipsim.__version__; "
    result = subprocess.run([sys.executable, "-c", lazy + code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def scene_clip() -> MLCLIPSim:
    return MLCLIPSim("scene-clip", weights="uniform")


def test_works_at_once_without_network(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("went to the network"))
    metric = MLCLIPSim(encoder="scene-clip")
    scores = metric.score(reference=pair[0], distorted=pair[1])
    assert 1 > scores[0] > scores[1] > scores[2]


def test_names_what_it_is_made_of(scene_clip: MLCLIPSim) -> None:
    """Enough to tell any two metrics apart, in plain strings that can stand beside a score."""
    assert scene_clip.identity == {
        "metric": "ml_clip_sim",
        "encoder": "scene-clip",
        "pretrained": scene_clip.encoder.pretrained,
        "weights": "uniform",
        "layers": "1 2 3 4 5 6 global",
        "size_policy": "resize",
    }
    assert scene_clip.encoder.pretrained.startswith("sha256:")
    for value in scene_clip.identity.values():
        assert repr(value) in repr(scene_clip)
    others = [
        MLCLIPSim(scene_clip.encoder, weights="global"),
        MLCLIPSim(scene_clip.encoder, layers=[1], use_global=False),
        MLCLIPSim(scene_clip.encoder, size_policy="native"),
        MLCLIPSim("scene-clip-untrained"),
    ]
    assert len({tuple(metric.identity.values()) for metric in [scene_clip, *others]}) == 5


def test_state_dict_holds_the_weights_alone(encoder: Encoder) -> None:
    names = [*(layer_name(i + 1) for i in range(encoder.n_layers)), "global"]
    metric = MLCLIPSim(encoder, weights={name: i + 1.0 for i, name in enumerate(names)})
    other = copy.deepcopy(MLCLIPSim(encoder))
    assert list(metric.state_dict()) == ["theta"]
    assert not other.load_state_dict(metric.state_dict()).missing_keys
    assert other.weights == metric.weights
    tower = next(other.encoder.parameters())
    assert torch.equal(tower, next(encoder.parameters()))
    # also inside a larger model, and with the encoder's weights if somebody saved them
    model = nn.ModuleDict({"codec": nn.Conv2d(3, 3, 1), "quality": metric})
    assert set(model.state_dict()) == {"codec.weight", "codec.bias", "quality.theta"}
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    whole = metric.state_dict() | metric.encoder.state_dict(prefix="encoder.")
    other.load_state_dict({key: value * 2 for key, value in whole.items()})
    assert torch.equal(next(other.encoder.parameters()), 2 * next(encoder.parameters()))
    with pytest.raises(RuntimeError, match=r"Missing key.*theta"):
        other.load_state_dict({})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(metric.state_dict() | {"theta_2": metric.theta})


def test_against_a_fixed_reference(encoder: Encoder, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = pair
    for metric in (MLCLIPSim(encoder), MLCLIPSim(encoder, layers=[1], use_global=False)):
        against = metric.against(x)
        torch.testing.assert_close(against(y), metric.score(reference=x, distorted=y), atol=1e-6, rtol=0)
    decoder = nn.Conv2d(3, 3, 1)
    model = nn.Sequential(decoder, nn.Sigmoid(), against)
    (1 - model(y)).mean().backward()
    assert decoder.weight.grad is not None
    assert decoder.weight.grad.abs().sum() > 0
    assert set(model.state_dict()) == {"0.weight", "0.bias", "2.metric.theta"}
    moved = copy.deepcopy(against).double()
    torch.testing.assert_close(moved(y), against(y).double(), atol=1e-5, rtol=0)


def test_moves_to_other_dtypes(tiny: Tiny, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    metric = MLCLIPSim(tiny("vit"))
    expected = metric.score(reference=pair[0], distorted=pair[1])
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 5e-3)):
        score = metric.to(dtype).score(reference=pair[0], distorted=pair[1])
        torch.testing.assert_close(score.float(), expected, atol=tolerance, rtol=0)


@pytest.mark.slow
def test_compiled(scene_clip: MLCLIPSim, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """In one graph, with the gradient; the eager backend traces as the others do and needs no compiler."""
    x, y = pair[0], pair[1].clone().requires_grad_()
    compiled = torch.compile(scene_clip, backend="eager", fullgraph=True)
    score = compiled(reference=x, distorted=y)
    torch.testing.assert_close(score.detach(), scene_clip.score(reference=x, distorted=pair[1]))
    score.sum().backward()
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()


def test_inside_distributed_data_parallel(
    tmp_path: Path, vit: Encoder, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """As part of a model, whose frozen encoder DDP must leave alone; one process stands for many."""

    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.codec, self.metric = nn.Conv2d(3, 3, 1), MLCLIPSim(vit)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.metric.loss(reference=images, distorted=self.codec(images).sigmoid())

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        model = nn.parallel.DistributedDataParallel(Trained())
        model(pair[0]).backward()
        assert model.module.codec.weight.grad.abs().sum() > 0
        assert not any(p.requires_grad for p in model.module.metric.parameters())
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_score(
    scene_clip: MLCLIPSim, encoder: Encoder, dtype: torch.dtype, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    for metric in (scene_clip, MLCLIPSim(encoder)):
        expected = metric.score(reference=pair[0], distorted=pair[1])
        with torch.autocast("cpu", dtype=dtype):
            score = metric.score(reference=pair[0], distorted=pair[1])
            same = metric.score(reference=pair[0], distorted=pair[0])
        torch.testing.assert_close(score, expected, atol=2e-3, rtol=0)
        assert torch.equal(same, torch.ones(3))
        halves = metric.score(reference=pair[0].to(dtype), distorted=pair[1].to(dtype))
        torch.testing.assert_close(halves, expected, atol=2e-3, rtol=0)


def test_gradcheck(tiny: Tiny) -> None:
    """Analytic against numerical gradients in float64, through the resize too."""
    metric = MLCLIPSim(tiny("vit")).double()
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 1, 3, 16, 18, generator=generator, dtype=torch.float64) * 0.8 + 0.1

    def loss(y: torch.Tensor) -> torch.Tensor:
        return metric.loss(reference=x, distorted=y)

    assert torch.autograd.gradcheck(loss, y.requires_grad_(), fast_mode=True, atol=1e-6)


def test_descent_from_noise(scene_clip: MLCLIPSim, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Fifty steps of Adam on the pixels of a noise image raise the score: the loss is one to train with."""
    reference = pair[0][:1]
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimiser = torch.optim.Adam([images], lr=0.05)
    encoded = scene_clip.encode(reference)
    scores = []
    for _ in range(50):
        optimiser.zero_grad()
        loss = scene_clip.loss(reference=encoded, distorted=images.clamp(0, 1))
        loss.backward()
        optimiser.step()
        scores.append(1 - loss.item())
    assert scores[-1] > scores[0] + 0.2
    assert np.mean(np.diff(scores[:40:4]) > 0) > 0.8


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "a part of a larger one": lambda x: nn.functional.pad(x, (3, 2, 1, 4))[..., 1:-4, 3:-2],
    "turned": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every other": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
}


@settings(deadline=None, max_examples=15)
@given(
    n=st.integers(1, 3),
    height=st.integers(16, 90),
    width=st.integers(16, 90),
    dtype=st.sampled_from([torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    low=st.sampled_from([0.0, 0.5, 1.0]),
    spread=st.sampled_from([0.0, 1e-3, 0.5]),
    layout=st.sampled_from(sorted(LAYOUTS)),
    policy=st.sampled_from(["resize", "native"]),
    seed=st.integers(0, 99),
)
def test_any_images(
    encoder: Encoder,
    n: int,
    height: int,
    width: int,
    dtype: torch.dtype,
    low: float,
    spread: float,
    layout: str,
    policy: str,
    seed: int,
) -> None:
    """Whatever images come, a score is finite, at most 1, symmetric, 1 at identity, and blind to layout."""
    height, width = max(height, encoder.stride), max(width, encoder.stride)
    generator = torch.Generator().manual_seed(seed)
    drawn = (low + spread * torch.rand(2, n, 3, height, width, generator=generator)).clamp(0, 1)
    drawn = (drawn * 255).round().byte() if dtype == torch.uint8 else drawn.to(dtype)
    x, y = (LAYOUTS[layout](part) for part in drawn)
    metric = MLCLIPSim(encoder, size_policy=policy)  # type: ignore[arg-type]
    score = metric.score(reference=x, distorted=y)
    assert score.shape == (n,)
    assert torch.isfinite(score).all()
    assert (score <= 1).all()
    assert (score >= -1).all()
    torch.testing.assert_close(score, metric.score(reference=y, distorted=x), atol=1e-6, rtol=0)
    assert torch.equal(metric.score(reference=x, distorted=x), torch.ones(n))
    plain = metric.score(reference=drawn[0].contiguous(), distorted=drawn[1].contiguous())
    torch.testing.assert_close(score, plain, atol=1e-6, rtol=0)


ASSETS = Path(os.environ.get("MLCLIPSIM_ASSETS", "absent"))
needs_assets = pytest.mark.skipif(not (ASSETS / "data").is_dir(), reason="MLCLIPSIM_ASSETS is not set")


@pytest.mark.assets
@needs_assets
def test_tid2013_pairs(scene_clip: MLCLIPSim) -> None:
    """The five pairs of ``metric-oracle``: the three that observers and all metrics call worst or best keep
    their places even with an encoder that never saw a photograph. MOS: I03 0.7, I19 1.7, I08 3.3.
    """
    folder = ASSETS / "data" / "metric-oracle"

    def image(kind: str, name: str) -> torch.Tensor:
        return to_tensor(read_image(folder / kind / f"{name}.png"))[None]

    scores = {}
    for name in ("I03", "I04", "I06", "I08", "I19"):
        x, y = image("ref", name), image("dist", name)
        score = scene_clip.score(reference=x, distorted=y)
        torch.testing.assert_close(score, scene_clip.score(reference=y, distorted=x), atol=1e-6, rtol=0)
        assert scene_clip.score(reference=x, distorted=x).item() == 1
        scores[name] = score.item()
    assert max(scores.values()) < 1
    assert scores["I03"] < scores["I08"]
    assert scores["I19"] < scores["I08"]


@pytest.mark.assets
@needs_assets
@pytest.mark.parametrize("family", ["gaussian_blur", "gaussian_noise", "jpeg"])
def test_photographs_fall_with_strength(scene_clip: MLCLIPSim, family: str) -> None:
    """Kodak photographs at the encoder's size. The score falls with every step of strength on average, and
    with every other on each (one of 64-px JPEG's small steps may go the other way on one image).
    """
    from mlclipsim.distortions import family as by_name

    distortion = by_name(family)
    by_image = []
    for number in (1, 5, 8, 15, 20, 23):
        photograph = to_tensor(read_image(ASSETS / "data" / "kodak" / f"kodim{number:02d}.png"))[None]
        reference = (resize(photograph, 64)[0] * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        field = distortion.draw(reference, np.random.default_rng(number))
        images = [distortion.apply(reference, t, field) for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
        reference_tensor, distorted = to_tensor(reference)[None], to_tensor(np.stack(images))
        by_image.append(scene_clip.score(reference=reference_tensor, distorted=distorted))
    scores = torch.stack(by_image)  # (photographs, strengths)
    assert (scores.mean(0).diff() < 0).all()
    assert (scores[:, ::2].diff(dim=1) < 0).all()
