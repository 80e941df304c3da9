"""The preset `paper`, walked through: its own rules, its catalogs pointed at tiny files of the true formats.

Weights are random and images are few, so that no figure means anything; that everything is fetched, checked,
read and carried through to tables and figures is what is seen here. All comes from a server on this machine.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from mlclipsim.spec import project_root, read_yaml

from ..datasets.judged import TREES, picture
from ..test_encoders import openai_archive
from ..webserver import Web, serving

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

CATALOG = project_root() / "config" / "catalog"
DATASETS = read_yaml(CATALOG / "datasets.yaml")
HUMAN = ["live", "csiq", "tid2013", "kadid10k", "pipal", "bapps"]  # those of the preset
MACHINES = [  # a builder, a task or a place in the workflow each
    "efficientnet-b0",
    "mobilenetv3-large",
    "lraspp-mobilenetv3",
    "regnety-016",
    "squeezenet1-1-torchvision",
    "shufflenetv2-x1-0",
    "ssd-vgg16",
    "deeplabv3-resnet50",
]
CLIP = "ViT-B-32-quickgelu"
ROLES = {
    "pcmp_train": 4,
    "pcmp_val": 2,
    "pcmp_test": 4,
    "codec_train": 2,
    "codec_val": 2,
    "rate_task_test": 2,
}
SETTING = {
    "encoders": ["vit-b-32-openai", "vit-b-32-state-dict", "vit-b-32-safetensors"],
    "batch_size": 8,
    "references": {"roles": ROLES},
    "pcmp": {"families": ["gaussian_noise", "gaussian_blur", "jpeg", "contrast"], "targets_db": [25.0]},
    "folds": [{"seen": MACHINES[:3], "held_out": MACHINES[3:6]}],
    "fit": {"penalties": [0.0, 0.01], "bootstrap": 5},
    "human": {"datasets": HUMAN},
    "metrics": ["psnr", "ssim"],
    "benchmark": {"resamples": 20},
    "ablation": {"references": [2], "pairs": [10], "draws": 1, "tie_scales": [2.0]},
    "cost": {"images": 1, "rounds": 1},
    "compression": {
        "arms": ["mse", "ml_clipsim"],
        "points": ["q1", "q3"],
        "trial_point": "q3",
        "seeds": 1,
        "train": {"codec_train": 2},
        "validation": {"codec_val": 2},
        "trial_images": {"codec_val": 2},
        "steps": 2,
        "batch": 1,
        "validations": 1,
        "balance_images": 1,
        "rhos": [1.0],
        "learning_rates": [0.0001],
        "judges": {"test": [MACHINES[3], *MACHINES[6:]], "validation": ["mobilenetv3-large"]},
    },
    "rate_task": {
        "images": [
            {"source": "imagenet-val", "count": 2, "columns": 1, "tasks": ["classification"]},
            {"source": "coco128-val", "count": 2, "columns": 1, "tasks": ["detection", "segmentation"]},
            {"source": "kodak", "count": 1, "columns": 1, "tasks": []},
        ],
        "codecs": ["jpeg"],
        "resamples": 10,
        "shown": 1,
    },
}


@pytest.fixture
def web(monkeypatch) -> Iterator[Web]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as web:
        yield web


def publish(web: Web, path: Path) -> dict[str, Any]:
    """Put a file on the server; what a catalog says of it."""
    with path.open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    url = web.put(f"/{path.name}", content)  # type: ignore[arg-type]
    return {"url": url, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def pack(folder: Path, archive: Path, top: str = "") -> Path:
    """All files of a folder as an archive, in which they lie below ``top``."""
    files = [
        (path, Path(top) / path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for path, name in files:
                zipped.write(path, name)
    else:
        with tarfile.open(archive, "w:gz") as tarred:
            for path, name in files:
                tarred.add(path, name)
    return archive


# Data sets


def photographs(number: int) -> list[np.ndarray]:
    """Different ones, uint8 (230, 240, 3)."""
    from mlclipsim.world import scenes

    found = []
    for name in scenes.PHOTOGRAPHS:
        image = scenes.load_photograph(name)
        if min(image.shape[:2]) >= 240 and len(found) < number:
            found.append(np.ascontiguousarray(image[:230, :240]))
    assert len(found) == number
    return found


def imagenet_val(root: Path) -> None:
    (root / "images").mkdir(parents=True)
    lines = ["filename,class_index,class_name"]
    for number, image in enumerate(photographs(sum(ROLES.values()))):
        name = f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        Image.fromarray(image).save(root / "images" / name, quality=95)
        lines.append(f'{name},{number},"class {number}, another word"')
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def coco128_val(root: Path) -> None:
    for folder in ("images", "semantic_masks"):
        (root / folder).mkdir(parents=True)
    images, annotations = [], []
    for number, image in enumerate(photographs(2)):
        name = f"{number:012d}"
        Image.fromarray(image).save(root / "images" / f"{name}.jpg")
        mask = np.full(image.shape[:2], 1 + number, np.uint8)
        Image.fromarray(mask).save(root / "semantic_masks" / f"{name}.png")
        images.append({"id": number, "file_name": f"{name}.jpg"})
        annotations.append({"image_id": number, "category_id": 1, "bbox": [10, 10, 80, 90]})
    categories = [{"id": number, "name": str(number)} for number in range(1, 81)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))


def data_sets(web: Web, work: Path) -> dict[str, Any]:
    """Entries of the catalog for tiny trees: what is fetched, and how many files there are then."""
    found: dict[str, Any] = {}
    for name, make in [("imagenet-val", imagenet_val), ("coco128-val", coco128_val)] + [
        (name, TREES[name]) for name in HUMAN
    ]:
        root = work / name
        make(root)
        if name == "live":  # of these distortions it has undistorted originals only
            for folder in ("jp2k", "gblur", "fastfading"):
                picture(root / folder / "img1.bmp", 0)
        patterns = DATASETS[name].get("tree") or {"images/*": 0, "labels.csv": 0}
        found[name] = {"tree": {pattern: len(list(root.glob(pattern))) for pattern in patterns}}
        if name not in ("csiq", "bapps"):
            archive = pack(root, work / f"{name}.zip", top=name)
            found[name]["remote"] = {archive.name: publish(web, archive)}
    found["tid2013"]["remote"]["tid2013.rar"] = None  # RAR is nothing that we could write

    # As their authors pack them.
    csiq, bapps = work / "csiq", work / "bapps"
    parts = [csiq / "csiq.DMOS.xlsx", *(pack(csiq / n, work / f"{n}.zip") for n in ("src_imgs", "dst_imgs"))]
    found["csiq"]["remote"] = {path.name: publish(web, path) for path in parts}
    archive = pack(bapps / "2afc", work / "twoafc_val.tar.gz")
    found["bapps"]["remote"] = {archive.name: publish(web, archive)}

    kodak = {}
    for number, file in enumerate(DATASETS["kodak"]["sha256"]):
        path = work / file
        Image.fromarray(photographs(1)[0][number : number + 64, :64]).save(path)
        kodak[file] = publish(web, path)["sha256"]
    found["kodak"] = {"url": f"{web.address}/", "sha256": kodak}
    return found


# Networks


def random_machine(entry: dict[str, Any]) -> Any:
    if entry["builder"] == "timm":
        import timm

        return timm.create_model(entry["architecture"])
    from torchvision import models

    backbone = {} if entry["task"] == "classification" else {"weights_backbone": None}
    return models.get_model(entry["architecture"], weights=None, **backbone)


def machines(web: Web, work: Path) -> dict[str, Any]:
    from safetensors.torch import save_file

    catalog, found = read_yaml(CATALOG / "machines.yaml"), {}
    for name in MACHINES:
        entry = catalog[name]
        state = random_machine(entry).state_dict()
        path = work / f"{name}.safetensors"
        save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)
        found[name] = {"weights": f"assets:weights/{path.name}"} | publish(web, path)
        if entry["task"] != "classification":
            found[name]["arguments"] = {"weights_backbone": None}
    found["deeplabv3-resnet50"]["input_size"] = 64  # a hundredth of the work
    return found


def encoders(web: Web, work: Path) -> dict[str, Any]:
    """One random network in each format that is read."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    network = open_clip.create_model(CLIP, pretrained=None)
    paths = {"vit-b-32-openai": openai_archive(work / "ViT-B-32.pt", network)}  # halves the network, too
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    paths["vit-b-32-state-dict"] = work / "state_dict.pt"
    torch.save({"state_dict": state}, paths["vit-b-32-state-dict"])
    paths["vit-b-32-safetensors"] = work / "clip.safetensors"
    save_file(state, paths["vit-b-32-safetensors"])
    return {
        name: {
            "source": "checkpoint",
            "model": CLIP,
            "family": "vit",
            "checkpoint": f"assets:weights/{path.name}",
        }
        | publish(web, path)
        for name, path in paths.items()
    }


