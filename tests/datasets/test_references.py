"""References from scenes and from a folder of photographs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data

from mlclipsim.artifacts import ArtifactError, read_table
from mlclipsim.datasets import references
from mlclipsim.images import ImageError, decode_image
from mlclipsim.world.scenes import PHOTOGRAPHS


def run(folder, **settings):
    outputs = {name: folder / f"{name}.parquet" for name in ("partition", "references")}
    references.build({"seed": settings.pop("seed", 1), "references": settings}, {}, outputs)
    return {name: read_table(path, name) for name, path in outputs.items()}


SCENES = {"reader": "scenes", "path": None, "labels": None}


def test_scenes_take_the_role_of_their_photograph(tmp_path):
    tables = run(tmp_path, dataset=SCENES, size=64, roles={"pcmp_train": 5, "pcmp_test": 4})
    frame = tables["references"]
    assert frame["role"].tolist() == ["pcmp_train"] * 5 + ["pcmp_test"] * 4
    assert (frame["photograph"].map(PHOTOGRAPHS) == frame["role"]).all()
    assert frame["reference_id"].is_unique
    assert (
        dict(zip(tables["partition"]["photograph"], tables["partition"]["role"], strict=True)) == PHOTOGRAPHS
    )
    assert all(decode_image(image).shape == (64, 64, 3) for image in frame["image"])
    assert frame["label"].between(0, 9).all()


def test_a_scene_depends_on_seed_and_number_only(tmp_path):
    one = run(tmp_path, dataset=SCENES, size=64, roles={"pcmp_train": 3, "pcmp_test": 2})["references"]
    two = run(tmp_path, dataset=SCENES, size=64, roles={"pcmp_train": 6, "pcmp_test": 2})["references"]
    both = one.merge(two, on="reference_id")
    assert len(both) == 5
    assert (both["image_x"] == both["image_y"]).all()
    other = run(tmp_path, dataset=SCENES, size=64, roles={"pcmp_train": 3}, seed=2)["references"]
    assert not set(other["image"]) & set(one["image"])


def test_a_photograph_in_two_roles_is_refused(tmp_path, monkeypatch):
    from mlclipsim.world import scenes

    copies = {"cat": "pcmp_train", "same cat": "pcmp_test"}
    monkeypatch.setattr(scenes, "PHOTOGRAPHS", copies)
    shots = {
        "cat": data.chelsea(),
        "same cat": np.asarray(Image.fromarray(data.chelsea()).resize((300, 200))),
    }
    monkeypatch.setattr(scenes, "load_photograph", shots.__getitem__)
    with pytest.raises(ArtifactError, match="same near-duplicates plays several"):
        run(tmp_path, dataset=SCENES, size=64, roles={"pcmp_train": 1})


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photographs"
    (folder / "images").mkdir(parents=True)
    lines = ["filename,class_index,class_name"]
    for i in range(12):
        source = (data.astronaut(), data.chelsea(), data.coffee())[i % 3]
        y, x = (i // 3 * 50) % 180, (i // 3 * 60) % 180
        Image.fromarray(source[y : y + 100, x : x + 100]).save(folder / "images" / f"p{i:02d}.png")
        lines.append(f'p{i:02d}.png,{i},"thing {i}, other word"')
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def entry(folder, **changes):
    return {"reader": "photographs", "path": str(folder), "labels": "labels.csv"} | changes


ROLES = {"zoo_train": 5, "pcmp_train": 4, "pcmp_test": 3}


def test_photographs_are_cropped_labelled_and_partitioned(folder, tmp_path):
    tables = run(tmp_path, dataset=entry(folder), size=96, roles=ROLES)
    assert tables["partition"]["role"].value_counts().to_dict() == ROLES
    frame = tables["references"]
    assert frame["role"].value_counts().to_dict() == ROLES
    row = frame.iloc[0]
    stored = np.asarray(Image.open(folder / "images" / f"{row['photograph']}.png"))
    np.testing.assert_array_equal(decode_image(row["image"]), stored[2:98, 2:98])  # cropped, not resampled
    number = int(row["photograph"][1:])
    assert row["label"] == number
    assert row["caption"] == f"a photo of a thing {number}"


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    for name in ("one", "two"):
        run(tmp_path / name, dataset=entry(folder), size=96, roles=ROLES)
    for name in ("partition", "references"):
        assert (tmp_path / "one" / f"{name}.parquet").read_bytes() == (
            tmp_path / "two" / f"{name}.parquet"
        ).read_bytes()


def test_a_plain_folder_has_no_labels(folder, tmp_path):
    frame = run(tmp_path, dataset=entry(folder / "images", labels=None), size=64, roles={"pcmp_test": 3})[
        "references"
    ]
    assert (frame["label"] == -1).all()
    assert frame["caption"].isna().all()


def test_a_large_photograph_is_reduced_first():
    image = data.astronaut()  # 512
    small = references.square(image, 224)
    expected = np.asarray(Image.fromarray(image).resize((256, 256), Image.Resampling.BICUBIC))[16:240, 16:240]
    np.testing.assert_array_equal(small, expected)


def test_small_photographs_are_refused(folder, tmp_path):
    with pytest.raises(
        ValueError, match=r"p\d\d\.png: expected at least 128 pixels on each side, got 100x100"
    ):
        run(tmp_path, dataset=entry(folder), size=128, roles={"pcmp_test": 1})


def test_a_truncated_photograph_is_named(folder, tmp_path):
    path = folder / "images" / "p03.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError, match=r"p03\.png: truncated or damaged"):
        run(tmp_path, dataset=entry(folder), size=96, roles=ROLES)


def test_missing_folder_labels_and_rows(folder, tmp_path):
    with pytest.raises(ArtifactError, match="fetch it or set MLCLIPSIM_ASSETS"):
        run(tmp_path, dataset=entry(tmp_path / "none"), size=96, roles=ROLES)
    with pytest.raises(ArtifactError, match=r"other\.csv are not there"):
        run(tmp_path, dataset=entry(folder, labels="other.csv"), size=96, roles=ROLES)
    (folder / "labels.csv").write_text("filename,class_index,class_name\np00.png,0,thing\n")
    with pytest.raises(ArtifactError, match="for every image, found no 'p01'"):
        run(tmp_path, dataset=entry(folder), size=96, roles=ROLES)


def test_too_few_photographs_and_unknown_readers(folder, tmp_path):
    with pytest.raises(ValueError, match="expected at least 30 distinct photographs"):
        run(tmp_path, dataset=entry(folder), size=96, roles={"pcmp_test": 30})
    with pytest.raises(ValueError, match="reader 'coco' of references is unknown"):
        run(tmp_path, dataset=entry(folder, reader="coco"), size=96, roles=ROLES)
    with pytest.raises(ValueError, match=r"no photograph plays the roles \['pcmp_tset'\]"):
        run(tmp_path, dataset=SCENES, size=64, roles={"pcmp_tset": 3})
