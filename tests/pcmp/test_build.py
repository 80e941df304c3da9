"""The steps that build PCMP: same bytes whatever the workers, matched pairs, drawn sides, counted drops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from skimage import data

from mlclipsim.artifacts import read_table, write_table
from mlclipsim.images import decode_image, encode_image
from mlclipsim.pcmp import build
from mlclipsim.pcmp.dataset import load
from mlclipsim.pcmp.match import psnr_db

PCMP = {
    "families": ["gaussian_noise", "gaussian_blur", "jpeg", "contrast", "brightness"],
    "targets_db": [22.0, 28.0],
    "families_per_block": 4,
    "tolerance_db": 0.05,
    "pair_tolerance_db": 0.1,
}


def write_references(path, count: int = 20) -> None:
    source = data.astronaut()
    rows = []
    for i in range(count):
        y, x = (i * 37) % 400, (i * 91) % 400
        image = np.full((48, 48, 3), 90, np.uint8) if i == 3 else source[y : y + 48, x : x + 48]
        role = ("pcmp_train", "pcmp_test", "zoo_val")[i % 3 if i != 3 else 0]
        rows.append((f"r{i:03d}", "astronaut", role, 1, "", encode_image(np.ascontiguousarray(image))))
    columns = ["reference_id", "photograph", "role", "label", "caption", "image"]
    write_table(path, pd.DataFrame(rows, columns=columns), "references")


def run(folder, references, threads: int = 1, seed: int = 5):
    spec = {"seed": seed, "threads": threads, "pcmp": PCMP}
    drops = folder / "drops_in.parquet"
    build.distort(spec, {"references": references}, {"images": folder / "images.parquet", "drops": drops})
    build.pair(
        spec,
        {"images": folder / "images.parquet", "drops_in": drops},
        {"pairs": folder / "pairs.parquet", "drops": folder / "drops.parquet"},
    )
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    write_references(folder / "references.parquet")
    return run(folder, folder / "references.parquet")


def test_images_are_what_their_rows_say(built):
    images = read_table(built / "images.parquet", "images")
    references = read_table(built / "references.parquet", "references").set_index("reference_id")
    assert set(images["role"]) == {"pcmp_train", "pcmp_test"}  # zoo_val is not distorted
    assert images["image_id"].is_unique
    for row in images.itertuples():
        assert row.image_id == f"{row.reference_id}.{row.target_db:g}.{row.family}"
        attained = psnr_db(decode_image(references.at[row.reference_id, "image"]), decode_image(row.image))
        assert attained == row.psnr_db
        assert abs(row.psnr_db - row.target_db) <= 0.3


def test_blocks_have_the_same_families_at_every_target(built):
    tried = read_table(built / "images.parquet", "images").groupby("reference_id")["family"].nunique()
    assert tried.max() == 4
    assert (tried >= 3).mean() > 0.9


def test_pairs_lie_within_the_tolerance_and_cover_every_matching_pair(built):
    images = read_table(built / "images.parquet", "images").set_index("image_id")
    pairs = read_table(built / "pairs.parquet", "pairs")
    assert (pairs["psnr_a_db"] - pairs["psnr_b_db"]).abs().max() <= 0.1
    expected = set()
    for _, block in images.reset_index().groupby(["reference_id", "target_db"]):
        for a, b in combinations(block.itertuples(), 2):
            if abs(a.psnr_db - b.psnr_db) <= 0.1:
                expected.add(frozenset((a.image_id, b.image_id)))
    assert {frozenset(p) for p in zip(pairs["image_a"], pairs["image_b"], strict=True)} == expected
    assert pairs["pair_id"].is_unique
    for side in ("a", "b"):
        assert (images.loc[pairs[f"image_{side}"], "family"].to_numpy() == pairs[f"family_{side}"]).all()
        assert (images.loc[pairs[f"image_{side}"], "psnr_db"].to_numpy() == pairs[f"psnr_{side}_db"]).all()
    photometric = pairs["family_a"].isin(["contrast", "brightness"]) | pairs["family_b"].isin(
        ["contrast", "brightness"]
    )
    assert (photometric == pairs["photometric"]).all()


def test_sides_are_drawn(built):
    pairs = read_table(built / "pairs.parquet", "pairs")
    share = (pairs["family_a"] < pairs["family_b"]).mean()
    assert abs(share - 0.5) < 3.5 * 0.5 / np.sqrt(len(pairs))
    assert 0.25 < (pairs["psnr_a_db"] > pairs["psnr_b_db"]).mean() < 0.75


def test_everything_attempted_is_kept_or_counted(built):
    images = read_table(built / "images.parquet", "images", columns=["reference_id"])
    drops = read_table(built / "drops.parquet", "drops")
    n_references = 14  # of 20, six are zoo_val
    unattained = drops[drops["cause"].str.startswith("unattainable")]["count"].sum()
    assert len(images) + unattained == n_references * 4 * len(PCMP["targets_db"])
    assert (
        (drops["family"] == "gaussian_blur") & (drops["cause"] == "unattainable_low")
    ).any()  # the flat reference
    pairs = len(read_table(built / "pairs.parquet", "pairs"))
    unmatched = drops[drops["cause"] == "unmatched_pair"]["count"].sum()
    blocks = read_table(built / "images.parquet", "images").groupby(["reference_id", "target_db"]).size()
    assert pairs + unmatched == (blocks * (blocks - 1) // 2).sum()


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(built, tmp_path):
    run(tmp_path, built / "references.parquet", threads=2)
    for name in ("images", "drops_in", "pairs", "drops"):
        assert (tmp_path / f"{name}.parquet").read_bytes() == (built / f"{name}.parquet").read_bytes()


def test_the_order_of_the_references_changes_no_image(built, tmp_path):
    references = read_table(built / "references.parquet", "references").iloc[::-1]
    write_table(tmp_path / "references.parquet", references, "references")
    run(tmp_path, tmp_path / "references.parquet")
    for table, key in (("images", "image_id"), ("pairs", "pair_id")):
        one, other = (read_table(f / f"{table}.parquet", table).sort_values(key) for f in (built, tmp_path))
        pd.testing.assert_frame_equal(one.reset_index(drop=True), other.reset_index(drop=True))


def test_an_unknown_family_fails_before_any_work(built, tmp_path):
    spec = {"seed": 1, "threads": 1, "pcmp": PCMP | {"families": ["jpg", "contrast"]}}
    with pytest.raises(ValueError, match="did you mean 'jpeg'"):
        build.distort(
            spec,
            {"references": built / "references.parquet"},
            {"images": tmp_path / "i", "drops": tmp_path / "d"},
        )


def test_no_pair_at_all_is_an_error(built, tmp_path):
    images = read_table(built / "images.parquet", "images").iloc[:1]
    write_table(tmp_path / "images.parquet", images, "images")
    with pytest.raises(ValueError, match="found none among 1 images"):
        build.pair(
            {"seed": 1, "pcmp": PCMP},
            {"images": tmp_path / "images.parquet", "drops_in": built / "drops_in.parquet"},
            {"pairs": tmp_path / "pairs.parquet", "drops": tmp_path / "drops.parquet"},
        )


def test_load_finds_tables_in_their_folders(built, tmp_path):
    frames = load(tmp_path, built, tables=["pairs", "images"])
    assert len(frames["pairs"])
    assert "image" not in frames["images"]
    assert "image" in load(built, tables=["images"], pixels=True)["images"]
    with pytest.raises(ValueError, match="PCMP has no table 'pear'"):
        load(built, tables=["pear"])
    with pytest.raises(RuntimeError, match=r"labels\.parquet is not in"):
        load(built, tables=["labels"])
