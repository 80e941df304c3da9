"""Files between two steps that have suffered: named, with what to do, and nothing is made from them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlclipsim import cli, provenance, steps
from mlclipsim.artifacts import SCHEMAS, ArtifactError, iterate_table, read_json, read_table, write_table
from mlclipsim.images import encode_image

VALUES = {
    pa.string(): ["one", "two", "three"],
    pa.int32(): [1, 2, 3],
    pa.int64(): [1, 2, 3],
    pa.float64(): [0.25, -1.5, 3.0],
    pa.bool_(): [True, False, True],
    pa.binary(): [encode_image(np.full((16, 16, 3), grey, np.uint8)) for grey in (0, 99, 255)],
    pa.list_(pa.float32()): [[0.5], [], [1.0, 2.0]],
}


def table(schema: str) -> pa.Table:
    """Three rows under a declared schema."""
    fields = [
        (f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in SCHEMAS[schema]
    ]
    return pa.table({name: pa.array(VALUES[kind], kind) for name, kind in fields})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path, bit: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    bit = len(data) * 4 if bit is None else bit  # in the middle
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other(path: Path) -> None:
    """What another version of the package may have written there."""
    if path.suffix == ".parquet":
        stored = pq.read_table(path)
        pq.write_table(stored.rename_columns([f"{name}_v2" for name in stored.column_names]), path)
    else:
        path.write_text('{"version": 2}')


def no_more(path: Path) -> None:
    path.unlink()


DAMAGES = (cut, empty, flip, folder, other, no_more)


def parquet(path: Path) -> None:
    write_table(path, table("images"), "images")  # with its lossless WebP


def safetensors(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.ones((4, 4), np.float32)}, path)


FILES: dict[str, Callable[[Path], object]] = {
    "images.parquet": parquet,
    "weights.json": lambda path: path.write_text(json.dumps({"folds": [], "layers": ["layer_01"]})),
    "codec.safetensors": safetensors,
    "table_2.csv": lambda path: path.write_text("metric,estimate\nssim,0.75\n"),
    "table_2.md": lambda path: path.write_text("| metric | estimate |\n|---|---|\n| ssim | 0.75 |\n"),
    "figure_1.svg": lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "figure_1.png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200)),
}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """``made(name)``: the file of a step, with its record; the working directory is the project's."""
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # which `step` sets

    def make(name: str) -> Path:
        path = Path("results/ci/default/place") / name
        path.parent.mkdir(parents=True)
        FILES[name](path)
        outputs = {"made": path}
        provenance.write(provenance.beside(outputs), "maker", {"seed": 1}, {}, outputs, started=0.0)
        return path

    return make


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_step_starts_with_nothing_that_is_not_as_it_was_made(name, damage, made, monkeypatch, capsys):
    started = []

    def step(spec, inputs, outputs):
        started.append(inputs)
        outputs["report"].write_text("made")

    monkeypatch.setattr(steps, "function", lambda _: step)
    path = made(name)
    command = ["step", "report", "--spec", "{}", "--input", f"record={path}", "--output", "report=o.html"]
    assert cli.main(command) == 0
    assert Path("o.html").exists()
    before = {file: file.read_bytes() for file in Path().rglob("*") if file.is_file() and file != path}

    damage(path)
    assert cli.main(command) == 1
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith(f"mlclipsim: {path} ")
    assert "run again" in error or "run the step that makes it" in error
    assert len(started) == 1
    assert before == {
        file: file.read_bytes() for file in Path().rglob("*") if file.is_file() and file != path
    }


def test_the_record_holds_what_was_there_when_the_step_began(made, monkeypatch):
    path = made("weights.json")
    began = provenance.check({"weights": path})

    def step(spec, inputs, outputs):
        outputs["csv"].write_text("x")
        path.write_text("{}")  # by whoever else

    monkeypatch.setattr(steps, "function", lambda _: step)
    command = ["step", "table_2", "--spec", "{}", "--input", f"weights={path}", "--output", "csv=t.csv"]
    assert cli.main(command) == 0
    assert json.loads(Path("provenance/t.json").read_text())["made_from"]["inputs"] == began


def test_files_without_a_record_pass_and_so_do_those_beside_a_damaged_one(made):
    path = made("weights.json")
    (record,) = path.parent.glob("provenance/*.json")
    record.write_text("{")
    flip(path)
    assert provenance.check({"weights": [path]})["weights"].keys() == {str(path)}


# What the readers themselves say, where there is no record: files passed by hand, or copied without theirs.


@pytest.mark.parametrize("damage", [cut, empty, folder, other, no_more])
@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_kind_of_table_is_refused_when_damaged(schema, damage, tmp_path):
    path = tmp_path / f"{schema}.parquet"
    write_table(path, table(schema), schema)
    assert len(read_table(path, schema)) == sum(map(len, iterate_table(path, schema, rows=2))) == 3
    damage(path)
    for read in (read_table, lambda *given: list(iterate_table(*given))):
        with pytest.raises(ArtifactError, match=r"delete it and run again|run the step that makes") as caught:
            read(path, schema)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_column_of_another_type_is_another_version(schema, tmp_path):
    path, stored = tmp_path / "table.parquet", table(schema)
    last = stored.column_names[-1]
    pq.write_table(stored.set_column(stored.num_columns - 1, last, pa.array([1, 2, 3], pa.int8())), path)
    with pytest.raises(ArtifactError, match=f"is not a '{schema}' table of this version"):
        read_table(path, schema)


def test_a_flipped_bit_of_a_page_is_found_or_harmless(tmp_path):
    """Neither parquet nor zstd would notice each: pages carry a checksum. The footer after them does not,
    for which the records of the steps stand in.
    """
    path = tmp_path / "s.parquet"
    rng = np.random.default_rng(0)
    values = {"image_id": [f"image-{n}" for n in range(300)], "metric": "ssim", "variant": "grey"}
    write_table(path, pd.DataFrame(values | {"score": rng.random(300)}), "scores")
    whole = path.read_bytes()
    expected = read_table(path, "scores")
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    found = 0
    for bit in rng.choice(8 * (len(whole) - footer), 150, replace=False):
        path.write_bytes(whole)
        flip(path, int(bit))
        try:
            pd.testing.assert_frame_equal(read_table(path, "scores"), expected)
        except ArtifactError:
            found += 1
    assert found > 120


@pytest.mark.parametrize("damage", [cut, empty, folder, no_more])
def test_damaged_json_is_named(damage, tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"folds": [1, 2]}')
    damage(path)
    with pytest.raises(
        ArtifactError, match=r"x\.json (is damaged .* run again|does not exist; run the step)"
    ):
        read_json(path)


def test_json_of_another_version_is_named_when_a_key_is_asked_for(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"version": 2}')
    stored = read_json(path)
    assert stored == {"version": 2}
    assert stored.get("folds") is None
    with pytest.raises(
        ArtifactError, match=r"x\.json is not of this version: it has no 'folds', but version"
    ):
        stored["folds"]
