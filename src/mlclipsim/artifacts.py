"""The files between two steps: declared columns, checked when written and read, never half-written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlclipsim.atomic import atomic

__all__ = [
    "SCHEMAS",
    "ArtifactError",
    "atomic",
    "concatenate_tables",
    "iterate_row_groups",
    "iterate_table",
    "read_json",
    "read_table",
    "row_group_sizes",
    "sha256_of",
    "stream_table",
    "write_json",
    "write_table",
]


class ArtifactError(RuntimeError):
    """A file between two steps is missing, damaged or of another layout than declared."""


_ID, _NAME = pa.string(), pa.dictionary(pa.int32(), pa.string())
# What was coded with what: a set of images, and one codec at one quality.
_CODER = [("images", _NAME), ("codec", _NAME), ("arm", _NAME), ("quality", pa.int32()), ("seed", pa.int32())]

# Columns that others may rely on. Units are in the names (`_db`); further columns come after these.
SCHEMAS: dict[str, pa.Schema] = {
    # One row per source photograph: the one role that it plays (method: partition).
    "partition": pa.schema([("photograph", _ID), ("sha256", _ID), ("role", _NAME)]),
    # The 8-bit images that machines, metrics and distortions act on (lossless WebP in `image`).
    "references": pa.schema(
        [
            ("reference_id", _ID),
            ("photograph", _ID),  # what it was made from: key of `partition`
            ("role", _NAME),
            ("label", pa.int32()),  # class index of the reference's ground truth, -1 where there is none
            ("caption", pa.string()),
            ("image", pa.binary()),
        ]
    ),
    # One distorted image per (block, family); a block is one reference at one PSNR target.
    "images": pa.schema(
        [
            ("image_id", _ID),
            ("reference_id", _ID),
            ("role", _NAME),
            ("target_db", pa.float64()),
            ("family", _NAME),
            ("photometric", pa.bool_()),
            ("strength", pa.float64()),
            ("psnr_db", pa.float64()),
            ("evaluations", pa.int32()),  # of the distortion, to find this strength
            ("image", pa.binary()),
        ]
    ),
    "pairs": pa.schema(
        [
            ("pair_id", _ID),
            ("reference_id", _ID),
            ("role", _NAME),
            ("target_db", pa.float64()),
            ("image_a", _ID),
            ("image_b", _ID),
            ("family_a", _NAME),
            ("family_b", _NAME),
            ("photometric", pa.bool_()),  # either side is
            ("psnr_a_db", pa.float64()),
            ("psnr_b_db", pa.float64()),
        ]
    ),
    # What was attempted and not kept: cause is `unattainable_low`, `unattainable_high`, `unmatched_pair`, ...
    "drops": pa.schema(
        [
            ("role", _NAME),
            ("target_db", pa.float64()),
            ("family", _NAME),
            ("cause", _NAME),
            ("count", pa.int64()),
        ]
    ),
    # The machines that vote. `temperature` calibrates a classifier's logits on clean images; other tasks have
    # none, and no accuracy either (their ground truth is not in `references`).
    "voters": pa.schema(
        [
            ("voter", _ID),
            ("task", _NAME),
            ("family", _NAME),
            ("clean_accuracy", pa.float64()),
            ("n_clean", pa.int64()),
            ("temperature", pa.float64()),
            ("sha256", _ID),
        ]
    ),
    # One row per (image, voter): every divergence of the voter's task, so that any label can be derived
    # without inference. Those of other tasks are null, and all are where the voter abstains.
    "predictions": pa.schema(
        [
            ("image_id", _ID),
            ("voter", _NAME),
            ("kl", pa.float64()),
            ("kl_t4", pa.float64()),
            ("js", pa.float64()),
            ("logit_cosine", pa.float64()),  # 1 - cosine of the logits
            ("top1", pa.float64()),  # 1 where the predicted class changed, else 0
            ("box_f1", pa.float64()),  # 1 - F1 of matched boxes
            ("mean_iou", pa.float64()),  # 1 - mean IoU of label maps
            ("abstains", pa.bool_()),  # its prediction on the reference is empty
            (
                "psnr_seen_db",
                pa.float64(),
            ),  # after the voter's preprocessing of both
            ("correct", pa.bool_()),  # prediction equals the ground truth (null without one)
            ("reference_correct", pa.bool_()),
        ]
    ),
    # One row per (pair, voter): 1 = A is closer to the reference, 0 = B, 1/2 = tie, null = an abstention.
    "votes": pa.schema([("pair_id", _ID), ("voter", _NAME), ("vote", pa.float64())]),
    # One row per (pair, fold, group): the soft label p that A is preferred. group is `seen` or `held_out`.
    "labels": pa.schema(
        [
            ("pair_id", _ID),
            ("fold", pa.int32()),
            ("group", _NAME),
            ("label", pa.float64()),
            ("n_votes", pa.int32()),
            ("n_families", pa.int32()),
        ]
    ),
    # One row per image; further columns are `layer_<index>` in the encoder's order and `global`.
    "similarities": pa.schema([("image_id", _ID), ("reference_id", _ID)]),
    # The same, of the main encoder by channel: lists of float16, which sum to those similarities.
    "products": pa.schema([("image_id", _ID), ("reference_id", _ID)]),
    # One row per (image, metric). `score` keeps the metric's own direction (`higher_is_better`).
    "scores": pa.schema([("image_id", _ID), ("metric", _NAME), ("variant", _NAME), ("score", pa.float64())]),
    # What people said of an image: `rating` as published, `higher_is_better` says which way it points.
    "ratings": pa.schema(
        [
            ("image_id", _ID),
            ("reference_id", _ID),
            ("distortion", _NAME),
            ("rating", pa.float64()),
            ("higher_is_better", pa.bool_()),
        ]
    ),
    # Between which two images people chose: `label` is the share to whom A looked closer to the reference.
    "human_comparisons": pa.schema(
        [
            ("pair_id", _ID),
            ("reference_id", _ID),
            ("distortion", _NAME),
            ("image_a", _ID),
            ("image_b", _ID),
            ("label", pa.float64()),
        ]
    ),
    # table_3's columns. Correlations are positive where the metric sides with people.
    "correlations": pa.schema(
        [
            ("dataset", _NAME),
            ("metric", _NAME),
            ("variant", _NAME),
            ("srcc", pa.float64()),
            ("krcc", pa.float64()),
            ("plcc", pa.float64()),
            ("rmse", pa.float64()),
            ("srcc_ci_low", pa.float64()),
            ("srcc_ci_high", pa.float64()),
            ("n", pa.int64()),
            ("n_excluded", pa.int64()),
            ("note", pa.string()),
        ]
    ),
    # table_2's columns; see docs.
    "preference": pa.schema(
        [
            ("benchmark", _NAME),
            ("voters", _NAME),
            ("slice", _NAME),
            ("metric", _NAME),
            ("variant", _NAME),
            ("estimate", pa.float64()),
            ("ci_low", pa.float64()),
            ("ci_high", pa.float64()),
            ("n_pairs", pa.int64()),
            ("n_references", pa.int64()),
        ]
    ),
    # table_7's columns, a row per metric; without figures where a metric did not run.
    "cost": pa.schema(
        [
            ("metric", _NAME),
            ("variant", _NAME),
            ("n_parameters", pa.int64()),
            ("macs", pa.int64()),
            ("ms_per_image", pa.float64()),
            ("peak_mib", pa.float64()),
            ("device", _NAME),
            ("threads", pa.int64()),
            ("image_size", pa.int64()),
        ]
    ),
    # One row per variant of the fit and group of voters; differences are to the metric as fitted, paired.
    "ablation": pa.schema(
        [
            ("factor", _NAME),  # what was varied
            ("setting", _NAME),  # its value
            ("variant", _NAME),
            ("slice", _NAME),
            ("voters", _NAME),
            ("estimate", pa.float64()),
            ("ci_low", pa.float64()),
            ("ci_high", pa.float64()),
            ("difference", pa.float64()),
            ("difference_low", pa.float64()),
            ("difference_high", pa.float64()),
            ("p", pa.float64()),
            ("p_holm", pa.float64()),
            ("n_pairs", pa.int64()),
            ("n_references", pa.int64()),
        ]
    ),
    # 2AFC of fits on random parts of the training data, the mean and the range over draws.
    "data_size": pa.schema(
        [
            ("quantity", _NAME),  # references, pairs or voters
            ("size", pa.int64()),
            ("voters", _NAME),
            ("estimate", pa.float64()),
            ("ci_low", pa.float64()),
            ("ci_high", pa.float64()),
            ("draw_low", pa.float64()),
            ("draw_high", pa.float64()),
            ("n_draws", pa.int64()),
            ("n_pairs", pa.int64()),
            ("n_references", pa.int64()),
        ]
    ),
    # One row per coded image and codec. `seed` -1: not trained here. Only learned codecs have an entropy to
    # estimate, only classical ones `constant_bytes`: what a one-colour image costs.
    "rate_task_codes": pa.schema(
        [
            *_CODER,
            ("unit_id", _ID),  # an image, or a mosaic of several
            ("pixels", pa.int64()),
            ("payload_bytes", pa.int64()),
            ("estimated_bits", pa.float64()),
            ("constant_bytes", pa.int64()),
            ("container_bytes", pa.int64()),
            ("psnr_db", pa.float64()),
            ("ms_ssim", pa.float64()),
        ]
    ),
    # One row per image, codec and judge: consistency with its prediction on the original, null: it abstains.
    "rate_task_scores": pa.schema(
        [
            *_CODER,
            ("task", _NAME),
            ("judge", _NAME),
            ("image_id", _ID),
            ("unit_id", _ID),  # that it was coded in
            ("score", pa.float64()),
            ("top1", pa.float64()),
        ]
    ),
    # One row per codec and judge: how right it is, over images whose truth is known. Arm `original`: none.
    "rate_task_truth": pa.schema(
        [
            *_CODER,
            ("task", _NAME),
            ("judge", _NAME),
            ("measure", _NAME),
            ("value", pa.float64()),
            ("n", pa.int64()),
        ]
    ),
    # A point of a curve: the mean over images, judges and seeds, over the mean rate of payloads. Only
    # consistency has an interval. `bpp_file`: with the container, `bpp_without_constant`: less a classical
    # codec's constant header. `uncoded`: the score without any codec.
    "rate_task_curves": pa.schema(
        [
            ("images", _NAME),
            ("task", _NAME),
            ("measure", _NAME),
            ("codec", _NAME),
            ("arm", _NAME),
            ("quality", pa.int32()),
            ("bpp", pa.float64()),
            ("bpp_file", pa.float64()),
            ("bpp_without_constant", pa.float64()),
            ("value", pa.float64()),
            ("ci_low", pa.float64()),
            ("ci_high", pa.float64()),
            ("uncoded", pa.float64()),
            ("n_images", pa.int64()),
            ("n_seeds", pa.int64()),
        ]
    ),
    # table_6's columns: what an arm gains over the anchor. The anchor's own row has none of that.
    "rate_task_gains": pa.schema(
        [
            ("task", _NAME),
            ("codec", _NAME),
            ("arm", _NAME),
            ("anchor", _NAME),
            ("bd_score", pa.float64()),
            ("bd_score_ci_low", pa.float64()),
            ("bd_score_ci_high", pa.float64()),
            ("bd_rate_percent", pa.float64()),
            ("n_images", pa.int64()),
            ("n_seeds", pa.int64()),
            ("inversions", pa.int64()),  # falls of the arm's curve beyond their intervals
            ("note", pa.string()),
            ("images", _NAME),
            ("measure", _NAME),
            ("p", pa.float64()),
            ("p_holm", pa.float64()),
            ("holm_ci_low", pa.float64()),
            ("holm_ci_high", pa.float64()),
            ("detectable", pa.float64()),  # difference, at 5 % and 80 % power
            ("rate_overlap", pa.float64()),
            ("bpp_90", pa.float64()),  # for 90 % of the uncoded score; null: not within the curve
            ("bpp_95", pa.float64()),
            ("lowest_bpp", pa.float64()),
            ("highest_bpp", pa.float64()),
            ("highest_score", pa.float64()),
            ("uncoded", pa.float64()),
        ]
    ),
    # Test images and what each arm makes of them at one rate; arm `original` has nothing but the image.
    # `similarity`: map of the metric, row by row, null where it sees nothing.
    "reconstructions": pa.schema(
        [
            ("arm", _NAME),
            ("image_id", _ID),
            ("image", pa.binary()),
            ("quality", pa.float64()),
            ("bpp", pa.float64()),
            ("psnr_db", pa.float64()),
            ("score", pa.float64()),
            ("similarity", pa.list_(pa.float32())),
        ]
    ),
    # Bins of a margin, see mlclipsim.benchmarks.calibration.
    "calibration": pa.schema(
        [
            ("panel", _NAME),  # votes or accuracy
            ("voters", _NAME),
            ("metric", _NAME),
            ("variant", _NAME),
            ("bin_low", pa.float64()),
            ("bin_high", pa.float64()),
            ("predicted", pa.float64()),
            ("estimate", pa.float64()),
            ("ci_low", pa.float64()),
            ("ci_high", pa.float64()),
            ("n_pairs", pa.int64()),
            ("n_references", pa.int64()),
        ]
    ),
    # Pairs on which metric and machines disagree most, with what it takes to look at them. `expected` is the
    # probability that the fitted metric gives to A; images as stored (WebP), maps of similarity as PNG.
    "disagreements": pa.schema(
        [
            ("pair_id", _ID),
            ("fold", pa.int32()),
            ("reference_id", _ID),
            ("target_db", pa.float64()),
            ("family_a", _NAME),
            ("family_b", _NAME),
            ("label_held_out", pa.float64()),
            ("label_seen", pa.float64()),
            ("expected", pa.float64()),
            ("score_a", pa.float64()),
            ("score_b", pa.float64()),
            ("pixels_reference", pa.binary()),
            ("pixels_a", pa.binary()),
            ("pixels_b", pa.binary()),
            ("map_a", pa.binary()),
            ("map_b", pa.binary()),
        ]
    ),
    # With whom each voter (kind `held_out` or `seen`) and each metric sides there: 1 = A, 0 = B, 1/2 = a tie.
    "sides": pa.schema(
        [
            ("pair_id", _ID),
            ("fold", pa.int32()),
            ("kind", _NAME),
            ("name", _NAME),
            ("variant", _NAME),
            ("side", pa.float64()),
        ]
    ),
}


# Of each page its CRC-32, which costs nothing beside zstd: a flipped bit is found when it is read.
_WRITING: dict[str, Any] = {"compression": "zstd", "store_schema": True, "write_page_checksum": True}


def write_table(path: Path | str, frame: pd.DataFrame | pa.Table, schema: str) -> None:
    """Write ``frame`` as parquet under ``schema`` (a key of :data:`SCHEMAS`); extra columns follow.

    Raises:
        ArtifactError: a declared column is missing or cannot be cast without loss.
    """
    table = _as_declared(frame, schema)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, **_WRITING)


@contextmanager
def stream_table(path: Path | str, schema: str) -> Iterator[Callable[[pd.DataFrame | pa.Table], None]]:
    """Yield ``append(frame)`` for tables that do not fit in memory: each call writes one row group.

    The file appears, whole, when the block ends without an error. Without any call it is an empty table, of
    no row group.
    """
    with atomic(path) as temporary:
        writer: pq.ParquetWriter | None = None

        def append(frame: pd.DataFrame | pa.Table) -> None:
            nonlocal writer
            table = _as_declared(frame, schema)
            if writer is None:
                writer = pq.ParquetWriter(temporary, table.schema, **_WRITING)
            writer.write_table(table)

        try:
            yield append
            if writer is None:
                writer = pq.ParquetWriter(temporary, SCHEMAS[schema], **_WRITING)
        finally:
            if writer is not None:
                writer.close()


def _as_declared(frame: pd.DataFrame | pa.Table, schema: str) -> pa.Table:
    declared = SCHEMAS[schema]
    try:
        if isinstance(frame, pa.Table):
            table = frame
        else:  # in one piece each: columns of strings remember from how many they were put together
            table = pa.Table.from_pandas(frame, preserve_index=False).combine_chunks()
        missing = [name for name in declared.names if name not in table.column_names]
        if missing:
            raise ArtifactError(f"{schema} lacks the declared columns {missing}")
        extra = [name for name in table.column_names if name not in declared.names]
        fields = [*declared, *(table.schema.field(name) for name in extra)]
        return table.select([f.name for f in fields]).cast(pa.schema(fields)).replace_schema_metadata(None)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ArtifactError(f"{schema} does not fit its declared schema: {error}") from error


def read_table(path: Path | str, schema: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Read parquet that :func:`write_table` made; names become plain strings.

    Args:
        columns: read only these (saves the image bytes where they are not needed).

    Raises:
        ArtifactError: the file is missing, unreadable or lacks a declared column.
    """
    with _checked(path, schema):
        return _plain(pq.read_table(path, columns=columns, page_checksum_verification=True))


