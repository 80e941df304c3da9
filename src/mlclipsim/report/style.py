"""One visual language for every table and figure: names, colours, sizes, the footer, and files of fixed
bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlclipsim.artifacts import atomic

__all__ = [
    "ARM_STYLES",
    "CLASSES",
    "COLOURS",
    "LAYOUT_MM",
    "TASKS",
    "VERDICT_COLOURS",
    "VOTER_COLOURS",
    "Millimetres",
    "arm_order",
    "caveat",
    "footer",
    "label",
    "page",
    "tidy_axes",
]

MM = 1 / 25.4  # inches
LAYOUT_MM = 174.0  # what figures are laid out for

# Okabe and Ito's palette: told apart with any colour vision, and in grey by lightness. Vermilion is ours
# alone.
COLOURS = {
    "ours": "#D55E00",
    "fidelity": "#0072B2",
    "perceptual": "#009E73",
    "machine": "#E69F00",  # as the seen voters, of which it is one
    "prior": "#CC79A7",
    "control": "#7F7F7F",
    "ceiling": "#000000",
}
CLASSES = {  # in the order in which tables list them
    "ours": "CLIP similarity",
    "fidelity": "Fidelity metrics",
    "perceptual": "Perceptual metrics",
    "machine": "One machine",
    "prior": "Rules without pixels",
    "control": "Controls",
    "ceiling": "Ceilings",
}
VERDICT_COLOURS = {"holds": "#009E73", "fails": "#D55E00", "not_tested": "#7F7F7F"}
TASKS = ("classification", "detection", "segmentation")
# Lines of the codecs' arms, in the order in which tables and legends list them.
ARM_STYLES: dict[str, dict[str, Any]] = {
    "ml_clipsim": {"color": "#D55E00", "marker": "o", "linewidth": 1.6, "zorder": 4},
    "ml_clipsim_uniform": {"color": "#E69F00", "marker": "s"},
    "clip_global": {"color": "#CC79A7", "marker": "^"},
    "deep_features": {"color": "#009E73", "marker": "v"},
    "task_kl": {"color": "#56B4E9", "marker": "D"},
    "decoder_only": {"color": "#D55E00", "marker": "o", "linestyle": (0, (1, 1)), "markerfacecolor": "white"},
    "ms_ssim": {"color": "#0072B2", "marker": "<", "linestyle": (0, (4, 1.5))},
    "mse": {"color": "#0072B2", "marker": "o"},
    "base": {"color": "#7F7F7F", "marker": "x", "linestyle": (0, (1, 1))},
}
VOTER_COLOURS = {"held_out": "#56B4E9", "seen": "#E69F00"}
_NAMES = {
    "ml_clipsim": "ML-CLIPSim",
    "ml_clipsim_uniform": "uniform weights",
    "clip_global": "global embedding",
    "best_single_layer": "best single layer",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "iw_ssim": "IW-SSIM",
    "gmsd": "GMSD",
    "ms_gmsd": "MS-GMSD",
    "vif_p": "VIF (pixel)",
    "fsim": "FSIM",
    "vsi": "VSI",
    "haarpsi": "HaarPSI",
    "mdsi": "MDSI",
    "dss": "DSS",
    "sr_ssim": "SR-SIM",
    "lpips": "LPIPS",
    "lpips_vgg": "LPIPS (VGG)",
    "lpips_squeeze": "LPIPS (SqueezeNet)",
    "dists": "DISTS",
    "pieapp": "PieAPP",
    "dreamsim": "DreamSim",
    "topiq_fr": "TOPIQ-FR",
    "afine": "A-FINE",
    "one_classifier_kl": "one classifier's KL",
    "supervised_layers": "supervised layers",
    "deep_features": "deep features (LPIPS-like)",
    "family_prior": "family prior",
    "shuffled_labels": "shuffled labels",
    "untrained": "untrained encoder",
    "machine_utility": "machine utility",
    "mse": "MSE",
    "task_kl": "task network's KL",
    "decoder_only": "ML-CLIPSim, decoder only",
    "base": "before fine-tuning",
    "gaussian_noise": "Gaussian noise",
    "gaussian_blur": "Gaussian blur",
    "jpeg": "JPEG",
    "jpeg2000": "JPEG 2000",
    "webp": "WebP",
    "avif": "AVIF",
    "down_up_sampling": "down-up-sampling",
    "seen": "seen voters",
    "held_out": "held-out voters",
    "pcmp_train": "train",
    "pcmp_val": "val",
    "pcmp_test": "test",
}
# What a result of a preset is not: said wherever one is shown.
_CAVEATS = {
    "embedded": "synthetic scenes and small networks; no statement about photographs",
    "ci": "a cut-down embedded run that proves the line works, nothing more",
    "local": "all networks but the detector share ImageNet supervision",
}


def label(name: str) -> str:
    """How a metric, family, voter group or role is written for readers."""
    return _NAMES.get(name, name.replace("_", " "))


def arm_order(arm: str) -> tuple[int, str]:
    """Sorts arms as :data:`ARM_STYLES` lists them, reference lines after them by name."""
    names = list(ARM_STYLES)
    return (names.index(arm) if arm in names else len(names), arm)


def caveat(preset: str) -> str:
    """What a reader must know about a preset before believing its figures; empty for a full study."""
    return _CAVEATS.get(preset, "")


def footer(spec: dict[str, Any]) -> str:
    """The line under every table and figure: which preset and run made it, and the preset's caveat."""
    parts = [f"preset {spec['preset']}", f"run {spec['run']}", caveat(spec["preset"])]
    return ", ".join(parts[:2]) + (f": {parts[2]}" if parts[2] else "") + "."


