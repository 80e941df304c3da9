"""Anything at all in the place of a file or a setting: the declared error or a result, never something else.

Few examples, the same each time; more with ``--hypothesis-seed`` and ``max_examples``.
"""

from __future__ import annotations

import copy
import functools
import io
import json
import resource
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mlclipsim import provenance, spec
from mlclipsim.artifacts import ArtifactError, write_json
from mlclipsim.compression import container
from mlclipsim.images import MAX_PIXELS, ImageError, decode_image, image_size
from mlclipsim.layer_weights import read_theta
from mlclipsim.pcmp.release import LAYOUT, Description, read_checksums, shard_name

fuzzed = settings(
    max_examples=80,
    derandomize=True,
    database=None,
    deadline=timedelta(seconds=20),  # a hang, not a busy machine
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

TEXT = st.text(max_size=8)
NUMBERS = st.integers() | st.floats() | st.integers(-3, 300)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """``data`` with a few bytes overwritten, or cut, or with something put in."""
    places = st.integers(0, max(0, len(data) - 1))

    def overwrite(changes: list[tuple[int, int]]) -> bytes:
        changed = bytearray(data)
        for place, value in changes:
            changed[place] = value
        return bytes(changed)

    return st.one_of(
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4).map(overwrite),
        places.map(lambda place: data[:place]),
        st.tuples(places, st.binary(min_size=1, max_size=9)).map(
            lambda put: data[: put[0]] + put[1] + data[put[0] :]
        ),
    )


def altered(value: Any) -> st.SearchStrategy[Any]:
    """``value`` with something else in one place, wherever in it, or a key more or less."""

    def places(part: Any, path: tuple = ()) -> list[tuple]:
        inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        return [path, *(place for key, held in inner for place in places(held, (*path, key)))]

    def put(path: tuple, new: Any, drop: bool) -> Any:
        changed = copy.deepcopy(value)
        if not path:
            return new
        part = functools.reduce(lambda held, key: held[key], path[:-1], changed)
        if drop:
            del part[path[-1]]
        else:
            part[path[-1]] = new
        return changed

    return st.builds(put, st.sampled_from(places(value)), JSON, st.booleans())


def attempt(
    function: Callable[..., Any], *arguments: Any, declared: type[Exception]
) -> tuple[Any, Exception | None]:
    """What came of it, or its declared error, which is a sentence."""
    try:
        return function(*arguments), None
    except declared as error:
        assert str(error).strip()  # noqa: PT017
        return None, error


@functools.cache
def pictures() -> dict[str, bytes]:
    """A small picture in each format that is read."""
    ramp = np.arange(24 * 20 * 3, dtype=np.uint8).reshape(24, 20, 3)
    found = {}
    for form in ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000"):
        stream = io.BytesIO()
        Image.fromarray(ramp).save(stream, form)
        found[form] = stream.getvalue()
    return found