def codecs(web: Web, work: Path) -> dict[str, Any]:
    """CompressAI's own files are pickled state dicts; its smallest hyperprior, narrower still."""
    import torch

    from mlclipsim.compression.codecs import build, update_tables

    points = {}
    for number in range(1, 9):
        torch.manual_seed(0)
        network = build("bmshj2018-hyperprior", (8, 12))
        network.g_a[-1].weight.data *= 10 * number  # else all latents round to zero; and rates must rise
        network.h_s[-2].bias.data += 5.0 * number  # scales that fit them, or payloads are not the entropy
        update_tables(network)
        path = work / f"bmshj2018-hyperprior-{number}.pth.tar"
        torch.save(network.state_dict(), path)
        points[f"q{number}"] = {"weights": f"assets:weights/{path.name}"} | publish(web, path)
    return {"bmshj2018-hyperprior": {"channels": [8, 12], "points": points}}


@pytest.fixture
def setting(web, tmp_path) -> Path:
    """The configfile that points the catalogs at the server."""
    import torch

    work = tmp_path / "published"
    work.mkdir()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about networks without weights
        torch.manual_seed(0)
        catalog = {
            "datasets": data_sets(web, work),
            "machines": machines(web, work),
            "encoders": encoders(web, work),
            "codecs": codecs(web, work),
        }
    path = tmp_path / "tiny.yaml"
    assets = {"assets_dir": str(tmp_path / "assets")}
    path.write_text(yaml.safe_dump(SETTING | assets | {"catalog": catalog}))
    return path


