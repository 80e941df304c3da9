"""Checking: whatever is changed is found and named in one sentence; rebuilding gives the very bytes back."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlclipsim import cli
from mlclipsim.artifacts import ArtifactError, read_table, write_table
from mlclipsim.images import decode_image, encode_image
from mlclipsim.pcmp import release
from mlclipsim.pcmp.recipe import Pen
from mlclipsim.pcmp.release import Description
from mlclipsim.pcmp.verify import rebuild, verify

SHARD = "images-00002.parquet"


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / "pcmp")


def fails(folder, capsys, *more: str) -> str:
    """The single sentence with which `verify` fails."""
    assert cli.main(["pcmp", "verify", str(folder), *more]) == 1
    error = capsys.readouterr().err
    assert error.startswith("mlclipsim: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


def resign(folder) -> None:
    """What a forger would do: new checksums over changed files."""
    path = folder / "dataset.json"
    stored = json.loads(path.read_text())
    for shard in stored["shards"]:
        shard["sha256"] = release.sha256_of(folder / shard["file"])
    path.write_text(json.dumps(stored))
    release.sign(folder, Description.read(folder).files)


def change(folder, name: str, edit) -> None:
    """Rewrite a table with ``edit(rows)``, under its schema, and sign it anew."""
    path = folder / name
    stored = pq.read_schema(path)
    rows = pq.read_table(path).to_pylist()
    rows = edit(rows) or rows
    pq.write_table(pa.Table.from_pylist(rows, schema=stored), path, store_schema=True)
    resign(folder)


def flip(path, place: int = 5000) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_sound_data_set_passes(published, capsys):
    assert verify(published) == []
    assert cli.main(["pcmp", "verify", str(published)]) == 0
    assert "sound" in capsys.readouterr().out


def test_info_says_what_there_is(published, capsys):
    assert cli.main(["pcmp", "info", str(published)]) == 0
    text = capsys.readouterr().out
    for words in (
        "pcmp-tiny 1.0.0",
        "7 (pcmp_test 3, pcmp_train 3, pcmp_val 1)",
        "25, 30 dB",
        "ada, bob, cyd",
    ):
        assert words in text


def test_a_flipped_byte_names_the_shard(copy, capsys):
    flip(copy / SHARD)
    error = fails(copy, capsys)
    assert f"{SHARD}: expected SHA-256" in error
    assert "damaged or changed" in error


@pytest.mark.parametrize("name", [SHARD, "pairs.parquet", "votes.parquet", "datasheet.md"])
def test_a_missing_file_is_named(copy, capsys, name):
    (copy / name).unlink()
    assert f"{name}: is missing" in fails(copy, capsys)


def test_a_file_too_many_is_named(copy, capsys):
    shutil.copy(copy / SHARD, copy / "images-00004.parquet")
    assert "images-00004.parquet: belongs to no data set" in fails(copy, capsys)


def test_a_wrong_schema_is_named_column_by_column(copy, capsys):
    path = copy / "votes.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(2, "vote", table["vote"].cast(pa.float32())), path)
    resign(copy)
    assert "votes.parquet: vote is float, expected double" in fails(copy, capsys)
    pq.write_table(table.drop_columns("vote"), path)
    resign(copy)
    assert "votes.parquet: lacks the columns vote" in fails(copy, capsys)


@pytest.mark.parametrize(
    ("name", "column", "value", "message"),
    [
        ("pairs.parquet", "image_a", "nowhere", "pairs.parquet: pair .* names image 'nowhere'"),
        ("pairs.parquet", "family_b", "fog", "says fog at"),
        ("votes.parquet", "pair_id", "nowhere", "votes.parquet: a vote is on pair 'nowhere'"),
        ("votes.parquet", "voter", "zoe", "a vote is of 'zoe', whom voters.parquet has not"),
        ("votes.parquet", "vote", 0.7, r"is 0\.7, expected 0, 1/2, 1 or none"),
        ("recipe.parquet", "reference_id", "zzz", "is of reference 'zzz', which is not there"),
        (
            "recipe.parquet",
            "photograph",
            "nowhere",
            "its photograph 'nowhere' is of none in partition.parquet",
        ),
        ("voters.parquet", "since", "2.0.0", r"voters.parquet names the versions \['2\.0\.0'\]"),
    ],
)
def test_dangling_ids_and_wrong_values_are_found_under_valid_checksums(copy, name, column, value, message):
    def edit(rows):
        rows[-1][column] = value

    change(copy, name, edit)
    texts = " ".join(map(str, verify(copy)))
    assert re.search(message, texts), texts


def test_a_row_twice_is_found(copy):
    change(copy, "pairs.parquet", lambda rows: [*rows, rows[-1]])
    (problem,) = (p for p in verify(copy) if p.file == "pairs.parquet")
    assert "there twice or out of order" in problem.text


def test_one_wrong_pixel_is_found_under_valid_checksums(copy, capsys):
    def edit(rows):
        pixels = decode_image(rows[-1]["image"]["bytes"])
        pixels[5, 5, 1] ^= 1
        rows[-1]["image"]["bytes"] = encode_image(pixels)

    change(copy, SHARD, edit)
    error = fails(copy, capsys)
    assert f"{SHARD}: image " in error
    assert "has pixels of SHA-256" in error


def test_an_image_that_is_none_is_found(copy, capsys):
    def edit(rows):
        rows[0]["image"]["bytes"] = b"no picture"

    change(copy, SHARD, edit)
    assert "cannot be decoded" in fails(copy, capsys)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("version", "one", "version 'one' is not of the form major.minor.patch"),
        ("version", "1.1.0", "the version is 1.1.0, but its history ends with 1.0.0"),
        ("layout", 2, "expected layout 1, got 2"),
        ("seed", None, "lacks ['seed']"),
        (
            "shards",
            [{"file": "../x.parquet", "rows": 1, "sha256": "0" * 64}],
            "expected shards named images-00000",
        ),
        ("folds", {"seen": []}, "expected shards named"),
        ("history", "none", "but its history ends with None"),
    ],
)
def test_a_wrong_version_or_description_is_one_sentence(copy, capsys, key, value, message):
    path = copy / "dataset.json"
    stored = json.loads(path.read_text())
    if value is None:
        del stored[key]
    else:
        stored[key] = value
    path.write_text(json.dumps(stored))
    assert message in fails(copy, capsys)


def test_a_folder_that_is_no_data_set(tmp_path, capsys):
    assert "is no published data set" in fails(tmp_path, capsys)


def test_a_changed_list_of_checksums_is_one_sentence(copy, capsys):
    (copy / "checksums.sha256").write_text("hello\n")
    assert "expected lines of a SHA-256 and a file name" in fails(copy, capsys)


def test_rebuilding_draws_the_broken_shard_alone_and_gives_its_bytes_back(
    published, copy, tables, monkeypatch
):
    flip(copy / SHARD)
    drawn = []
    draw = Pen.draw
    monkeypatch.setattr(Pen, "draw", lambda pen, *how: drawn.append(how) or draw(pen, *how))
    arguments = ["pcmp", "verify", str(copy), "--rebuild", "--references", str(tables / "references.parquet")]
    assert cli.main(arguments) == 0
    assert (copy / SHARD).read_bytes() == (published / SHARD).read_bytes()
    assert 0 < len(drawn) < pq.read_metadata(copy / SHARD).num_rows
    assert verify(copy) == []


def test_without_images_all_shards_are_built_from_photographs(published, publish, tables, tmp_path):
    folder = tmp_path / "pcmp"
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    own = read_table(tables / "references.parquet", "references")
    named = own.assign(
        photograph=own["reference_id"]
    )  # each reference a photograph of its own, as in `local`
    workflow = shutil.copytree(tables, tmp_path / "tables")
    write_table(workflow / "references.parquet", named, "references")
    partition = named[["photograph", "role"]].assign(sha256="0" * 64)
    write_table(workflow / "partition.parquet", partition, "partition")
    for name, image in zip(named["photograph"], named["image"], strict=True):
        Image.fromarray(decode_image(image)).save(photographs / f"{name}.png")
    publish(tmp_path / "whole", folders=[workflow])
    publish(folder, folders=[workflow], images=False)
    assert verify(folder) == []
    assert rebuild(folder, photographs) == release.shard_names(Description.read(folder))
    for name in release.shard_names(Description.read(folder)):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert verify(folder) == []


def test_nothing_is_replaced_by_other_pixels_or_from_other_references(copy, tables, tmp_path, monkeypatch):
    flip(copy / SHARD)
    broken = (copy / SHARD).read_bytes()
    other = read_table(tables / "references.parquet", "references")
    other["image"] = [encode_image(255 - decode_image(image)) for image in other["image"]]
    write_table(tmp_path / "other.parquet", other, "references")
    with pytest.raises(ArtifactError, match="has other pixels in"):
        rebuild(copy, tmp_path / "other.parquet")
    write_table(tmp_path / "few.parquet", other[:0], "references")
    with pytest.raises(ArtifactError, match=r"is not in .*few"):
        rebuild(copy, tmp_path / "few.parquet")
    with pytest.raises(ArtifactError, match=r"neither a references\.parquet nor a folder"):
        rebuild(copy, tmp_path / "nowhere")
    monkeypatch.setattr(Pen, "draw", lambda pen, *how: np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ArtifactError, match="comes out with other pixels here"):
        rebuild(copy, tables / "references.parquet")
    assert (copy / SHARD).read_bytes() == broken
    assert not list(copy.glob(".*"))


def test_rebuilding_without_references_is_wrong_usage(published, capsys):
    assert cli.main(["pcmp", "verify", str(published), "--rebuild"]) == 2
    assert "--rebuild needs --references" in capsys.readouterr().err
