"""The base codecs' training: its images and its loss; and the catalog's points are those that it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mlclipsim.spec import project_root
from mlclipsim.world.pool import render_pool

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


@pytest.fixture(scope="module")
def objective() -> Any:
    from mlclipsim.compression.base import ROLES, SceneObjective

    pools = [render_pool(role, 6, seed=1) for role in ROLES]
    return SceneObjective(0.0035, pools, render_pool("codec_val", 8, seed=1))


def test_a_step_has_mosaics_of_scenes_and_crops_of_photographs(objective: Any) -> None:
    from mlclipsim.compression.terms import tiles
    from mlclipsim.images import to_tensor

    images = objective.batch(3)["images"]
    assert images.shape == (4, 3, 128, 128)
    known = [scene for pool in objective.pools for scene in to_tensor(np.asarray(pool.images))]
    for tile in tiles(images[:2], 2):
        assert any(torch.equal(tile, scene) for scene in known)
    assert not any(torch.equal(tile, scene) for tile in tiles(images[2:], 2) for scene in known)
    assert torch.equal(objective.batch(3)["images"], images)
    assert not torch.equal(objective.batch(4)["images"], images)


def test_the_loss_is_rate_and_weighted_squared_error(
    objective: Any, random_codec: Callable[[str], Any]
) -> None:
    codec = random_codec("bmshj2018-factorized")
    losses = objective.losses(codec, objective.batch(0))
    torch.testing.assert_close(losses["loss"], losses["bpp"] + 0.0035 * 255**2 * losses["mse"])
    with torch.no_grad():
        assert set(objective.validate(codec)) == {"loss", "bpp", "mse"}
    assert objective.validation.shape == (2, 3, 128, 128)


def test_the_catalog_has_what_is_trained() -> None:
    from mlclipsim.compression.base import CHANNELS, MODEL, POINTS

    text = (project_root() / "config/catalog/codecs.yaml").read_text(encoding="utf-8")
    entry = yaml.safe_load(text)["scene-factorized"]
    assert (entry["model"], tuple(entry["channels"])) == (MODEL, CHANNELS)
    assert {name: point["lambda"] for name, point in entry["points"].items()} == POINTS
