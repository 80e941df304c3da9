"""Tiny trees in the layouts in which the authors distribute their data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from scipy.io import savemat

from mlclipsim.datasets.live import SIZES

SIDE = (24, 32)  # rows, columns


def picture(path: Path, seed: int, size: tuple[int, int] = SIDE) -> None:
    """A noise image in the format of the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def live(root: Path) -> None:
    """Two images of jpeg and one of wn are no originals; sizes differ between the two references."""
    total, starts = sum(SIZES.values()), dict(zip(SIZES, np.cumsum([0, *SIZES.values()])[:-1], strict=True))
    original, dmos = np.ones(total, np.uint8), np.zeros(total)
    names = np.full(total, "buildings.bmp", object)
    for distortion, place, reference, value in (
        ("jpeg", 1, "ocean.bmp", 61.5),
        ("jpeg", 3, "buildings.bmp", 20.25),
        ("wn", 2, "ocean.bmp", 33.0),
    ):
        row = starts[distortion] + place - 1
        original[row], dmos[row], names[row] = 0, value, reference
        size = SIDE if reference == "ocean.bmp" else (32, 24)
        picture(root / distortion / f"img{place}.bmp", row, size)
        with (root / distortion / "info.txt").open("a") as info:
            info.write(f"{reference} img{place}.bmp 0.5\n")
    picture(root / "refimgs" / "ocean.bmp", 1)
    picture(root / "refimgs" / "buildings.bmp", 2, (32, 24))
    savemat(root / "refnames_all.mat", {"refnames_all": names[None]})
    savemat(root / "dmos.mat", {"dmos": dmos[None] + 1, "orgs": original[None]})
    savemat(root / "dmos_realigned.mat", {"dmos_new": dmos[None], "orgs": original[None]})


def csiq(root: Path) -> None:
    """As in the authors' workbook: a title above the heads, empty columns before them."""
    rows = []
    for kind, folder, file, dmos in (
        ("noise", "awgn", "AWGN", 0.062),
        ("jpeg 2000", "jpeg2000", "jpeg2000", 0.5),
        ("blur", "blur", "BLUR", 0.91),
    ):
        picture(root / "dst_imgs" / folder / f"1600.{file}.2.png", 1 + len(rows))
        rows.append([1600, 1, kind, 2, 0.1, dmos])
    picture(root / "src_imgs" / "1600.png", 9)
    table = pd.DataFrame(rows, columns=["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"])
    with pd.ExcelWriter(root / "csiq.DMOS.xlsx") as book:
        pd.DataFrame([["CSIQ DMOS"]]).to_excel(book, sheet_name="all_by_image", header=False, index=False)
        table.to_excel(book, sheet_name="all_by_image", startrow=3, startcol=3, index=False)


def tid2013(root: Path) -> None:
    """The table has capital letters where the files have none, and another order than they."""
    for name in ("i02_10_1", "i01_08_3", "i01_08_1"):
        picture(root / "distorted_images" / f"{name}.bmp", len(name))
    picture(root / "reference_images" / "I01.BMP", 1)
    picture(root / "reference_images" / "i02.bmp", 2)
    lines = ["5.51429 I01_08_1.bmp", "3.25000 I01_08_3.bmp", "4.10000 i02_10_1.bmp"]
    (root / "mos_with_names.txt").write_text("\r\n".join(lines) + "\r\n")


def kadid10k(root: Path) -> None:
    for name in ("I01", "I01_01_01", "I01_25_05"):
        picture(root / "images" / f"{name}.png", len(name))
    rows = ["dist_img,ref_img,dmos,var", "I01_01_01.png,I01.png,4.57,0.496", "I01_25_05.png,I01.png,1.2,0.3"]
    (root / "dmos.csv").write_text("\n".join(rows) + "\n")


