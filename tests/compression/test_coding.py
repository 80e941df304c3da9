"""Files: what `compress` writes, `decompress` reads, and everything else it refuses in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlclipsim import cli
from mlclipsim.compression import codecs, coding, container
from mlclipsim.images import read_image, write_png

Photograph = Callable[[int, int], np.ndarray]
LEARNED = ("tiny-factorized", "tiny-hyperprior")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, random_codec, photograph) -> Path:
    """An image, a catalog of small codecs, and the streams that they make of it."""
    folder = tmp_path_factory.mktemp("coding")
    entries = yaml.safe_load((Path("config") / "catalog" / "codecs.yaml").read_text(encoding="utf-8"))
    for number, (name, model) in enumerate(
        zip(LEARNED, ("bmshj2018-factorized", "bmshj2018-hyperprior"), strict=True), start=200
    ):
        network = random_codec(model)
        codecs.save(network, folder / f"{name}.safetensors")
        network.g_s[0].bias.data += 0.1
        codecs.save(network, folder / f"{name}-other.safetensors")
        points = {"q2": {"lambda": 0.0035, "weights": str(folder / f"{name}.safetensors")}}
        channels = [12, 16] if "factorized" in name else [8, 12]
        entries[name] = {"id": number, "library": "compressai", "model": model, "channels": channels}
        entries[name]["points"] = points
    (folder / "codecs.yaml").write_text(yaml.safe_dump(entries), encoding="utf-8")
    write_png(folder / "in.png", photograph(50, 77))
    return folder


@pytest.fixture(autouse=True)
def catalog(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = yaml.safe_load((folder / "codecs.yaml").read_text(encoding="utf-8"))
    monkeypatch.setattr(coding, "catalog", lambda: entries)
    monkeypatch.setattr(cli, "_limit", lambda threads, gpus: None)  # the tests' own environment stays


@pytest.mark.parametrize(
    ("name", "quality", "overhead"),
    [("tiny-factorized", 2, 16), ("tiny-hyperprior", 2, 18), ("jpeg", 50, 16), ("avif", 40, 16)],
)
def test_round_trip(name: str, quality: int, overhead: int, folder: Path, tmp_path: Path, capsys) -> None:
    stream, decoded = tmp_path / "out.bin", tmp_path / "out.png"
    arguments = [str(folder / "in.png"), str(stream), "--codec", name, "--quality", str(quality)]
    assert cli.main(["compress", *arguments]) == 0
    said = capsys.readouterr().out
    codec = coding.open_codec(coding.entry_of(name), quality)
    expected = codec.encode(read_image(folder / "in.png"))
    assert stream.stat().st_size == expected.payload_bytes + overhead
    assert f"{expected.payload_bytes} bytes of payload, {expected.bpp:.4f} bits per pixel" in said
    assert f"{overhead} bytes of container" in said
    rows, columns = codec.padding((50, 77))
    assert ("padding" in said) == bool(rows)
    assert ("sure to decode only" in said) == (name == "tiny-hyperprior")
    if rows:
        assert f"{columns} columns and {rows} rows of padding" in said

    assert cli.main(["decompress", str(stream), str(decoded)]) == 0
    np.testing.assert_array_equal(read_image(decoded), codec.decode(expected))
    assert "77x50 pixels" in capsys.readouterr().out


def _stream(folder: Path, name: str) -> bytes:
    path = folder / f"{name}.bin"
    if not path.exists():
        coding.compress(folder / "in.png", path, codec=name, quality=50 if name == "jpeg" else 2)
    return path.read_bytes()


@pytest.mark.parametrize("name", [*LEARNED, "jpeg"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_damaged_streams_are_refused(name: str, draw: st.DataObject, folder: Path, capsys) -> None:
    data = bytearray(_stream(folder, name))
    if draw.draw(st.booleans()):
        damaged = bytes(data[: draw.draw(st.integers(0, len(data) - 1))])
    else:
        for bit in draw.draw(st.sets(st.integers(0, 8 * len(data) - 1), min_size=1, max_size=4)):
            data[bit // 8] ^= 1 << bit % 8
        damaged = bytes(data)
    (folder / "damaged.bin").write_bytes(damaged)
    assert cli.main(["decompress", str(folder / "damaged.bin"), str(folder / "never.png")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"mlclipsim: {folder / 'damaged.bin'}: ")
    assert captured.err.count("\n") == 1
    assert not (folder / "never.png").exists()


def _refusal(capsys, *arguments: str | Path) -> tuple[int, str]:
    code = cli.main([str(argument) for argument in arguments])
    return code, capsys.readouterr().err


def test_refuses_another_codec_other_weights_and_foreign_files(folder: Path, tmp_path: Path, capsys) -> None:
    _stream(folder, "tiny-factorized")
    stream, output = folder / "tiny-factorized.bin", tmp_path / "out.png"
    code, text = _refusal(capsys, "decompress", stream, output, "--codec", "jpeg")
    assert (code, "written by tiny-factorized, not by jpeg" in text) == (1, True)
    other = folder / "tiny-factorized-other.safetensors"
    code, text = _refusal(capsys, "decompress", stream, output, "--weights", other)
    assert (code, "written with weights" in text) == (1, True)
    hyperprior = folder / "tiny-hyperprior.safetensors"
    code, text = _refusal(capsys, "decompress", stream, output, "--weights", hyperprior)
    assert (code, "no weights of bmshj2018-factorized q2" in text) == (1, True)
    code, text = _refusal(capsys, "decompress", folder / "in.png", output)
    assert (code, "got a file of another kind" in text) == (1, True)
    code, text = _refusal(capsys, "decompress", tmp_path / "nothing.bin", output)
    assert (code, "nothing.bin" in text) == (1, True)
    code, text = _refusal(capsys, "decompress", stream, output, "--codec", "jpg")
    assert (code, "codec 'jpg' is unknown" in text) == (2, True)
    code, text = _refusal(capsys, "decompress", stream, tmp_path / "out.jpg")
    assert (code, "ending in .png" in text) == (2, True)
    assert not list(tmp_path.iterdir())


def test_other_weights_decode_with_themselves(folder: Path, tmp_path: Path) -> None:
    other = folder / "tiny-factorized-other.safetensors"
    coding.compress(folder / "in.png", tmp_path / "a.bin", codec="tiny-factorized", quality=2, weights=other)
    coding.decompress(tmp_path / "a.bin", tmp_path / "a.png", weights=other)
    assert read_image(tmp_path / "a.png").shape == (50, 77, 3)
    with pytest.raises(ValueError, match="expected no weights"):
        coding.compress(folder / "in.png", tmp_path / "b.bin", codec="jpeg", quality=50, weights=other)


def test_refuses_codecs_and_qualities_that_are_not_there(folder: Path, tmp_path: Path, capsys) -> None:
    command = ("compress", folder / "in.png", tmp_path / "out.bin", "--codec")
    code, text = _refusal(capsys, *command, "bpg", "--quality", "1")
    assert (code, "codec 'bpg' is unknown" in text) == (2, True)
    code, text = _refusal(capsys, *command, "tiny-factorized", "--quality", "3")
    assert (code, "point 'q3' is unknown; expected one of q2" in text) == (2, True)
    code, text = _refusal(capsys, *command, "webp", "--quality", "101")
    assert (code, "webp: expected a quality from 0 to 100, got 101" in text) == (2, True)
    assert not list(tmp_path.iterdir())


def test_streams_of_codecs_that_left_the_catalog_are_refused(folder: Path, tmp_path: Path) -> None:
    data = container.pack(container.Header(99, 2, b"abc", (50, 77)), (b"something",))
    (tmp_path / "old.bin").write_bytes(data)
    with pytest.raises(ValueError, match=r"written by codec 99, which config/catalog/codecs\.yaml lacks"):
        coding.decompress(tmp_path / "old.bin", tmp_path / "old.png")


def test_lists_codecs(capsys) -> None:
    assert cli.main(["codecs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["codec", "model", "qualities", "weights"]
    rows = {line.split()[0]: line for line in lines}
    assert rows["tiny-hyperprior"].endswith("here")
    assert rows["jpeg"].endswith("none needed")
    assert cli.main(["codecs", "--images", "."]) == 2