def test_from_an_empty_machine_to_tables_and_figures(project, web, setting, tmp_path):
    paper = ["--cores", "2", "--config", "preset=paper", "--configfile", str(setting)]

    done = project.snakemake("fetch", *paper)
    assert len(web.asked) == len(web.files)  # each file once
    project.snakemake("fetch", "fetch_vit_b_32_openai", "fetch_kodak", *paper)
    assert len(web.asked) == len(web.files), done.stderr  # all is there
    catalog = yaml.safe_load(setting.read_text())["catalog"]
    project.snakemake(*[f"check_{name.replace('-', '_')}" for name in catalog["datasets"]], *paper)

    # Every data set was read by its check; two of them, one of each kind of opinions, go on to the end.
    judged = tmp_path / "judged.yaml"
    judged.write_text("human: {datasets: [csiq, bapps]}\n")
    paper.append(str(judged))
    project.snakemake("all", "report", *paper)
    run = project.root / "results/paper/default"
    for number in range(1, 10):
        assert (run / f"tables/table_{number}.csv").stat().st_size > 0
    for number in range(1, 9):
        assert (run / f"figures/figure_{number}.pdf").stat().st_size > 0
    assert {"csiq", "bapps"} <= set(pd.read_csv(run / "tables/table_3.csv")["dataset"])
    assert "Severity: not run" in (run / "tables/table_2.md").read_text(encoding="utf-8")  # of one PSNR
    record = json.loads((run / "provenance/table_2.json").read_text())
    assert record["made_from"]["preset"] == "paper"
    assert project.jobs(*paper[2:]) == {}
