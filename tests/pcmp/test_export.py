"""Publishing: the same rows in any number of shards, all there, and a recipe that draws every pixel."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlclipsim.artifacts import ArtifactError, read_table, write_table
from mlclipsim.images import decode_image
from mlclipsim.pcmp.recipe import Pen
from mlclipsim.pcmp.release import Description


def shards(folder) -> pd.DataFrame:
    paths = sorted(folder.glob("images-*.parquet"))
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_one_shard_has_the_rows_of_seven_and_two_exports_are_equal(published, publish, tmp_path):
    publish(tmp_path / "one", shards=1)
    publish(tmp_path / "seven", shards=7)
    publish(tmp_path / "again")
    assert len(list((tmp_path / "seven").glob("images-*"))) == 7
    one, four, seven = (
        shards(f).sort_values("image_id", ignore_index=True)
        for f in (tmp_path / "one", published, tmp_path / "seven")
    )
    pd.testing.assert_frame_equal(one, seven)  # the bytes of every image among them
    pd.testing.assert_frame_equal(one, four)
    assert contents(tmp_path / "again") == contents(published)
    for name in ("recipe", "pairs", "votes"):
        whole = (tmp_path / "one" / f"{name}.parquet").read_bytes()
        assert whole == (published / f"{name}.parquet").read_bytes()


def test_the_order_of_the_tables_changes_no_byte(tables, published, publish, tmp_path):
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    for path in tables.glob("*.parquet"):
        table = path.stem.removesuffix("_in")
        if path.stem == "drops":  # short, sorted by the workflow, kept as it is
            shutil.copy(path, shuffled)
        elif path.stem != "drops_in":
            write_table(shuffled / path.name, read_table(path, table).sample(frac=1, random_state=1), table)
    publish(tmp_path / "pcmp", folders=[shuffled])
    assert contents(tmp_path / "pcmp") == contents(published)


def test_everything_is_there_as_the_workflow_stored_it(tables, published):
    images = shards(published)
    stored = read_table(tables / "images.parquet", "images").set_index("image_id")
    references = read_table(tables / "references.parquet", "references").set_index("reference_id")
    distorted = images[images["family"].notna()].set_index("image_id")
    assert set(distorted.index) == set(stored.index)
    for name, row in distorted.iterrows():
        assert row["image"] == {"bytes": stored.at[name, "image"], "path": f"{name}.webp"}
        assert row["strength"] == stored.at[name, "strength"]
        assert row["label"] == references.at[row["reference_id"], "label"]
    own = images[images["family"].isna()]
    assert set(own["image_id"]) == {f"r{n}" for n in (0, 1, 2, 4, 5, 6, 7)}  # r3 is of zoo_val
    assert Description.read(published).counts["references"] == {
        "pcmp_test": 3,
        "pcmp_train": 3,
        "pcmp_val": 1,
    }


def test_hashes_are_of_the_pixels_and_the_recipe_draws_them(published):
    images = shards(published).set_index("image_id")
    recipe = pd.read_parquet(published / "recipe.parquet")
    assert list(recipe["image_id"]) == list(images.index)
    for row in recipe.itertuples():
        pixels = np.array(Image.open(io.BytesIO(images.at[row.image_id, "image"]["bytes"])))
        assert pixels.shape == (row.height, row.width, 3)
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == row.sha256
        if row.family is not None and not pd.isna(row.family):
            reference = decode_image(images.at[row.reference_id, "image"]["bytes"])
            drawn = Pen(reference).draw(row.family, int(row.field_seed), row.strength)
            np.testing.assert_array_equal(drawn, pixels)


def test_pairs_carry_the_label_of_every_fold_and_group(tables, published):
    pairs = pd.read_parquet(published / "pairs.parquet").set_index("pair_id")
    labels = read_table(tables / "labels.parquet", "labels")
    for row in labels.itertuples():
        assert pairs.at[row.pair_id, f"label_{row.group}_{row.fold}"] == row.label
    assert pairs[[f"label_{g}_{f}" for g in ("seen", "held_out") for f in (0, 1)]].notna().sum().sum() == len(
        labels
    )
    assert pairs["label_held_out_1"].isna().sum() == 1
    votes = pd.read_parquet(published / "votes.parquet")
    assert list(dict.fromkeys(votes["pair_id"])) == list(pairs.index)
    merged = votes.merge(read_table(tables / "votes.parquet", "votes"), on=["pair_id", "voter"])
    assert len(merged) == len(votes)
    pd.testing.assert_series_equal(merged["vote_x"], merged["vote_y"], check_names=False)
    counts = Description.read(published).counts["votes"]["bob"]
    assert counts["abstained"] == -(-len(pairs) // 5)
    assert counts["cast"] + counts["abstained"] == len(pairs)


def test_without_images_the_hashes_of_the_shards_stay(published, publish, tmp_path):
    publish(tmp_path / "pcmp", images=False)
    assert not list((tmp_path / "pcmp").glob("images-*"))
    assert Description.read(tmp_path / "pcmp").shards == Description.read(published).shards


def test_datasheet_says_what_must_be_said(published):
    text = (published / "datasheet.md").read_text()
    for words in (
        "public domain",
        "pcmp_train",
        "libwebp",
        "gaussian_blur",
        "Known limits",
        "| 0 | ada, bob | cyd |",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 6}, "cannot be drawn again with seed 6"),
        ({"shards": 8}, "expected 1 to 7"),
        ({"version": "1.0"}, "'1.0' is not of the form major.minor.patch"),
        ({"folds": []}, "labels are of 2 folds, but the configuration names 0"),
        ({"folders": []}, r"partition\.parquet is not in no folder"),
    ],
)
def test_what_cannot_be_published_leaves_nothing(publish, tmp_path, changes, message):
    with pytest.raises((ArtifactError, ValueError), match=message):
        publish(tmp_path / "pcmp", **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "column", "message"),
    [
        ("votes", "pair_id", "votes: pair 'nowhere' is not in pairs"),
        ("labels", "pair_id", "labels: pair 'nowhere' is not in pairs"),
        ("pairs", "image_b", "pairs: image_b 'nowhere' is not in images"),
        ("images", "reference_id", "images: image .* is of a reference that is not in references"),
    ],
)
def test_dangling_ids_are_refused(tables, publish, tmp_path, table, column, message):
    copy = shutil.copytree(tables, tmp_path / "tables")
    frame = read_table(copy / f"{table}.parquet", table)
    frame.loc[0, column] = "nowhere"
    write_table(copy / f"{table}.parquet", frame, table)
    with pytest.raises(ArtifactError, match=message):
        publish(tmp_path / "pcmp", folders=[copy])


def test_two_rows_of_one_id_are_refused(tables, publish, tmp_path):
    copy = shutil.copytree(tables, tmp_path / "tables")
    votes = read_table(copy / "votes.parquet", "votes")
    write_table(copy / "votes.parquet", pd.concat([votes, votes[:1]]), "votes")
    with pytest.raises(ArtifactError, match=r"votes: expected one row per \(pair_id, voter\)"):
        publish(tmp_path / "pcmp", folders=[copy])


def test_a_published_version_is_never_overwritten(published, publish):
    before = contents(published)
    with pytest.raises(ValueError, match="a published version never changes"):
        publish(published)
    assert contents(published) == before


@pytest.mark.slow
def test_killed_in_the_middle_there_is_no_data_set_and_the_next_run_succeeds(
    tables, publish, published, tmp_path
):
    script = (
        "import os, signal, sys\n"
        "from mlclipsim.pcmp import export\n"
        "export.write_votes = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "export.export([sys.argv[1]], sys.argv[2], name='x', preset='tiny', seed=5, config={}, folds=[{}, "
        "{}])\n"
    )
    command = [sys.executable, "-c", script, str(tables), str(tmp_path / "pcmp")]
    done = subprocess.run(command, env={**os.environ, "TQDM_DISABLE": "1"}, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "pcmp").exists()
    publish(tmp_path / "pcmp")
    assert contents(tmp_path / "pcmp") == contents(published)
    assert [path.name for path in tmp_path.iterdir()] == ["pcmp"]  # what was left is gone


def test_drops_come_from_pairing_and_voting_and_count_once(tables, published, publish, tmp_path):
    drops = pd.read_parquet(published / "drops.parquet")
    assert drops["count"].sum() == read_table(tables / "drops.parquet", "drops")["count"].sum()