def iterate_table(
    path: Path | str, schema: str, columns: list[str] | None = None, *, rows: int = 256
) -> Iterator[pd.DataFrame]:
    """:func:`read_table` in pieces of ``rows`` rows, so that any number of images fits a flat memory."""
    with _opened(path, schema) as stored:
        batches = stored.iter_batches(rows, columns=columns)
        while (batch := next(batches, None)) is not None:
            yield _plain(pa.Table.from_batches([batch]))


def row_group_sizes(path: Path | str, schema: str) -> list[int]:
    """How many rows each row group of a table has.

    Raises:
        ArtifactError: as :func:`read_table`.
    """
    with _opened(path, schema) as stored:
        groups = range(stored.num_row_groups)
        return [stored.metadata.row_group(number).num_rows for number in groups]


def iterate_row_groups(
    path: Path | str,
    schema: str,
    columns: list[str] | None = None,
    *,
    numbers: Iterable[int] | None = None,
) -> Iterator[pd.DataFrame]:
    """:func:`read_table` in the pieces in which the table was appended; ``numbers``: only these of them."""
    for table in _row_groups(path, schema, columns, numbers):
        yield _plain(table)


def _row_groups(
    path: Path | str, schema: str, columns: list[str] | None = None, numbers: Iterable[int] | None = None
) -> Iterator[pa.Table]:
    with _opened(path, schema) as stored:
        for number in range(stored.num_row_groups) if numbers is None else numbers:
            yield stored.read_row_group(number, columns)


