"""The step that runs the encoder: per-layer similarities of every distorted image to its reference, once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from tqdm import tqdm

from mlclipsim import channels, metric, plugins
from mlclipsim.artifacts import iterate_row_groups, row_group_sizes, stream_table
from mlclipsim.comparison import Comparison, Encoded
from mlclipsim.datasets.references import StoredReferences
from mlclipsim.devices import Pieces, ahead, forward_passes, moved, own_device
from mlclipsim.encoders import Encoder, load_encoder
from mlclipsim.images import decode_batch
from mlclipsim.layer_weights import GLOBAL, layer_name
from mlclipsim.places import locate
from mlclipsim.shards import WHOLE, Shard

__all__ = ["build", "load_entry"]

_COLUMNS = ["image_id", "reference_id", "image"]


def build(
    spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path], shard: Shard = WHOLE
) -> None:
    """Step: ``references``, ``images`` [, ``checkpoint``] -> ``similarities`` [, ``products``].

    Columns: ``image_id``, ``reference_id``, ``layer_01`` ..., ``global``; rows and row groups in the order of
    ``images``, which pass through a row group at a time, so that memory does not grow with their number. Each
    reference is encoded once where its images stand together, as PCMP writes them. A batch holds images of
    one reference, so that no row depends on which other references there are.

    ``products``, where asked for, has the terms of every similarity by channel (:mod:`mlclipsim.channels`),
    from the same forward pass.

    Args:
        spec: ``encoder``: {``name``, ``entry``: its catalog entry}; ``batch_size``; ``threads``;
            [``precision`` of the encoder, ``float32`` or ``bfloat16``].
        inputs: ``checkpoint`` is the network that another step made, for encoders of source ``lit``.

    Raises:
        ArtifactError: an image whose reference is not there, or damaged tables.
        WeightsError: the encoder's weights are missing or not the named ones.
    """
    torch.set_num_threads(int(spec["threads"]))
    device = own_device()
    name, entry = spec["encoder"]["name"], spec["encoder"]["entry"]
    encoder = load_entry(name, entry, inputs.get("checkpoint")).to(device)
    batch_size = int(spec["batch_size"])
    size_policy = entry.get("size_policy", "resize")
    comparison = Comparison(encoder, encoder.layers, True, size_policy, batch_size)
    names = [*map(layer_name, encoder.layers), GLOBAL]
    references = StoredReferences(inputs["references"])
    pieces = Pieces()
    wants_terms = "products" in outputs
    sizes = row_group_sizes(inputs["images"], "images")
    mine = shard.of(len(sizes))
    total = sum(sizes[number] for number in mine)
    with (
        stream_table(outputs["similarities"], "similarities") as append,
        stream_table(outputs["products"], "products") if wants_terms else nullcontext() as append_terms,
        tqdm(total=total, desc=f"similarities, {name}", unit="image") as progress,
        torch.no_grad(),
        forward_passes(device, spec.get("precision", "float32")),
    ):
        groups = iterate_row_groups(inputs["images"], "images", _COLUMNS, numbers=mine)
        for _, batches in groupby(ahead(_decoded(groups, references, batch_size), device), itemgetter(0)):
            rows: list[tuple[Any, ...]] = []
            terms: list[list[torch.Tensor]] = []
            for batch in batches:
                if batch.reference is not None:
                    encoded = comparison.encode(moved(batch.reference, device))
                compare = partial(_compare, comparison, encoded, wants_terms=wants_terms)
                values: list[list[float]] = []
                for similar, products in pieces.map(compare, batch.images):
                    values += similar
                    terms += products
                rows += [
                    (name, batch.reference_id, *row)
                    for name, row in zip(batch.image_ids, values, strict=True)
                ]
                progress.update(len(values))
            frame = pd.DataFrame(rows, columns=["image_id", "reference_id", *names])
            append(frame)
            if append_terms is not None:
                of_layers = [torch.cat(layer) for layer in zip(*terms, strict=True)]
                append_terms(channels.to_table(frame[["image_id", "reference_id"]], names, of_layers))


class _Batch(NamedTuple):
    """Images of one reference, decoded, and it with the first of them."""

    group: int  # number of their row group, among those that are read
    reference_id: str
    reference: torch.Tensor | None  # (1, 3, H, W); None: as before
    image_ids: list[str]
    images: torch.Tensor  # (N, 3, H, W)


def _decoded(groups: Iterable[pd.DataFrame], references: StoredReferences, size: int) -> Iterator[_Batch]:
    """Batches of up to ``size`` images."""
    for number, group in enumerate(groups):
        images = group[_COLUMNS].itertuples(index=False, name=None)
        for reference_id, of_reference in groupby(images, key=itemgetter(1)):
            reference: torch.Tensor | None = decode_batch([references.get(reference_id)])
            for batch in _batches(of_reference, size):
                image_ids, _, stored = zip(*batch, strict=True)
                yield _Batch(number, reference_id, reference, list(image_ids), decode_batch(stored))
                reference = None


def _compare(
    comparison: Comparison, encoded: Encoded, images: torch.Tensor, *, wants_terms: bool
) -> tuple[list[list[float]], list[list[torch.Tensor]]]:
    """Similarities of images to an encoded one, by layer, and their terms if asked for."""
    distorted = moved(images, encoded.tokens[0].device)
    values: list[list[float]] = []
    terms: list[list[torch.Tensor]] = []
    for x, y in comparison.pairs(encoded, distorted):
        values += metric.similarities(x, y).double().cpu().tolist()
        if wants_terms:
            terms.append([products.cpu() for products in channels.products(x, y)])
    return values, terms


def load_entry(name: str, entry: dict[str, Any], made: Path | None = None) -> Encoder:
    """The encoder of a catalog entry; ``made`` is its checkpoint if a step made it.

    Raises:
        ValueError: an unknown ``source``, or one that is made by a step and was not.
    """
    model, source = entry["model"], entry["source"]
    if source == "package":
        return load_encoder(model)
    if source == "open_clip":
        return load_encoder(model, entry["pretrained"])
    if source == "checkpoint":
        encoder = load_encoder(model, checkpoint=locate(entry["checkpoint"]), sha256=entry.get("sha256"))
        encoder.name = name  # as its fitted weights call it: a file may be any network of that model
        return encoder
    if source == "untrained":
        return load_encoder(model, seed=entry.get("seed", 0))
    if source == "plugin":
        return _of_plugin(name, model, entry.get("seed"))
    if source == "lit" and made is not None:
        return load_encoder(model, checkpoint=made)
    if source == "lit":
        raise ValueError(
            f"{name}: expected the checkpoint that the step lit_encoder makes; run that step first"
        )
    raise ValueError(
        f"{name}: source {source!r}, expected package, open_clip, checkpoint, untrained, lit or plugin"
    )


def _of_plugin(name: str, model: str, seed: int | None) -> Encoder:
    encoder = plugins.load(model)(seed)  # None: its own weights, else random ones
    if not isinstance(encoder, Encoder):
        raise TypeError(
            f"{name}: expected {model} to return a mlclipsim.encoders.Encoder, got {type(encoder).__name__}; "
            "wrap its tower in one"
        )
    return encoder


def _batches(items: Iterable[tuple[str, str, bytes]], size: int) -> Iterator[list[tuple[str, str, bytes]]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
