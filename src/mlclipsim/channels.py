"""What every channel adds to the similarities: the stuff of an ablation with a weight per channel.

With unit tokens ``u_l,p(x) = z_l,p(x) / |z_l,p(x)|``, a layer's similarity is a sum over its channels,

    s_l(x, y) = mean_p cos(z_l,p(x), z_l,p(y)) = sum_c mean_p u_l,p,c(x) u_l,p,c(y)

and so is that of the embedding. Stored in half precision, the terms sum to ``s_l`` within 1e-3.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from mlclipsim.comparison import Encoded
from mlclipsim.metric import EPS

__all__ = ["products", "to_table"]


def products(reference: Encoded, distorted: Encoded) -> list[Tensor]:
    """The terms of each pair: ``(N, D_l)`` per layer, then ``(N, E)`` of the embedding where there is one.

    One reference may stand against many distorted images.
    """
    n, m = len(reference), len(distorted)

    def average(a: Tensor, b: Tensor) -> Tensor:  # (n * T, ..., D), (m * T, ..., D) -> (m, D)
        x, y = _unit(a.unflatten(0, (n, -1))), _unit(b.unflatten(0, (m, -1)))
        return (x * y).flatten(1, -2).mean(dim=1)

    terms = [average(a, b) for a, b in zip(reference.tokens, distorted.tokens, strict=True)]
    if reference.embedding is not None and distorted.embedding is not None:
        terms.append(average(reference.embedding, distorted.embedding))
    return terms


def _unit(tokens: Tensor) -> Tensor:
    tokens = tokens.float()
    return tokens / (tokens.square().sum(-1, keepdim=True) + EPS).sqrt()


def to_table(ids: pd.DataFrame, names: Sequence[str], terms: Sequence[Tensor]) -> pa.Table:
    """Rows of the table ``products``: ``ids``, then a column per layer, a list of halves, one per channel."""
    columns: dict[str, pa.Array] = {name: pa.array(ids[name], pa.string()) for name in ids}
    for name, values in zip(names, terms, strict=True):
        flat = pa.array(values.to(torch.float16).cpu().numpy().ravel(), pa.float16())
        kind = pa.list_(pa.field("element", pa.float16()), values.shape[1])  # as parquet itself calls it
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, type=kind)
    return pa.table(columns)
