"""Locked-image tuning: a CLIP for photographs out of an ImageNet classifier, where there are no CLIP weights.

The image trunk (timm's MobileNetV2 with a given checkpoint) is frozen; a linear projection and a small text
tower are trained contrastively on photographs with the captions "a photo of a <class name>" (X. Zhai et
al., "LiT", CVPR 2022). The frozen features are computed once, so that an epoch takes seconds.

What it learns from, and what not: the photographs of role ``zoo_train`` and their class names, and the 1000
rows of the checkpoint's own classifier head, which stand in for photographs of the classes that those few
hundred photographs lack: a row is the direction in feature space that the checkpoint itself gave to a
class. No image of PCMP is seen. So its zero-shot accuracy says that the projection kept what the trunk
knows, not that it generalises to new concepts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from mlclipsim.artifacts import atomic, read_table, sha256_of, write_json
from mlclipsim.datasets.references import class_labels, image_files, square
from mlclipsim.encoders import WeightsError, build_clip, model_config
from mlclipsim.images import read_image, to_tensor
from mlclipsim.places import locate
from mlclipsim.randomness import derive_seed

__all__ = ["Words", "class_names", "features_of", "load_trunk", "train", "tune", "zero_shot"]

_BATCH = 32  # photographs per forward pass of the trunk
_PROTOTYPES = 128  # classifier rows per step, beside the photographs
CHANCE_TIMES = (
    20  # top-5 accuracy on held-out photographs below this multiple of chance is reported as a failure
)


def train(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step: ``partition`` -> ``encoder`` (safetensors with its own config inside) and ``report``.

    The report holds zero-shot top-1 and top-5 accuracy among all classes on the held-out photographs (role
    ``zoo_val``), for classes with and without a training photograph, and the trunk's own classifier on them.

    Args:
        spec: ``seed``; ``threads``; ``encoder``: {``entry``: its catalog entry, with ``checkpoint`` and
            ``sha256`` of the trunk}; ``references``: {``size``, ``dataset``}; ``lit``: {``photographs``,
            ``embed_dim``, ``epochs``, ``batch_size``, ``learning_rate``, ``weight_decay``}.

    Raises:
        WeightsError: the trunk's checkpoint is missing or not the named one.
        ArtifactError, ImageError: photographs or labels are missing or damaged.
    """
    torch.set_num_threads(int(spec["threads"]))
    settings, entry = spec["lit"], spec["encoder"]["entry"]
    dataset, size = spec["references"]["dataset"], int(spec["references"]["size"])
    names = class_names()
    words = Words.of(names)
    config = model_config(entry["model"])
    config["model_cfg"]["embed_dim"] = int(settings["embed_dim"])
    config["model_cfg"]["text_cfg"] |= {"vocab_size": words.size, "context_length": words.context_length}
    config["vocabulary"] = words.vocabulary
    seed = derive_seed(int(spec["seed"]), "lit", entry["model"])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build_clip(config).eval()
    checkpoint = locate(entry["checkpoint"])
    head = load_trunk(model, checkpoint, entry.get("sha256"))

    partition = read_table(inputs["partition"], "partition").sort_values("photograph")
    files = image_files(locate(dataset["path"]))
    labels = class_labels(locate(dataset["path"]) / dataset["labels"], files)

    def load(role: str, count: int | None = None) -> tuple[Tensor, Tensor]:
        chosen = list(partition.loc[partition["role"] == role, "photograph"])[:count]
        if not chosen:
            raise ValueError(f"no photograph has the role {role}; give it some in references.roles")
        return (
            features_of(model, [files[name] for name in chosen], size),
            torch.tensor([labels[name][0] for name in chosen]),
        )

    features, classes = load("zoo_train", int(settings["photographs"]))
    held_out, truth = load("zoo_val")
    captions = words.captions(names)
    tune(model, features, classes, captions, head.weight, settings, seed)

    seen = torch.isin(truth, classes)
    top5_chance = 5 / len(names)
    report: dict[str, Any] = {
        "n_train": len(classes),
        "n_train_classes": len(classes.unique()),
        "n_held_out": len(truth),
        "n_classes": len(names),
        "zero_shot": zero_shot(model, held_out, truth, captions),
        "zero_shot_classes_with_photograph": zero_shot(model, held_out[seen], truth[seen], captions),
        "zero_shot_classes_without": zero_shot(model, held_out[~seen], truth[~seen], captions),
        "trunk_classifier": _accuracy(head(held_out), truth),
        "chance_top5": top5_chance,
        "trunk_sha256": sha256_of(checkpoint),
    }
    report["passes"] = report["zero_shot"]["top5"] >= CHANCE_TIMES * top5_chance
    with atomic(outputs["encoder"]) as temporary:
        # One entry of metadata, since safetensors writes several in any order: the same bytes every time.
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(state, temporary, metadata={"open_clip_config": json.dumps(config, sort_keys=True)})
    write_json(outputs["report"], report)
    print(json.dumps(report, indent=2))