@contextmanager
def page(
    spec: dict[str, Any], outputs: dict[str, Path], height_mm: float, *, columns: int = 2
) -> Iterator[Figure]:
    """A figure of the journal's width to draw on; on leaving, the footer is set and pdf, svg and png are
    written.

    Nothing is kept but the drawing: no dates, no versions, and SVG ids from a fixed salt, so that the same
    data give the same bytes.

    Args:
        spec: ``preset``, ``run``, and ``style``, an entry of ``config/catalog/styles.yaml``.
        outputs: paths by format; formats that are not asked for are not written.
        height_mm: the same in every style: text needs its room below and above however narrow a page is.
        columns: of the page that it spans, 1 or 2.
    """
    style = spec["style"]
    size = style["font_size_pt"]
    width_mm = style["width_mm"] if columns == 2 else style["column_mm"]
    settings: Any = {
        "font.family": style["font"],
        "font.size": size - 1,
        "axes.titlesize": size - 1,
        "axes.labelsize": size - 1,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.labelsize": size - 2,
        "ytick.labelsize": size - 2,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "legend.fontsize": size - 2,
        "legend.frameon": False,
        "lines.linewidth": 1.0,
        "pdf.fonttype": 42,
        "svg.hashsalt": "mlclipsim",
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width_mm * MM, height_mm * MM))
        yield figure
        figure.text(
            0.995,
            0.6 * MM / figure.get_figheight(),
            footer(spec),
            fontsize=size - 3,
            color="0.45",
            ha="right",
            va="bottom",
            wrap=True,
        )
        metadata = {
            "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
            "svg": {"Date": None, "Creator": None},
            "png": {"Software": None},
        }
        for kind, nothing in metadata.items():
            if kind in outputs:
                with atomic(outputs[kind]) as temporary:
                    figure.savefig(temporary, format=kind, dpi=style["dpi"], metadata=nothing)


class Millimetres:
    """Axes at places in mm from the lower left, on a page of :data:`LAYOUT_MM`; on one of another width they
    move and stretch sideways.
    """

    def __init__(self, figure: Figure):
        self.figure = figure
        self.width, self.height = LAYOUT_MM, figure.get_figheight() / MM

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        wide, high = self.width, self.height
        return self.figure.add_axes((x / wide, y / high, width / wide, height / high))


def tidy_axes(axes: Axes) -> None:
    """Light horizontal guides behind the data."""
    axes.grid(axis="y", color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