def peak() -> int:
    """The most memory that this process has had, KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("form", pictures())
def test_pictures(form):
    @fuzzed
    @given(damaged(pictures()[form]))
    def read(data):
        for function in (decode_image, image_size):
            found, refused = attempt(function, data, declared=ImageError)
            if not refused:
                height, width = found if isinstance(found, tuple) else found.shape[:2]
                assert min(height, width) > 0
                assert function is image_size or height * width <= MAX_PIXELS

    before = peak()
    read()
    assert peak() - before < 2**20


@fuzzed
@given(st.binary(max_size=64))
def test_no_picture(data):
    with pytest.raises(ImageError):
        decode_image(data)


def signed(head: bytes, body: bytes) -> bytes:
    """A stream whose checksum fits, by someone who knows how it is computed."""
    return head + struct.pack(">I", zlib.crc32(body, zlib.crc32(head))) + body


@fuzzed
@given(st.binary(max_size=64) | st.builds(signed, st.binary(max_size=12), st.binary(max_size=40)))
@example(signed(b"\xabM\x1f\x01\x02abc\x00\x10\x00\x10", b"\x80" * 1_000_000))  # a length without end
@example(signed(b"\xabM\x10\x01\x02abc\x00\x10\x00\x10", b""))  # no strings
def test_streams(data):
    try:
        header, strings = container.unpack(data)
    except container.ContainerError:
        return
    assert container.unpack(container.pack(header, strings)) == (header, strings)


@fuzzed
@given(st.data())
def test_signed_streams_of_the_right_form(data):
    count = data.draw(st.integers(0, 15))
    head = b"\xabM" + bytes([16 + count]) + data.draw(st.binary(min_size=9, max_size=9))
    test_streams.hypothesis.inner_test(signed(head, data.draw(st.binary(max_size=60))))


RELEASE = Description(
    name="pcmp-ci",
    version="1.1.0",
    layout=LAYOUT,
    preset="ci",
    seed=1,
    config={},
    folds=[{"seen": ["ada"], "held_out": ["bob"]}],
    includes_images=True,
    shards=[{"file": shard_name(0), "rows": 3, "sha256": "0" * 64}],
    counts={
        **{key: {"pcmp_test": 3} for key in ("references", "images", "pairs")},
        "families": ["jpeg"],
        "targets_db": ["22"],
        "votes": {"ada": {"cast": 3, "ties": 1, "abstained": 0}},
    },
    libraries={"pillow": "12"},
    history=[{"version": "1.0.0", "change": "first"}, {"version": "1.1.0", "change": "more"}],
)


def test_the_description_below_is_sound(tmp_path):
    RELEASE.write(tmp_path)
    assert Description.read(tmp_path) == RELEASE
    assert RELEASE.summary()["history"] == "1.0.0 first; 1.1.0 more"


@fuzzed
@given(altered(asdict(RELEASE)))
def test_descriptions_of_releases(tmp_path, stored):
    (tmp_path / "dataset.json").write_text(json.dumps(stored))
    found, refused = attempt(Description.read, tmp_path, declared=ArtifactError)
    if not refused:
        assert all("/" not in name for name in found.files)
        found.summary()


@fuzzed
@given(damaged(b"0" * 64 + b"  dataset.json\n" + b"1" * 64 + b"  pairs.parquet\n"))
def test_checksums_of_releases(tmp_path, data):
    (tmp_path / "checksums.sha256").write_bytes(data)
    found, _ = attempt(read_checksums, tmp_path, declared=ArtifactError)
    assert all("/" not in name and "\\" not in name for name in found or ())


FITTED = {
    "encoder": "tiny",
    "size_policy": "resize",
    "layers": ["layer_01", "global"],
    "folds": [{"fold": 0, "weights": [0.25, 0.75]}],
}


class Tiny:
    """As much of an encoder as reading weights takes."""

    name, pretrained, n_layers = "tiny", "none", 1


@fuzzed
@given(altered(FITTED))
def test_layer_weights(tmp_path, stored):
    path = tmp_path / "weights.json"
    path.write_text(json.dumps(stored))
    given = (path, ["layer_01", "global"], Tiny(), "resize", None)
    found, refused = attempt(read_theta, *given, declared=ValueError)
    assert refused or found[1].isfinite().all()


@fuzzed
@given(st.data())
def test_records_of_provenance(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("made")
    result = folder / "results" / "ci" / "default" / "tables" / "table_2.csv"
    result.parent.mkdir(parents=True)
    result.write_text("x")
    made = {"step": "table_2", "preset": "ci", "run": "default", "seed": 1, "git_commit": None}
    outputs = {"csv": {"results/ci/default/tables/table_2.csv": "0" * 64}}
    made |= {"git_dirty": None, "inputs": {"x": {"results/in": "1" * 64}}, "outputs": outputs, "weights": {}}
    record = {"made_from": made, "measured": {"started_utc": "2026-01-01T00:00:00Z", "seconds": 1.0}}
    write = result.parents[1] / "provenance" / "table_2.json"
    try:
        write_json(write, data.draw(altered(record)))
    except ValueError:  # NaN, which is no JSON
        return
    found, refused = attempt(provenance.as_tree, result, declared=ArtifactError)
    assert refused or "table_2" in found


@pytest.fixture
def quick_files(monkeypatch):
    """The configuration's files are read once."""
    once = functools.cache(spec.read_yaml)
    monkeypatch.setattr(spec, "read_yaml", lambda path: copy.deepcopy(once(path)))


CI = spec.load({"preset": "ci"}, planning=True).config


@settings(fuzzed, max_examples=40)
@given(altered(CI))
@example(CI | {"rate_task": CI["rate_task"] | {"images": [{"source": {}}]}})
@example(CI | {"compression": CI["compression"] | {"train": {"codec_train": "x"}}})
@example(CI | {"folds": [[]]})
@example(CI | {"catalog": {"codecs": {"jpeg": {"points": 3}}}})
def test_configurations(quick_files, config):
    assume(isinstance(config, dict))
    plan, refused = attempt(spec.load, config, declared=spec.ConfigError)
    if refused:
        assert all(isinstance(problem, str) for problem in refused.problems)
        return
    for step in ("references", "pcmp_images", "votes", "rate_task", "codec_arm"):
        json.loads(plan.text(step))
    assert Path(plan.own("x")).parts[:2] == ("results", plan.preset)


@fuzzed
@given(st.text(max_size=40) | st.builds("{}: {}".format, TEXT, TEXT))
@example("&a [*a, *a]")
@example("!!python/name:os.system")
@example("[" * 100_000)
@example("- " * 10_000)
@example("!!bool x")
@example("!!timestamp x")
def test_texts_in_yaml(text):
    attempt(spec.parse_yaml, text, declared=ValueError)