def concatenate_tables(parts: Sequence[Path | str], path: Path | str, schema: str) -> int:
    """Write the rows of ``parts`` to ``path``, part after part and row group by row group.

    The bytes are those that one writer makes to which all these row groups are appended. One is in memory at
    a time.

    Returns:
        How many rows there are.

    Raises:
        ArtifactError: a part is missing or damaged, by its name.
    """
    rows = 0
    with stream_table(path, schema) as append:
        for part in parts:
            for table in _row_groups(part, schema):
                append(_with_own_names(table))
                rows += table.num_rows
    return rows


def _with_own_names(table: pa.Table) -> pa.Table:
    """Names as text: an appended row group has a dictionary of its own names alone."""
    for place, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            text = table.column(place).cast(column.type.value_type)
            table = table.set_column(place, column.name, text)
    return table.combine_chunks()


@contextmanager
def _opened(path: Path | str, schema: str) -> Iterator[pq.ParquetFile]:
    """A stored table to be read piece by piece."""
    # Buffered ahead, as is pyarrow's default, a file stays in memory whole until its end.
    with (
        _checked(path, schema),
        pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as stored,
    ):
        yield stored


@contextmanager
def _checked(path: Path | str, schema: str) -> Iterator[None]:
    """Check a stored table's columns, and say in one sentence what is wrong with an unreadable file."""
    try:
        stored = pq.read_schema(path)
        missing = [f.name for f in SCHEMAS[schema] if f.name not in stored.names]
        wrong = [
            f"{f.name} is {stored.field(f.name).type}, expected {f.type}"
            for f in SCHEMAS[schema]
            if f.name in stored.names and stored.field(f.name).type != f.type
        ]
        if missing or wrong:
            problem = f"missing columns {missing}" if missing else "; ".join(wrong)
            raise ArtifactError(
                f"{path} is not a '{schema}' table of this version: {problem}; delete it and run again"
            )
        yield
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist; run the step that makes '{schema}'") from error
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete it and run again") from error


def _plain(table: pa.Table) -> pd.DataFrame:
    frame = table.to_pandas()
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            frame[name] = frame[name].astype(object)
    return frame


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON with sorted keys and a final newline, atomically; NaN is refused (it is no JSON)."""
    with atomic(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8"
        )


class _Stored(dict[str, Any]):
    """An object of a JSON file, which knows its file where a key is asked for that it lacks."""

    def __init__(self, path: Path | str, value: dict[str, Any]) -> None:
        super().__init__(value)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise ArtifactError(
            f"{self.path} is not of this version: it has no {key!r}, but {', '.join(self) or 'nothing'}; "
            "delete it and run again"
        )


def read_json(path: Path | str) -> Any:
    """Read JSON, with one clear sentence when the file is missing or damaged.

    Raises:
        ArtifactError: also, when it is asked for, of a key that the file's object lacks.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist; run the step that makes it") from error
    except (ValueError, OSError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete it and run again") from error
    return _Stored(path, value) if isinstance(value, dict) else value


def sha256_of(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in one-megabyte blocks."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
