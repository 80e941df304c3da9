import numpy as np

from mlclipsim.distortions import Family


def _darkened(image: np.ndarray, loss: float, falloff: np.ndarray) -> np.ndarray:
    return np.rint(image * (1 - loss * falloff)).astype(np.uint8)


def _falloff(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Squared distance from a centre drawn once per image, 1 where it is largest, (H, W, 1)."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    centre = rng.uniform(0.3, 0.7, 2) * (height, width)
    squared = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2
    return (squared / squared.max())[..., None]


VIGNETTE = Family(
    name="vignette",
    distort=_darkened,
    draw=_falloff,
    mildest=0.005,
    strongest=1.0,
    quantity="light lost in the darkest corner",
    source="quadratic falloff",
)
