"""What a published PCMP is: the files of its folder, their columns, and its description.

Rows are sorted by reference and then by their own id, and strings are plain, so that any reader of parquet
can walk several files side by side in a flat memory, and equal content gives equal bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlclipsim.artifacts import ArtifactError, atomic, read_json, sha256_of, write_json

__all__ = [
    "CHECKSUMS",
    "DATASHEET",
    "DESCRIPTION",
    "GROUPS",
    "TABLES",
    "Description",
    "Rows",
    "is_release",
    "label_columns",
    "open_table",
    "read_checksums",
    "schema",
    "shard_name",
    "shard_names",
    "sign",
    "walk",
    "write_rows",
]

LAYOUT = 1  # of the files below: moves when a reader of the old one could not read the new one
DESCRIPTION, DATASHEET, CHECKSUMS = "dataset.json", "datasheet.md", "checksums.sha256"
TABLES = ("partition", "recipe", "pairs", "votes", "voters", "drops")
GROUPS = ("seen", "held_out")
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_BATCH = 4096  # rows in memory of a table that is walked
_IMAGES_PER_GROUP = 100  # small enough to read single images without much else
_ROWS_PER_GROUP = 8_192  # in memory while they are written

_TEXT, _REAL, _INT = pa.string(), pa.float64(), pa.int32()
# A reference is an image without family, level and strength; its `image_id` is its `reference_id`.
_OF_IMAGE = [
    ("image_id", _TEXT),
    ("reference_id", _TEXT),
    ("photograph", _TEXT),
    ("role", _TEXT),
    ("label", _INT),
    ("caption", _TEXT),
    ("target_db", _REAL),
    ("family", _TEXT),
    ("photometric", pa.bool_()),
    ("strength", _REAL),
    ("psnr_db", _REAL),
    ("evaluations", _INT),
    ("width", _INT),
    ("height", _INT),
    ("sha256", _TEXT),  # of the pixels: H x W x 3 bytes, RGB, row by row
]
_SCHEMAS = {
    # The struct and the note in the metadata are what Hugging Face `datasets` decodes into a picture.
    "images": pa.schema(
        [*_OF_IMAGE, ("image", pa.struct([("bytes", pa.binary()), ("path", _TEXT)]))],
        metadata={"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})},
    ),
    "recipe": pa.schema([*_OF_IMAGE, ("reference_sha256", _TEXT), ("field_seed", pa.int64())]),
    "partition": pa.schema([("photograph", _TEXT), ("sha256", _TEXT), ("role", _TEXT)]),
    # and for every fold and group of voters a label, see `label_columns`
    "pairs": pa.schema(
        [
            ("pair_id", _TEXT),
            ("reference_id", _TEXT),
            ("role", _TEXT),
            ("target_db", _REAL),
            ("image_a", _TEXT),
            ("image_b", _TEXT),
            ("family_a", _TEXT),
            ("family_b", _TEXT),
            ("photometric", pa.bool_()),
            ("psnr_a_db", _REAL),
            ("psnr_b_db", _REAL),
        ]
    ),
    "votes": pa.schema([("pair_id", _TEXT), ("voter", _TEXT), ("vote", _REAL)]),
    "voters": pa.schema(
        [
            ("voter", _TEXT),
            ("task", _TEXT),
            ("family", _TEXT),
            ("clean_accuracy", _REAL),
            ("n_clean", pa.int64()),
            ("temperature", _REAL),
            ("sha256", _TEXT),
            ("since", _TEXT),  # the version of the data set that brought this voter
        ]
    ),
    "drops": pa.schema(
        [
            ("role", _TEXT),
            ("target_db", _REAL),
            ("family", _TEXT),
            ("cause", _TEXT),
            ("count", pa.int64()),
            ("fold", _INT),
            ("group", _TEXT),
        ]
    ),
}


def label_columns(n_folds: int) -> list[tuple[int, str, tuple[str, str, str]]]:
    """``(fold, group, (label, n_votes, n_families))``: names of the label columns of ``pairs``."""
    return [
        (fold, group, (f"label_{group}_{fold}", f"n_votes_{group}_{fold}", f"n_families_{group}_{fold}"))
        for fold in range(n_folds)
        for group in GROUPS
    ]


def schema(table: str, n_folds: int = 1) -> pa.Schema:
    """Columns of ``images`` (a shard) or one of :data:`TABLES`, in order; there are no others."""
    declared = _SCHEMAS[table]
    if table == "pairs":
        for _, _, (label, n_votes, n_families) in label_columns(n_folds):
            for name, kind in ((label, _REAL), (n_votes, _INT), (n_families, _INT)):
                declared = declared.append(pa.field(name, kind))
    return declared


def shard_name(number: int) -> str:
    return f"images-{number:05d}.parquet"


def is_release(folder: Path | str) -> bool:
    """Whether ``folder`` is a published data set rather than one of the workflow's."""
    return (Path(folder) / DESCRIPTION).is_file()


