"""A file appears whole or not at all."""

from __future__ import annotations

import pytest

from mlclipsim.atomic import atomic


def test_failing_writer_leaves_the_old_file_and_no_trace(tmp_path):
    (tmp_path / "x").write_text("old")

    def fail():
        with atomic(tmp_path / "x") as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert (tmp_path / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
