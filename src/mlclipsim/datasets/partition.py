"""One role per photograph, near-duplicates merged: no picture is both learned from and judged on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mlclipsim.artifacts import ArtifactError
from mlclipsim.randomness import derive_seed

__all__ = ["ROLES", "Fingerprint", "assign_roles", "check_partition", "duplicate_groups", "fingerprint"]

# In the order in which they take photographs: those of machine preference first, what is reported before what
# is learned from; then those of compression, likewise. So neither more training data nor a study of codecs,
# asked for later, changes what was reported.
ROLES = (
    "pcmp_test",
    "pcmp_val",
    "zoo_val",
    "pcmp_train",
    "zoo_train",
    "rate_task_test",
    "codec_val",
    "codec_train",
)

# Two photographs are one when their difference hashes are this near (of 64 bits) and their thumbnails
# correlate this well. Among 1452 unrelated photographs (ImageNet, COCO, Kodak) hashes come as near as 4 bits,
# but within 12 bits no two thumbnails correlate above .81. Copies at half size and JPEG quality 30 lie within
# 8 bits and above .99, copies that lost 2 % at each border within 11 bits and, nearly all, above .9.
_HASH_BITS = 12
_CORRELATION = 0.9


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a picture: SHA-256 of its pixels, 64-bit difference hash, 16 x 16 grey thumbnail."""

    sha256: str
    difference_hash: int
    thumbnail: np.ndarray


def fingerprint(image: np.ndarray) -> Fingerprint:
    """Fingerprint of a uint8 ``(H, W, 3)`` image; its hash survives rescaling and recoding."""
    grey = Image.fromarray(image).convert("L")
    # Bit = whether a pixel of the 9 x 8 thumbnail is brighter than its left neighbour (Krawetz 2013,
    # "dHash").
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    thumbnail = np.asarray(grey.resize((16, 16), Image.Resampling.BOX), np.float64).ravel()
    digest = hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
    return Fingerprint(digest, int.from_bytes(bits.tobytes(), "big"), thumbnail)


def duplicate_groups(fingerprints: Sequence[Fingerprint]) -> np.ndarray:
    """Group number of each picture: equal for near-duplicates (and duplicates of duplicates)."""
    n = len(fingerprints)
    hashes = np.array([f.difference_hash for f in fingerprints], np.uint64)
    thumbnails = np.stack([f.thumbnail for f in fingerprints])
    rows, columns = [], []
    for i in range(n - 1):  # a row at a time: n^2 comparisons of 8 bytes, n^2 of nothing in memory
        near = i + 1 + np.flatnonzero(np.bitwise_count(hashes[i] ^ hashes[i + 1 :]) <= _HASH_BITS)
        same = [int(j) for j in near if _alike(thumbnails[i], thumbnails[j])]
        rows += [i] * len(same)
        columns += same
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    return connected_components(links, directed=False)[1]


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    a, b = one - one.mean(), other - other.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    if scale == 0:  # a flat picture is like a flat picture of the same grey
        return bool(np.abs(one - other).max() < 2)
    return bool(a @ b / scale >= _CORRELATION)


def assign_roles(
    names: Sequence[str], fingerprints: Sequence[Fingerprint], counts: Mapping[str, int], seed: int
) -> pd.DataFrame:
    """Give each photograph its role.

    Near-duplicates form a group, which plays one role and counts once. Groups take their turn in an order
    drawn from their content (so neither file names nor their order matter) and fill the roles in the order of
    :data:`ROLES`.

    Returns:
        ``photograph, sha256, role, first``: in the order of ``names``, those with a role only; ``first``
        marks the one photograph of each group that is used as a reference.

    Raises:
        ValueError: an unknown role, or fewer distinct photographs than asked for.
    """
    unknown = sorted(set(counts) - set(ROLES))
    if unknown:
        raise ValueError(f"roles {unknown} are unknown; expected some of {', '.join(ROLES)}")
    frame = pd.DataFrame({"photograph": names, "sha256": [f.sha256 for f in fingerprints]})
    group = duplicate_groups(fingerprints)
    lead = frame["sha256"].groupby(group).transform("min")  # names a group by its content
    order = sorted(lead.unique(), key=lambda sha256: derive_seed(seed, "role", sha256))
    wanted = sum(counts.values())
    if wanted > len(order):
        raise ValueError(
            f"expected at least {wanted} distinct photographs for the roles {dict(counts)}, "
            f"found {len(order)} (in {len(names)} files); lower references.roles or add photographs"
        )
    roles = [role for role in ROLES for _ in range(counts.get(role, 0))]
    frame["role"] = lead.map(dict(zip(order, roles, strict=False)))
    frame["first"] = ~lead.duplicated()
    return frame.dropna(subset="role").reset_index(drop=True)


def check_partition(partition: pd.DataFrame, groups: Sequence[int] | np.ndarray | None = None) -> None:
    """Refuse a partition in which a photograph, its content, or a near-duplicate plays two roles.

    Args:
        partition: ``photograph, sha256, role``.
        groups: group number of each row, from :func:`duplicate_groups`.

    Raises:
        ArtifactError: names what overlaps.
    """
    keys = {"photograph": partition["photograph"], "content": partition["sha256"]}
    if groups is not None:
        keys["near-duplicates"] = pd.Series(np.asarray(groups), index=partition.index)
    for what, key in keys.items():
        roles = partition.groupby(key.to_numpy())["role"].nunique()
        overlap = partition[key.isin(roles.index[roles > 1])]
        if len(overlap):
            seen = ", ".join(f"{row.photograph} ({row.role})" for row in overlap.head(6).itertuples())
            raise ArtifactError(
                f"expected one role per photograph, but the same {what} plays several: {seen}; "
                "correct the partition"
            )