@dataclass(frozen=True, kw_only=True)
class Description:
    """``dataset.json``.

    Attributes:
        name, version: ``major.minor.patch``. Major: other pairs or pixels; minor: more votes; patch: words.
        layout: number of this layout of files and columns.
        preset, seed, config: what made it; ``config`` has the slice that each step read.
        folds: who is seen and who held out, of the voters of the first version.
        includes_images: False where shards were left out, because the photographs may not be passed on.
        shards: ``file, rows, sha256`` of each, also of those that were left out.
        counts: see ``mlclipsim.pcmp.export``.
        libraries: versions of what drew the pixels.
        history: ``version, change`` of each version, the latest last.
    """

    name: str
    version: str
    layout: int
    preset: str
    seed: int
    config: dict[str, Any]
    folds: list[dict[str, list[str]]]
    includes_images: bool
    shards: list[dict[str, Any]]
    counts: dict[str, Any]
    libraries: dict[str, str | None]
    history: list[dict[str, str]]

    def __post_init__(self) -> None:
        check_version(self.version)
        entries = self.history if isinstance(self.history, list) else []
        latest = entries[-1].get("version") if entries and isinstance(entries[-1], dict) else None
        if latest != self.version:
            raise ArtifactError(
                f"{DESCRIPTION}: the version is {self.version}, but its history ends with {latest}; "
                "fetch the file again"
            )

    @classmethod
    def read(cls, folder: Path | str) -> Description:
        """Read ``dataset.json``.

        Raises:
            ArtifactError: it is not there, damaged, or of another layout.
        """
        path = Path(folder) / DESCRIPTION
        if not path.is_file():
            raise ArtifactError(
                f"{folder} is no published data set: it holds no {DESCRIPTION}; name the folder of one, "
                "or make one with `mlclipsim pcmp export`"
            )
        stored = read_json(path)
        layout = stored.get("layout") if isinstance(stored, dict) else None
        if layout != LAYOUT:
            raise ArtifactError(
                f"{path}: expected layout {LAYOUT}, got {layout!r}; use the version of mlclipsim that "
                "wrote it"
            )
        names = {field.name for field in fields(cls)}
        if set(stored) != names:
            raise ArtifactError(
                f"{path}: expected the keys {sorted(names)}, lacks {sorted(names - set(stored))}, "
                f"has besides {sorted(set(stored) - names)}; fetch the file again"
            )
        description = cls(**stored)
        if not _plausible(description):  # rebuilding writes to the places that it names
            raise ArtifactError(
                f"{path}: expected shards named {shard_name(0)} and so on, each with rows and SHA-256, and "
                "folds, counts and history as they were published; fetch the file again"
            )
        return description

    def write(self, folder: Path) -> None:
        write_json(folder / DESCRIPTION, asdict(self))

    def summary(self) -> dict[str, str]:
        """A few words on what there is, by heading."""

        def by_role(key: str) -> str:
            counted = self.counts[key]
            parts = ", ".join(f"{name} {number:,}" for name, number in counted.items())
            return f"{sum(counted.values()):,} ({parts})"

        total = {
            key: sum(v[key] for v in self.counts["votes"].values()) for key in ("cast", "ties", "abstained")
        }
        shards = f"{len(self.shards)}, " + (
            "included" if self.includes_images else "left out: built by --rebuild"
        )
        return {
            "name": f"{self.name} {self.version}",
            "made by": f"preset {self.preset}, seed {self.seed}",
            **{key: by_role(key) for key in ("references", "images", "pairs")},
            "families": ", ".join(self.counts["families"]),
            "targets": ", ".join(sorted(self.counts["targets_db"], key=float)) + " dB",
            "voters": ", ".join(self.counts["votes"]),
            "votes": f"{total['cast']:,}, {total['ties']:,} of them ties; {total['abstained']:,} abstentions",
            "shards": shards,
            "history": "; ".join(f"{entry['version']} {entry['change']}" for entry in self.history),
        }

    @property
    def files(self) -> list[str]:
        """Every file whose checksum is listed, sorted."""
        names = [DESCRIPTION, DATASHEET, *(f"{table}.parquet" for table in TABLES)]
        return sorted([*names, *(shard_names(self) if self.includes_images else [])])