def class_names() -> list[str]:
    """The first name of each of ImageNet's 1000 classes, in timm's and torchvision's order."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(index).split(",")[0] for index in range(info.num_classes())]


@dataclass(frozen=True)
class Words:
    """A tokenizer of whole words: CLIP's own 49,408 byte pairs would be most of so small a network.

    Token 0 is padding, 1 begins, 2 is an unknown word; the last ends, so that open_clip pools there (argmax).
    """

    vocabulary: list[str]
    context_length: int = 16
    template = "a photo of a {}"

    @classmethod
    def of(cls, names: Sequence[str]) -> Words:
        """The vocabulary of captions for these class names."""
        return cls(sorted({word for name in names for word in cls._split(cls.template.format(name))}))

    @property
    def size(self) -> int:
        return len(self.vocabulary) + 4

    @staticmethod
    def _split(text: str) -> list[str]:
        return re.findall(r"[a-z0-9]+", text.lower())

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """``(N, context_length)`` int64 tokens; what is longer is cut."""
        index = {word: number + 3 for number, word in enumerate(self.vocabulary)}
        tokens = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            inner = [index.get(word, 2) for word in self._split(text)][: self.context_length - 2]
            line = torch.tensor([1, *inner, self.size - 1])
            row[: len(line)] = line
        return tokens

    def captions(self, names: Sequence[str]) -> Tensor:
        """Tokens of ``a photo of a <name>``."""
        return self([self.template.format(name) for name in names])


def load_trunk(model: nn.Module, checkpoint: Path, sha256: str | None = None) -> nn.Linear:
    """Load a timm classifier's checkpoint into the image trunk, strictly; return its classifier, frozen.

    Raises:
        WeightsError: missing file, other hash, or other network.
    """
    if not checkpoint.is_file():
        raise WeightsError(f"{checkpoint}: expected the trunk's checkpoint, found none; set MLCLIPSIM_ASSETS")
    if sha256 is not None and (seen := sha256_of(checkpoint)) != sha256:
        raise WeightsError(f"{checkpoint}: expected sha256 {sha256}, got {seen}; fetch the file again")
    trunk = model.get_submodule("visual.trunk")
    state = load_file(checkpoint)
    try:
        weight, bias = state.pop("classifier.weight"), state.pop("classifier.bias")
        trunk.load_state_dict(state, strict=True)
    except (KeyError, RuntimeError) as error:
        first = " ".join(str(error).split())[:200]
        raise WeightsError(f"{checkpoint}: not a checkpoint of this trunk ({first})") from error
    trunk.requires_grad_(False)
    head = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias})
    return head.requires_grad_(False)


@torch.no_grad()
def features_of(model: nn.Module, files: Sequence[Path], size: int) -> Tensor:
    """Pooled features of the frozen trunk, ``(N, D)``, of the central ``size`` pixels of each file."""
    visual = model.get_submodule("visual")
    mean, std = (torch.tensor(visual.preprocess_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))  # type: ignore
    trunk = visual.get_submodule("trunk").eval()
    parts = []
    for start in tqdm(range(0, len(files), _BATCH), desc="features", unit="batch"):
        images = [square(read_image(file), size, str(file)) for file in files[start : start + _BATCH]]
        parts.append(trunk((to_tensor(np.stack(images)) - mean) / std))
    return torch.cat(parts)


def tune(
    model: Any,
    features: Tensor,
    classes: Tensor,
    captions: Tensor,
    rows: Tensor,
    settings: dict[str, Any],
    seed: int,
) -> None:
    """Train the projection and the text tower in place.

    Per step, with e the unit image embeddings, t the unit text embeddings and s the learned scale, the loss
    is CLIP's symmetric cross-entropy of ``s e t^T`` for a batch of photographs with their captions
    (photographs of one class are each other's positives), plus the same for a batch of classifier rows with
    theirs.

    Args:
        model: an open_clip CLIP with ``visual.head.proj``.
        features: ``(N, D)`` of the trunk.
        classes: ``(N,)``.
        captions: ``(C, context_length)`` tokens of every class.
        rows: ``(C, D)``, the classifier's.
    """
    projection = model.visual.head.proj
    trained = [p for name, p in model.named_parameters() if not name.startswith("visual.trunk")]
    directions = rows - rows.mean(0)  # what distinguishes a class from the others
    epochs, size = int(settings["epochs"]), int(settings["batch_size"])
    steps = epochs * -(-len(classes) // size)
    optimizer = torch.optim.AdamW(
        trained, lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["learning_rate"], total_steps=steps, pct_start=0.1
    )
    generator = torch.Generator().manual_seed(seed)
    model.train()
    model.visual.trunk.eval()

    def contrast(inputs: Tensor, of_class: Tensor) -> Tensor:
        images = F.normalize(projection(inputs), dim=-1)  # (B, E)
        texts = model.encode_text(captions[of_class], normalize=True)  # (B, E)
        logits = model.logit_scale.exp().clamp(max=100) * images @ texts.T  # (B, B)
        same = (of_class[:, None] == of_class).float()
        target = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    with tqdm(total=steps, desc="locked-image tuning", unit="step") as progress:
        for _ in range(epochs):
            for batch in torch.randperm(len(classes), generator=generator).split(size):
                prototypes = torch.randperm(len(rows), generator=generator)[:_PROTOTYPES]
                loss = contrast(features[batch], classes[batch]) + contrast(
                    directions[prototypes], prototypes
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                progress.update()
                progress.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()


@torch.no_grad()
def zero_shot(model: Any, features: Tensor, classes: Tensor, captions: Tensor) -> dict[str, float]:
    """Top-1 and top-5 accuracy of the nearest caption among all classes, and ``n``."""
    if not len(classes):
        return {"n": 0}
    images = F.normalize(model.visual.head(features), dim=-1)
    texts = model.encode_text(captions, normalize=True)
    return _accuracy(images @ texts.T, classes)


def _accuracy(logits: Tensor, classes: Tensor) -> dict[str, float]:
    hits = logits.topk(5).indices == classes[:, None]  # (N, 5)
    return {
        "top1": hits[:, 0].double().mean().item(),
        "top5": hits.any(1).double().mean().item(),
        "n": len(classes),
    }
