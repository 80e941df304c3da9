from torch import Tensor


def gradient_error(reference: Tensor, distorted: Tensor) -> Tensor:
    """Mean absolute error of the differences between neighbours; (B, 3, H, W) in [0, 1] -> (B,)."""
    error = distorted - reference
    return error.diff(dim=-1).abs().mean((1, 2, 3)) + error.diff(dim=-2).abs().mean((1, 2, 3))