def _plausible(description: Description) -> bool:
    try:
        return (
            [shard["file"] for shard in description.shards]
            == [shard_name(number) for number in range(len(description.shards))]
            and all(shard["rows"] > 0 and len(shard["sha256"]) == 64 for shard in description.shards)
            and all(isinstance(fold[group], list) for fold in description.folds for group in GROUPS)
            and all(isinstance(entry["change"], str) for entry in description.history)
            and bool(description.summary())  # of the counts
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def check_version(version: str) -> tuple[int, int, int]:
    """The three numbers of ``major.minor.patch``.

    Raises:
        ArtifactError: it is not of that form.
    """
    found = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if not found:
        raise ArtifactError(
            f"version {version!r} is not of the form major.minor.patch, such as 1.0.0; mend it"
        )
    major, minor, patch = (int(part) for part in found.groups())
    return major, minor, patch


def shard_names(description: Description) -> list[str]:
    return [shard["file"] for shard in description.shards]


class Rows:
    """A parquet file under a declared schema, row after row; see :func:`write_rows`."""

    def __init__(self, path: Path, declared: pa.Schema) -> None:
        images = "image" in declared.names
        self._schema = declared
        self._limit = _IMAGES_PER_GROUP if images else _ROWS_PER_GROUP
        plain = [name for name in declared.names if name != "image"]
        # Pictures are compressed already.
        compression: Any = dict.fromkeys(plain, "zstd") | ({"image.bytes": "none"} if images else {})
        self._writer = pq.ParquetWriter(
            path, declared, compression=compression, use_dictionary=plain, store_schema=True
        )
        self._waiting: list[tuple] = []
        self.count = 0

    def add(self, row: tuple) -> None:
        """Add the values of one row, in the schema's order."""
        self._waiting.append(row)
        self.count += 1
        if len(self._waiting) == self._limit:
            self.flush()

    def flush(self) -> None:
        columns: Iterable = zip(*self._waiting, strict=True) if self._waiting else [()] * len(self._schema)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._waiting = []

    def close(self) -> None:
        self._writer.close()


@contextmanager
def write_rows(path: Path, declared: pa.Schema) -> Iterator[Rows]:
    """Write ``path`` by ``rows.add(row)``; it appears, whole, when the block ends without an error.

    Raises:
        ArtifactError: a value that does not fit its column.
    """
    with atomic(path) as temporary:
        rows = Rows(temporary, declared)
        try:
            yield rows
            if rows._waiting or not rows.count:
                rows.flush()
        except pa.ArrowException as error:
            raise ArtifactError(f"{path.name}: a row does not fit its columns: {error}") from error
        finally:
            rows.close()


@contextmanager
def open_table(path: Path, declared: pa.Schema) -> Iterator[pq.ParquetFile]:
    """Open a file of a data set, its columns checked.

    Raises:
        ArtifactError: missing, damaged, or of other columns.
    """
    try:
        # The buffer keeps a column of a row group from being read whole; without read-ahead, groups that have
        # passed are let go.
        with pq.ParquetFile(path, buffer_size=1 << 16, pre_buffer=False) as stored:
            found = stored.schema_arrow
            if not found.equals(declared):
                raise ArtifactError(f"{path.name}: {_difference(declared, found)}; fetch the file again")
            yield stored
    except FileNotFoundError:
        raise ArtifactError(f"{path.name} is missing from {path.parent}; fetch it") from None
    except (pa.ArrowException, OSError) as error:
        text = " ".join(str(error).split())
        raise ArtifactError(f"{path.name} is damaged ({text}); fetch the file again") from error


def _difference(declared: pa.Schema, found: pa.Schema) -> str:
    for kind, names in (
        ("lacks the columns", [n for n in declared.names if n not in found.names]),
        ("has the undeclared columns", [n for n in found.names if n not in declared.names]),
    ):
        if names:
            return f"{kind} {', '.join(names)}"
    wrong = [
        f"{field.name} is {found.field(field.name).type}, expected {field.type}"
        for field in declared
        if found.field(field.name).type != field.type
    ]
    return "; ".join(wrong) if wrong else f"expected the columns in the order {', '.join(declared.names)}"


def walk(path: Path, declared: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[tuple]:
    """The rows of a file as tuples, some thousand (or hundred images) in memory at a time."""
    names = list(columns or declared.names)
    size = _IMAGES_PER_GROUP if "image" in names else _BATCH
    with open_table(path, declared) as stored:
        for batch in stored.iter_batches(size, columns=names):
            yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)


def sign(folder: Path, names: Iterable[str]) -> None:
    """Write ``checksums.sha256`` over the files ``names``; `sha256sum --check` reads it."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in sorted(names)]
    with atomic(folder / CHECKSUMS) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def read_checksums(folder: Path) -> dict[str, str]:
    """File name -> sha256.

    Raises:
        ArtifactError: there is no list, or it is something else.
    """
    path = folder / CHECKSUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); fetch it again") from None
    found = [re.fullmatch(r"([0-9a-f]{64}) [ *]([^\s/\\][^/\\]*)", line) for line in lines]
    if not all(found):
        raise ArtifactError(f"{path}: expected lines of a SHA-256 and a file name; fetch it again")
    return {match[2]: match[1] for match in found if match}
