"""Frozen towers: tokens of every block, weights verified, every silent mismatch an error."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mlclipsim import encoders
from mlclipsim.encoders import Encoder, WeightsError, build_clip, load_encoder
from mlclipsim.metric import MLCLIPSim

TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
VIT: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 64},
    "text_cfg": TEXT,
}
RESNET: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 64},
    "text_cfg": TEXT,
}
TIMM: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"timm_model_name": "mobilenetv2_035", "timm_proj": "linear", "image_size": 64},
        "text_cfg": TEXT,
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "trunk_kwargs": {"pad_type": "same"},
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three tiny networks in the place of those that ship; `tiny` and `cnn` have weights."""
    (tmp_path / "models").mkdir()
    (tmp_path / "weights").mkdir()
    manifest = {}
    for name, config in {"tiny": VIT, "cnn": RESNET, "bare": VIT}.items():
        (tmp_path / "models" / f"{name}.json").write_text(json.dumps(config))
        if name != "bare":
            path = tmp_path / "weights" / f"{name}.safetensors"
            save_file(model(config, seed=7).half().state_dict(), path)  # float16, as they ship
            manifest[name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (tmp_path / "weights" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(encoders, "PACKAGED", tmp_path)
    return tmp_path


def model(config: dict[str, Any], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_clip(config)


def images(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def tower(config: dict[str, Any]) -> Encoder:
    clip = model(config)
    return Encoder(clip.get_submodule("visual"), name="test")


@pytest.mark.parametrize(
    ("config", "family", "grids", "widths"),
    [
        (VIT, "vit", [8, 8, 8], [32, 32, 32]),
        (RESNET, "resnet", [16, 16, 8, 4, 2], [8, 32, 64, 128, 256]),
        (TIMM, "mobilenetv2", [32, 16, 8, 4, 2], [8, 8, 16, 32, 112]),
    ],
    ids=["vit", "resnet", "timm"],
)
def test_tokens_and_embedding(
    config: dict[str, Any], family: str, grids: list[int], widths: list[int]
) -> None:
    encoder = tower(config)
    tokens, embedding = encoder(images())
    assert encoder.family == family
    assert encoder.n_layers == len(grids) == len(encoder.layers)
    assert [tuple(t.shape) for t in tokens] == [(2, g * g, w) for g, w in zip(grids, widths, strict=True)]
    normalised = (images() - encoder.mean) / encoder.std
    torch.testing.assert_close(embedding, encoder.visual(normalised))  # the tower's own plain forward
    some, none = encoder(images(), layers=[2], embed=False)
    assert none is None
    torch.testing.assert_close(some[0], tokens[1])
    with_embedding, again = encoder(images(), layers=[1])
    torch.testing.assert_close(again, embedding)
    torch.testing.assert_close(with_embedding[0], tokens[0])


def timm_tower(trunk: str, pool: str, size: int, proj: str = "linear", **trunk_kwargs: Any) -> dict[str, Any]:
    vision = {"timm_model_name": trunk, "timm_pool": pool, "timm_proj": proj, "image_size": size}
    return {"model_cfg": VIT | {"vision_cfg": vision}, "trunk_kwargs": trunk_kwargs}


# As the real ones are built: with a table of positions for one size.
ONE_SIZE = {"dynamic_img_size": False}
FAMILIES = {  # timm's own tiny test networks; EVA has none, so the smallest that there is
    "ViT with average pooling (CLIPA)": VIT
    | {"vision_cfg": VIT["vision_cfg"] | {"pool_type": "avg", "no_ln_pre": True}},
    "ViT with an attentional pooler (CoCa)": VIT
    | {"vision_cfg": VIT["vision_cfg"] | {"attentional_pool": True, "output_tokens": True}},
    "ConvNeXt": timm_tower("test_convnext", "avg", 160),
    "EfficientNet": timm_tower("test_efficientnet", "avg", 160),
    "ResNet of timm": timm_tower("test_resnet", "avg", 160),
    "ViT of timm": timm_tower("test_vit", "token", 160, **ONE_SIZE),
    "ViT of timm with registers": timm_tower("test_vit2", "avg", 160, **ONE_SIZE),
    "ViT of timm that takes any size": timm_tower("test_vit", "token", 160),
    "ViT of timm with an attention pool (SigLIP)": timm_tower("test_vit3", "map", 160, "none", **ONE_SIZE),
    "EVA": timm_tower("eva02_tiny_patch14_224", "avg", 224),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str) -> None:
    """Tokens on a grid, prefix tokens left out, the tower's own embedding, an early stop, other sizes."""
    encoder = tower(FAMILIES[family])
    side = encoder.image_size
    batch = images(side, side)
    tokens, embedding = encoder(batch)
    assert len(tokens) == encoder.n_layers
    for token in tokens:
        grid = round(token.shape[1] ** 0.5)
        assert grid**2 == token.shape[1]
        assert side % grid == 0
    plain = encoder.visual((batch - encoder.mean) / encoder.std)
    torch.testing.assert_close(embedding, plain[0] if isinstance(plain, tuple) else plain)
    early, nothing = encoder(batch, layers=[1, 2], embed=False)
    assert nothing is None
    torch.testing.assert_close(early, tokens[:2])
    none, alone = encoder(batch, layers=[])
    assert none == []
    torch.testing.assert_close(alone, embedding)
    metric = MLCLIPSim(encoder, size_policy="native")
    other = images(side - encoder.stride, side + 2 * encoder.stride)
    if family == "EVA":
        with pytest.raises(ValueError, match="this timm transformer takes one size only"):
            metric.score(reference=other, distorted=other)
    else:
        assert torch.equal(metric.score(reference=other, distorted=other), torch.ones(2))
        assert metric.map(reference=other, distorted=1 - other, resize=False).shape[0] == 2


def test_positions_of_timm_are_interpolated_as_timm_does() -> None:
    """Against timm's own set_input_size on a copy."""
    for name, pool, proj in (
        ("test_vit", "token", "linear"),
        ("test_vit2", "avg", "linear"),
        ("test_vit3", "map", "none"),
    ):
        config = timm_tower(name, pool, 160, proj, **ONE_SIZE)
        encoder, copied = tower(config), tower(config)
        copied.visual.trunk.set_input_size((128, 192))
        other = images(128, 192)
        expected = copied.visual((other - encoder.mean) / encoder.std)
        torch.testing.assert_close(encoder(other)[1], expected)


def test_vit_tokens_leave_the_class_token_out() -> None:
    encoder = tower(VIT)
    kept = []
    block = encoder.visual.transformer.resblocks[-1]
    hook = block.register_forward_hook(lambda _m, _i, output: kept.append(output))
    tokens, _ = encoder(images())
    hook.remove()
    assert kept[0].shape == (2, 65, 32)
    assert torch.equal(tokens[-1], kept[0][:, 1:])


def test_map_tokens_run_along_rows() -> None:
    """Token p of a map is row p // W, column p % W, as patches of a transformer are."""
    encoder = tower(RESNET)
    x = torch.zeros(1, 3, 64, 64)
    x[..., :8, 56:] = 1  # the upper right corner
    tokens, _ = encoder(x, layers=[1], embed=False)
    flat, _ = encoder(torch.zeros(1, 3, 64, 64), layers=[1], embed=False)
    changed = (tokens[0] - flat[0]).abs().sum(-1).view(16, 16)
    assert changed[:2, 14:].min() > 0
    assert changed[4:].max() == 0
    assert changed[:, :10].max() == 0


@pytest.mark.parametrize("config", [VIT, RESNET, TIMM], ids=["vit", "resnet", "timm"])
def test_frozen(config: dict[str, Any]) -> None:
    encoder = tower(config)
    assert not encoder.train().training
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    x = images().requires_grad_()
    tokens, embedding = encoder(x)
    (sum(t.mean() for t in tokens) + embedding.mean()).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


def test_other_sizes() -> None:
    vit, resnet, timm = tower(VIT), tower(RESNET), tower(TIMM)
    tokens, embedding = vit(images(96, 128))
    assert tokens[0].shape == (2, 12 * 16, 32)
    assert embedding.shape == (2, 16)
    assert resnet(images(96, 128))[0][-1].shape == (2, 3 * 4, 256)
    assert timm(images(96, 128))[0][-1].shape == (2, 3 * 4, 112)
    with pytest.raises(ValueError, match="multiples of 8, got 60x64; resize to 64 or crop"):
        vit(images(60, 64))
    with pytest.raises(ValueError, match="multiples of 32"):
        resnet(images(72, 64))


def test_positions_are_interpolated_as_open_clip_does() -> None:
    """Against open_clip's own resize_pos_embed on a network built for 96 px."""
    small, encoder = model(VIT), tower(VIT)
    large = model(VIT | {"vision_cfg": VIT["vision_cfg"] | {"image_size": 96}})
    state = small.state_dict()
    from open_clip.model import resize_pos_embed

    resize_pos_embed(state, large)
    large.load_state_dict(state)
    expected = large.get_submodule("visual").eval()((images(96, 96) - encoder.mean) / encoder.std)
    torch.testing.assert_close(encoder(images(96, 96))[1], expected)


def test_layers() -> None:
    encoder = Encoder(model(VIT).get_submodule("visual"), name="test", layers=[3, 1])
    assert encoder.layers == (1, 3)
    assert len(encoder(images())[0]) == 2
    for wrong in ([0], [4], [1, 1]):
        with pytest.raises(ValueError, match=r"distinct layers within 1\.\.3"):
            encoder(images(), layers=wrong)
    with pytest.raises(ValueError, match="neither layers nor embedding"):
        encoder(images(), layers=[], embed=False)


def test_trunk_keeps_its_padding() -> None:
    """open_clip's adapter would drop pad_type, and a strict load would not notice."""
    stem = model(TIMM).get_submodule("visual.trunk.conv_stem")
    assert type(stem).__name__ == "Conv2dSame"
    without = model(TIMM | {"trunk_kwargs": None}).get_submodule("visual.trunk.conv_stem")
    assert type(without).__name__ == "Conv2d"
    lit = load_encoder("lit-mobilenetv2-untrained")
    assert type(lit.visual.trunk.conv_stem).__name__ == "Conv2dSame"
    assert lit.mean.flatten().tolist() == lit.std.flatten().tolist() == [0.5] * 3
    assert (lit.family, lit.n_layers, lit.image_size) == ("mobilenetv2", 5, 224)


def test_packaged_weights(package: Path) -> None:
    state = torch.random.get_rng_state()
    encoder = load_encoder("tiny", layers=[2])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (encoder.name, encoder.layers, encoder.family) == ("tiny", (2,), "vit")
    expected = model(VIT, seed=7).half().float().get_submodule("visual").conv1.weight
    assert torch.equal(encoder.visual.conv1.weight, expected)
    assert encoder.n_parameters == sum(p.numel() for p in model(VIT).get_submodule("visual").parameters())
    assert load_encoder("cnn").family == "resnet"
    with pytest.raises(WeightsError, match="bare: its weights do not ship"):
        load_encoder("bare")


def test_scene_networks_see_what_they_were_trained_on() -> None:
    """The zoo normalises scenes its own way; OpenAI's statistics would shift every feature."""
    from mlclipsim.world.architectures import MEAN, STD

    for name in ("scene-clip-untrained", "scene-clip-resnet-untrained"):
        encoder = load_encoder(name)
        assert encoder.mean.flatten().tolist() == pytest.approx(MEAN)
        assert encoder.std.flatten().tolist() == pytest.approx(STD)


def test_corrupted_weights(package: Path) -> None:
    path = package / "weights" / "tiny.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"tiny.safetensors: expected sha256 [0-9a-f]{64}, got"):
        load_encoder("tiny")


def test_untrained(package: Path) -> None:
    state = torch.random.get_rng_state()
    encoder = load_encoder("bare-untrained")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert encoder.name == "bare-untrained"
    torch.manual_seed(123)  # whatever the global state, the same weights
    assert torch.equal(encoder.visual.conv1.weight, load_encoder("bare", seed=0).visual.conv1.weight)
    assert not torch.equal(encoder.visual.conv1.weight, load_encoder("bare", seed=1).visual.conv1.weight)
    torch.random.set_rng_state(state)


def test_local_checkpoints(package: Path, tmp_path: Path) -> None:
    state = model(VIT, seed=3).state_dict()
    plain, own, pickled = tmp_path / "a.safetensors", tmp_path / "b.safetensors", tmp_path / "c.pt"
    save_file(state, plain)
    save_file(state, own, metadata={"open_clip_config": json.dumps(VIT)})
    torch.save(state, pickled)
    sha256 = hashlib.sha256(plain.read_bytes()).hexdigest()
    weight = state["visual.conv1.weight"]
    assert torch.equal(load_encoder("bare", checkpoint=plain, sha256=sha256).visual.conv1.weight, weight)
    assert torch.equal(load_encoder("bare", checkpoint=pickled).visual.conv1.weight, weight)
    assert load_encoder("my-own", checkpoint=own).name == "my-own"  # brings its config
    with pytest.raises(WeightsError, match="expected sha256"):
        load_encoder("bare", checkpoint=plain, sha256="0" * 64)
    with pytest.raises(WeightsError, match="expected a checkpoint, found none"):
        load_encoder("bare", checkpoint=tmp_path / "absent.pt")
    with pytest.raises(WeightsError, match="not a complete checkpoint of cnn"):
        load_encoder("cnn", checkpoint=plain)
    del state["visual.proj"]
    save_file(state, plain)
    with pytest.raises(WeightsError, match="Missing key"):
        load_encoder("bare", checkpoint=plain)
    for path in (plain, pickled):
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(WeightsError, match=r"unreadable|not a complete checkpoint"):
            load_encoder("bare", checkpoint=path)


def openai_archive(path: Path, network: nn.Module) -> Path:
    """A TorchScript archive as OpenAI's: half-precision weights, three numbers among them, and code."""

    class Archive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, child in network.named_children():
                setattr(self, name, child)
            for name, parameter in network.named_parameters(recurse=False):
                setattr(self, name, parameter)
            for name, value in (("input_resolution", 64), ("context_length", 8), ("vocab_size", 32)):
                self.register_buffer(name, torch.tensor(value))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * self.logit_scale

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.trace(Archive().half(), torch.zeros(1)).save(path)
    return path


def test_openai_archives(package: Path, tmp_path: Path) -> None:
    (package / "models" / "openai.json").write_text(json.dumps(VIT | {"quick_gelu": True}))
    made = model(VIT | {"quick_gelu": True}, seed=3)
    path = openai_archive(tmp_path / "ViT.pt", made)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    encoder = load_encoder("openai", checkpoint=path, sha256=sha256)
    assert encoder.visual.conv1.weight.dtype == torch.float32
    assert torch.equal(encoder.visual.conv1.weight, made.get_submodule("visual").conv1.weight.float())
    assert encoder.pretrained == f"sha256:{sha256[:12]}"
    with pytest.raises(WeightsError, match="a TorchScript archive, which holds code; pass the sha256"):
        load_encoder("openai", checkpoint=path)
    with pytest.raises(ValueError, match="were trained with QuickGELU; use tiny-quickgelu"):
        load_encoder("tiny", checkpoint=path, sha256=sha256)
    other = openai_archive(tmp_path / "other.pt", model(RESNET | {"quick_gelu": True}))
    sha256 = hashlib.sha256(other.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match="not a complete checkpoint of openai"):
        load_encoder("openai", checkpoint=other, sha256=sha256)


def test_every_load_says_which_weights(package: Path, tmp_path: Path) -> None:
    manifest = json.loads((package / "weights" / "manifest.json").read_text())
    assert load_encoder("tiny").pretrained == f"sha256:{manifest['tiny']['sha256'][:12]}"
    assert load_encoder("tiny", seed=4).pretrained == "untrained:4"
    save_file(model(VIT, seed=3).state_dict(), tmp_path / "own.safetensors")
    own = load_encoder("tiny", checkpoint=tmp_path / "own.safetensors")
    assert own.pretrained.startswith("sha256:")
    assert own.pretrained != load_encoder("tiny").pretrained


def test_local_weights_of_a_model_get_its_statistics() -> None:
    """SigLIP was trained on images in [-1, 1]; no state dict says so, but open_clip's list of tags does."""
    assert encoders.model_config("ViT-B-16-SigLIP")["preprocess_cfg"]["mean"] == (0.5, 0.5, 0.5)
    assert encoders.model_config("ViT-B-32")["preprocess_cfg"]["mean"] == open_clip.OPENAI_DATASET_MEAN


def test_no_pickle_runs(package: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    torch.save({"state_dict": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="not a complete checkpoint"):
        load_encoder("bare", checkpoint=tmp_path / "evil.pt")
    assert not ran.exists()


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"unknown encoder 'ViT-B-23'; did you mean .*ViT-B-32"):
        load_encoder("ViT-B-23", "openai")
    with pytest.raises(ValueError, match=r"unknown encoder 'lit-mobilenet2'; did you mean lit-mobilenetv2"):
        load_encoder("lit-mobilenet2")
    with pytest.raises(ValueError, match=r"no pretrained tag 'opnai'; expected one of: .*openai"):
        load_encoder("ViT-B-32-quickgelu", "opnai")
    with pytest.raises(ValueError, match=r"which weights\? pass pretrained"):
        load_encoder("ViT-B-16")
    with pytest.raises(ValueError, match="give one of pretrained, checkpoint and seed"):
        load_encoder("ViT-B-16", "openai", seed=1)


def test_quick_gelu_mismatch() -> None:
    with pytest.raises(ValueError, match=r"another activation than ViT-B-32 has .*use ViT-B-32-quickgelu"):
        load_encoder("ViT-B-32", "openai")
    with pytest.raises(ValueError, match=r"another activation than RN50 has .*use RN50-quickgelu"):
        load_encoder("RN50", "openai")


def test_weights_not_there_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no network is asked: any attempt would fail the test."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("went to the network"))
    with pytest.raises(WeightsError, match=r"'ViT-B-32-quickgelu', 'openai', download=True\).*'scene-clip'"):
        load_encoder()


def test_cached_weights_of_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag whose file lies in open_clip's own folder; a tiny network stands in for the real one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: {"tiny": VIT}.get(name))
    tag = {"url": "https://example.org/tiny-1.pt", "mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag_: tag if tag_ == "one" else {})
    folder = tmp_path / ".cache" / "clip"
    folder.mkdir(parents=True)
    torch.save(model(VIT, seed=5).state_dict(), folder / "tiny-1.pt")
    encoder = load_encoder("tiny", "one")
    assert (encoder.name, encoder.pretrained) == ("tiny/one", "one")
    assert encoder.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert torch.equal(encoder.visual.conv1.weight, model(VIT, seed=5).get_submodule("visual").conv1.weight)


def test_download_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: {"tiny": VIT}.get(name))
    tag = {"url": "https://example.org/tiny-1.pt"}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: tag)
    with pytest.raises(WeightsError, match="nothing is fetched while computing"):
        load_encoder("tiny", "one")

    def unreachable(_known: dict[str, Any]) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "download_pretrained", unreachable)
    with pytest.raises(WeightsError, match=r"could not be fetched \(no route to host\).*'scene-clip'"):
        load_encoder("tiny", "one", download=True)

    def fetched(_known: dict[str, Any]) -> str:
        torch.save(model(VIT, seed=5).state_dict(), tmp_path / "tiny-1.pt")
        return str(tmp_path / "tiny-1.pt")

    monkeypatch.setattr(open_clip, "download_pretrained", fetched)
    assert load_encoder("tiny", "one", download=True).pretrained == "one"


def test_cached_files_of_openai_are_those_of_openai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's addresses hold the sha256 of the file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    config = VIT | {"quick_gelu": True}
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: {"tiny": config}.get(name))
    folder = tmp_path / ".cache" / "clip"
    folder.mkdir(parents=True)
    path = openai_archive(folder / "tiny.pt", model(config, seed=3))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for digest in (sha256, "0" * 64):
        tag = {"url": f"https://example.org/clip/{digest}/tiny.pt", "quick_gelu": True}
        monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_, tag=tag: tag)
        if digest == sha256:
            assert load_encoder("tiny", "openai").name == "tiny/openai"
        else:
            with pytest.raises(WeightsError, match="expected sha256 0000"):
                load_encoder("tiny", "openai")
