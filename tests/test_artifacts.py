"""Files between steps: declared, checked both ways, never half-written."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlclipsim.artifacts import (
    ArtifactError,
    iterate_table,
    read_json,
    read_table,
    sha256_of,
    stream_table,
    write_json,
    write_table,
)

SCORES = pd.DataFrame({"image_id": ["a", "b"], "metric": "psnr", "variant": "rgb", "score": [22.0, 25.5]})


def test_table_comes_back(tmp_path):
    write_table(tmp_path / "s.parquet", SCORES, "scores")
    pd.testing.assert_frame_equal(read_table(tmp_path / "s.parquet", "scores"), SCORES, check_dtype=False)


def test_same_table_same_bytes_whatever_the_column_order(tmp_path):
    write_table(tmp_path / "a.parquet", SCORES, "scores")
    write_table(tmp_path / "b.parquet", SCORES[["score", "variant", "image_id", "metric"]], "scores")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_extra_columns_follow_the_declared_ones(tmp_path):
    write_table(tmp_path / "s.parquet", SCORES.assign(note="x"), "scores")
    assert list(read_table(tmp_path / "s.parquet", "scores").columns) == [*SCORES.columns, "note"]
    assert list(read_table(tmp_path / "s.parquet", "scores", columns=["score"]).columns) == ["score"]


def test_lacking_column_and_wrong_type_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="scores lacks the declared columns"):
        write_table(tmp_path / "s.parquet", SCORES.drop(columns="score"), "scores")
    with pytest.raises(ArtifactError, match="does not fit its declared schema"):
        write_table(tmp_path / "s.parquet", SCORES.assign(score="high"), "scores")
    assert not list(tmp_path.iterdir())


def test_table_of_another_layout_is_refused_when_read(tmp_path):
    SCORES.rename(columns={"score": "value"}).to_parquet(tmp_path / "s.parquet")
    with pytest.raises(ArtifactError, match="is not a 'scores' table of this version"):
        read_table(tmp_path / "s.parquet", "scores")


@pytest.mark.parametrize("content", [b"", b"PAR1 and nothing after"])
def test_damaged_and_missing_tables_say_what_to_do(tmp_path, content):
    (tmp_path / "s.parquet").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"is damaged .* delete it and run again"):
        read_table(tmp_path / "s.parquet", "scores")
    with pytest.raises(ArtifactError, match="does not exist; run the step"):
        read_table(tmp_path / "no.parquet", "scores")


def test_json_is_sorted_and_refuses_nan(tmp_path):
    write_json(tmp_path / "x.json", {"b": 1, "a": [0.1]})
    assert (tmp_path / "x.json").read_text() == '{\n  "a": [\n    0.1\n  ],\n  "b": 1\n}\n'
    assert read_json(tmp_path / "x.json") == {"a": [0.1], "b": 1}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "y.json", {"a": float("nan")})
    assert not (tmp_path / "y.json").exists()


def test_damaged_json_says_so(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ArtifactError, match="is damaged"):
        read_json(tmp_path / "x.json")


def test_sha256_is_the_files(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()


def test_a_table_read_in_pieces_does_not_stay_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    with stream_table(tmp_path / "references.parquet", "references") as append:
        for number in range(32):
            row = {"reference_id": str(number), "photograph": "p", "role": "r", "label": 0, "caption": ""}
            append(pd.DataFrame([row | {"image": rng.bytes(2**20)}]).astype({"label": "int32"}))
    pool = pa.default_memory_pool()
    before, held = pool.bytes_allocated(), []
    for frame in iterate_table(tmp_path / "references.parquet", "references", rows=1):
        assert len(frame) == 1
        held.append((pool.bytes_allocated() - before) / 2**20)
    assert len(held) == 32
    assert max(held) < 16  # of 32 MiB
