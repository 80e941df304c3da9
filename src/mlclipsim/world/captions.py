"""Words of the scenes: a vocabulary of a few dozen words, and the tokeniser of the small text towers."""

from __future__ import annotations

import torch
from torch import Tensor

from mlclipsim.world.scenes import COLOURS, SHAPES, TEXTURES

__all__ = ["CONTEXT_LENGTH", "VOCABULARY", "tokenize"]

CONTEXT_LENGTH = 24
# The end token has the highest index: open_clip's text tower pools at the argmax of the token ids.
VOCABULARY: tuple[str, ...] = (
    "<pad>",
    "<start>",
    "a",
    "and",
    "large",
    "small",
    *COLOURS,
    *TEXTURES,
    *SHAPES,
    "<end>",
)
_INDEX = {word: i for i, word in enumerate(VOCABULARY)}


def tokenize(captions: list[str]) -> Tensor:
    """Token ids (N, 24) int64, ``<start> words <end>``, padded with 0.

    Raises:
        ValueError: a word is not in the vocabulary, or a caption is too long.
    """
    out = torch.zeros(len(captions), CONTEXT_LENGTH, dtype=torch.long)
    for row, caption in zip(out, captions, strict=True):
        words = caption.split()
        unknown = [w for w in words if w not in _INDEX]
        if unknown:
            raise ValueError(
                f"caption {caption!r} has words outside the scenes' vocabulary: {', '.join(unknown)}"
            )
        if len(words) > CONTEXT_LENGTH - 2:
            raise ValueError(f"caption of {len(words)} words, expected at most {CONTEXT_LENGTH - 2}")
        ids = [_INDEX["<start>"], *(_INDEX[w] for w in words), _INDEX["<end>"]]
        row[: len(ids)] = torch.tensor(ids)
    return out
