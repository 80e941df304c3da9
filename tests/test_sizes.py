"""Size policies: what the encoder sees, from 16 px up, and maps that lie where it was seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlclipsim.encoders import Encoder
from mlclipsim.metric import MLCLIPSim
from mlclipsim.sizes import Window, look, put_back, windows


@pytest.fixture(scope="module")
def vit(tiny: Callable[[str], Encoder]) -> Encoder:
    """Patches of 8 px, images of 64."""
    return tiny("vit")


def test_windows(vit: Encoder) -> None:
    assert windows((100, 40), vit, "resize") == [Window(30, 0, 40, 40)]
    assert windows((70, 45), vit, "native") == [Window(3, 2, 64, 40)]
    assert windows((64, 130), vit, "tile") == [Window(0, left, 64, 64) for left in (0, 64, 66)]
    with pytest.raises(ValueError, match="native: expected at least 8 pixels a side, got 4x64; use resize"):
        windows((4, 64), vit, "native")


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(16, 200),
    width=st.integers(16, 200),
    policy=st.sampled_from(["resize", "native", "tile"]),
)
def test_windows_lie_in_the_image_and_give_what_is_seen(
    vit: Encoder, height: int, width: int, policy: str
) -> None:
    if policy == "tile" and min(height, width) < 64:
        return
    images = torch.zeros(2, 3, height, width)
    places = windows((height, width), vit, policy)
    seen = look(images, vit, policy)
    assert len(seen) == 2 * len(places)
    assert all(0 <= w.top <= w.top + w.height <= height for w in places)
    assert all(0 <= w.left <= w.left + w.width <= width for w in places)
    laid = put_back(torch.ones(2, len(places), 4, 4), places, (height, width))
    assert laid.shape == (2, height, width)
    outside = laid.isnan()
    torch.testing.assert_close(laid[~outside], torch.ones_like(laid[~outside]))
    share = {"resize": 1 - min(height, width) / max(height, width), "tile": 0.0}.get(policy)
    if share is not None:
        assert outside.float().mean().item() == pytest.approx(share, abs=1e-6)
    else:
        assert outside.float().mean() < 1 - (1 - 7 / height) * (1 - 7 / width) + 1e-6


def test_maps_keep_their_place() -> None:
    """A ramp along the columns of a window stays one, between the centres of its first and last patch."""
    ramp = torch.arange(4.0).expand(1, 1, 2, 4)  # patches of 10 px, their centres at 5, 15, 25, 35
    laid = put_back(ramp, [Window(3, 20, 20, 40)], (30, 70))[0]
    expected = ((torch.arange(40) + 0.5) / 10 - 0.5).clamp(0, 3)
    torch.testing.assert_close(laid[3:23, 20:60], expected.expand(20, 40))
    assert laid[:3].isnan().all()
    assert laid[:, 60:].isnan().all()


@pytest.mark.parametrize("policy", ["resize", "native", "tile"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (70, 150), (150, 70), (96, 96)])
def test_a_local_change_shows_where_it_is(vit: Encoder, policy: str, height: int, width: int) -> None:
    """The first block's map is lowest inside the square that was inverted, for every policy and format."""
    reference = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4
    top, left = height // 2 + 4, width // 2 - 20
    distorted = reference.clone()
    distorted[..., top : top + 16, left : left + 16] = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    metric = MLCLIPSim(vit, layers=[1], use_global=False, size_policy=policy)  # type: ignore[arg-type]
    where = metric.map(reference=reference, distorted=distorted)[0]
    assert where.shape == (height, width)
    row, column = divmod(int(where.nan_to_num(2).argmin()), width)
    assert top - 4 <= row < top + 20
    assert left - 4 <= column < left + 20


def test_tiles_have_no_common_grid(vit: Encoder) -> None:
    images = torch.rand(1, 3, 64, 130, generator=torch.Generator().manual_seed(0))
    metric = MLCLIPSim(vit, size_policy="tile")
    assert metric.map(reference=images, distorted=images).shape == (1, 64, 130)
    with pytest.raises(ValueError, match="3 tiles have no common patch grid; leave resize=True"):
        metric.map(reference=images, distorted=images, resize=False)


@pytest.mark.parametrize("size", [(16, 16), (16, 300), (301, 17), (65, 63)])
def test_any_size_from_16_px_up(vit: Encoder, size: tuple[int, int]) -> None:
    x, y = torch.rand(2, 1, 3, *size, generator=torch.Generator().manual_seed(0))
    for policy in ("resize", "native"):
        metric = MLCLIPSim(vit, size_policy=policy)  # type: ignore[arg-type]
        assert metric.score(reference=x, distorted=y).item() < 1
        assert metric.score(reference=x, distorted=x).item() == 1
