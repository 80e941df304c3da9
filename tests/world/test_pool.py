"""Pools of scenes and the augmentations of training."""

import numpy as np
import torch

from mlclipsim.world.pool import augment, render_pool
from mlclipsim.world.scenes import SHAPES


def test_pool_does_not_depend_on_workers_and_maps_from_disk(tmp_path):
    one = render_pool("zoo_val", 40, seed=5)
    two = render_pool("zoo_val", 40, seed=5, cache=tmp_path, workers=2)
    again = render_pool("zoo_val", 40, seed=5, cache=tmp_path)
    for name in ("images", "semantic", "objects", "boxes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert isinstance(again.images, np.memmap)


def test_captions_are_full_or_thinned_out():
    pool = render_pool("zoo_val", 30, seed=6)
    full = [pool.caption(i) for i in range(30)]
    thin = [pool.caption(i, np.random.default_rng(i)) for i in range(30)]
    for i, (long, short) in enumerate(zip(full, thin, strict=True)):
        shape = list(SHAPES)[pool.labels[i]]
        assert shape in long.split(" and ")[0]
        assert shape in short.split(" and ")[0]
        assert set(short.split()) <= set(long.split())
    assert sum(len(t) for t in thin) < 0.8 * sum(len(t) for t in full)


def test_augmentation_is_seeded_and_stays_in_range():
    images = render_pool("zoo_val", 24, seed=7).images
    first, second, other = (augment(images, seed)[0] for seed in (1, 1, 2))
    assert first.shape == (24, 3, 64, 64)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1


def test_augmentation_without_geometry_leaves_edges_in_place():
    """Correlation with the image itself stays high where nothing moves, and falls where it does."""
    images = render_pool("zoo_val", 24, seed=8).images
    plain = torch.from_numpy(images).permute(0, 3, 1, 2).float().flatten(1)

    def likeness(x):
        return float(
            torch.stack([torch.corrcoef(p)[0, 1] for p in torch.stack([plain, x.flatten(1)], 1)]).mean()
        )

    still = likeness(augment(images, 3, geometric=False)[0])
    moved = likeness(augment(images, 3)[0])
    assert still > 0.93
    assert moved < still - 0.1


def test_label_maps_move_with_their_images():
    """Painted with the map itself, an image and its map agree after any shift and mirror."""
    pool = render_pool("zoo_val", 24, seed=9)
    painted = np.repeat((pool.semantic > 0)[..., None] * np.uint8(255), 3, axis=3)
    images, semantic = augment(painted, 4, semantic=pool.semantic)
    assert semantic.dtype == torch.int64
    assert set(semantic.unique().tolist()) == set(np.unique(pool.semantic).tolist())
    agree = ((images.mean(1) > 0.5) == (semantic > 0)).float().mean()
    moved = ((images.mean(1) > 0.5) == torch.from_numpy(pool.semantic > 0)).float().mean()
    assert agree > 0.99
    assert moved < 0.97