def pipal(root: Path) -> None:
    """Images lie in folders below, as the four archives unpack."""
    (root / "Train_Label").mkdir(parents=True)
    for reference in ("A0001", "A0002"):
        picture(root / "Train_Ref" / f"{reference}.bmp", 1)
        for number, part in enumerate(("Distortion_1", "Distortion_2")):
            picture(root / "Train_Distort" / part / f"{reference}_0{number}_07.bmp", number)
        lines = [f"{reference}_00_07.bmp,1466.8", f"{reference}_01_07.bmp, 1301.2"]
        (root / "Train_Label" / f"{reference}.txt").write_text("\n".join(lines) + "\n")


def mpd(root: Path) -> None:
    """As the catalog assumes: nobody has published the layout."""
    lines = ["reference,distorted,distortion,mos"]
    for number, (name, mos) in enumerate((("a_1.png", 3.5), ("a_2.png", 1.25))):
        picture(root / "distorted" / name, number)
        lines.append(f"a.png,{name},lens blur,{mos}")
    picture(root / "reference" / "a.png", 9)
    (root / "mos.csv").write_text("\n".join(lines) + "\n")


def miqd(root: Path) -> None:
    """The tree of its page, the columns that the authors' loader reads. The third reference is not listed."""
    for number, reference in enumerate(("00000012", "00000023", "00000031")):
        name = f"ILSVRC2012_val_{reference}"
        lines = ["dist_images,weighted_consistency,weighted_accuracy"]
        for place, distortion in enumerate(("contrast_1", "gaussian_noise_fg_stronger_fg5_bg3")):
            picture(root / "miqa_cls" / "images" / name / f"{name}_{distortion}.png", number + place)
            lines.append(f"{name}/{name}_{distortion}.png,{0.5 + number / 8},{place}")
        picture(root / "miqa_cls" / "src_images" / f"{name}.JPEG", number)
        labels = root / "miqa_cls" / "labels" / f"{name}_mmos.csv"
        labels.parent.mkdir(exist_ok=True)
        labels.write_text("\n".join(lines) + "\n")
    listed = [f'ILSVRC2012_val_{reference}.JPEG,"a, b",0.8' for reference in ("00000023", "00000012")]
    (root / "miqa_cls_val.csv").write_text("\n".join(["Image Name,Category,Quality Score", *listed]) + "\n")


def _miqd_coco(root: Path, labels: str) -> None:
    name = "000000000139"
    picture(root / "miqa_det" / "images" / name / f"{name}_jpeg_compression_bg_stronger_fg2_bg5.png", 1)
    picture(root / "miqa_det" / "src_images" / f"{name}.jpg", 2)
    for kind, value in (("consistency", 0.75), ("accuracy", 0.25)):
        path = root / labels / "labels" / f"{name}_{kind}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"filename,AP_weighted_avg\n{name}_jpeg_compression_bg_stronger_fg2_bg5.png,{value}\n"
        )
    (root / "miqa_det_val.csv").write_text("Image Index\n577539\n139\n")


def miqd_det(root: Path) -> None:
    _miqd_coco(root, "miqa_det")


def miqd_ins(root: Path) -> None:
    """Labels of its own for the images of ``miqd_det``."""
    _miqd_coco(root, "miqa_ins")


def bapps(root: Path) -> None:
    for number, name in enumerate(("traditional", "cnn", "superres", "deblur", "color", "frameinterp")):
        folder = root / "2afc" / "val" / name
        for side in ("ref", "p0", "p1"):
            picture(folder / side / "000000.png", number)
        (folder / "judge").mkdir()
        np.save(folder / "judge" / "000000.npy", np.array([number / 5], np.float32))


TREES = {
    tree.__name__.replace("_", "-"): tree
    for tree in (live, csiq, tid2013, kadid10k, pipal, mpd, miqd, miqd_det, miqd_ins, bapps)
}
CATALOG = yaml.safe_load(
    (Path(__file__).resolve().parents[2] / "config" / "catalog" / "datasets.yaml").read_text(encoding="utf-8")
)
