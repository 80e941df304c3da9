"""Sorting and looking up on disk."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlclipsim.artifacts import ArtifactError
from mlclipsim.pcmp.spool import RowGroups, Spool


def test_rows_come_back_sorted_by_code_point_with_their_very_floats(tmp_path):
    rows = [("b", 0.1), ("B", 1e-300), ("\u00e9", None), ("a", 1 / 3)]
    with Spool(tmp_path / "spool") as spool:
        spool.fill("t", ("name", "value"), ("name",), rows)
        assert list(spool.select("SELECT * FROM t ORDER BY name")) == sorted(rows)
        with pytest.raises(ArtifactError, match=r"t: expected one row per \(name\), got two"):
            spool.fill("t", ("name", "value"), ("name",), [("a", 2.0)])
    assert list(tmp_path.iterdir()) == []


def test_rows_are_found_by_row_group(tmp_path):
    table = pa.table({"name": ["a", "b", "c", "d", "e"], "value": [1, 2, 3, 4, 5]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    rows = RowGroups(tmp_path / "t.parquet")
    places = list(rows.places(["name"]))
    assert places == [("a", 0, 0), ("b", 0, 1), ("c", 1, 0), ("d", 1, 1), ("e", 2, 0)]
    assert [rows.row(group, row)["value"] for _, group, row in reversed(places)] == [5, 4, 3, 2, 1]
