"""Image files to compressed files and back, by the codecs of the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlclipsim import listing, spec
from mlclipsim.atomic import atomic
from mlclipsim.compression import container
from mlclipsim.compression.bitstream import Bitstream
from mlclipsim.compression.classical import ClassicalCodec
from mlclipsim.images import MAX_PIXELS, read_image, write_png
from mlclipsim.usage import UsageError

if TYPE_CHECKING:  # compressai is imported where a learned codec is asked for
    from mlclipsim.compression.codecs import LearnedCodec

__all__ = ["as_text", "catalog", "compress", "decompress", "entry_of", "open_codec", "qualities"]

Entry = Mapping[str, Any]


def catalog() -> dict[str, Any]:
    """The codecs of config/catalog/codecs.yaml, by name."""
    return spec.read_yaml(spec.project_root() / "config" / "catalog" / "codecs.yaml")


def entry_of(name: str) -> Entry:
    """The catalog's entry.

    Raises:
        UsageError: an unknown name.
    """
    entries = catalog()
    if name not in entries:
        raise UsageError(f"codec {name!r} is unknown; expected one of {', '.join(entries)}")
    return entries[name]


def qualities(entry: Entry) -> list[int]:
    """What a codec is studied at: the numbers of its points, or its ladder of qualities."""
    if entry["library"] == "pillow":
        return list(entry["qualities"])
    return [int(point.removeprefix("q")) for point in entry["points"]]


def as_text() -> str:
    """The codecs and their qualities, and whether their weights are here, as a table for a terminal."""
    from mlclipsim.compression.codecs import weights_file

    rows = [("codec", "model", "qualities", "weights")]
    for name, entry in catalog().items():
        numbers = qualities(entry)
        state = "none needed"
        if entry["library"] == "compressai":
            here = sum(weights_file(entry, f"q{number}")[0].is_file() for number in numbers)
            state = "here" if here == len(numbers) else f"{here} of {len(numbers)} here"
        rows.append((name, entry["model"], " ".join(map(str, numbers)), state))
    return listing.as_text(rows)


def open_codec(entry: Entry, quality: int, weights: Path | None = None) -> LearnedCodec | ClassicalCodec:
    """The codec of a catalog entry at one quality: the number of a point, or the classical codec's own.

    Raises:
        UsageError: a quality that it does not have, or weights for a codec that has none.
        ArtifactError: its weights are missing or others, see :func:`mlclipsim.compression.codecs.load`.
    """
    if entry["library"] == "compressai":
        from mlclipsim.compression.codecs import LearnedCodec, load

        return LearnedCodec(load(entry, f"q{quality}", weights))
    if weights:
        raise UsageError(f"{entry['model']}: expected no weights, got {weights}; a classical codec has none")
    return ClassicalCodec(entry["model"], quality)


def compress(image: Path, output: Path, *, codec: str, quality: int, weights: Path | None = None) -> str:
    """Code an image file into ``output``, whole or not at all, and say at what cost.

    Args:
        weights: of another network of the codec's shape, which :func:`decompress` then needs, too.

    Raises:
        UsageError: an unknown codec, or a quality that it does not have.
        ImageError: a file that cannot serve as an image.
        ArtifactError: the weights are missing or others.
    """
    entry = entry_of(codec)
    coder = open_codec(entry, quality, weights)
    stream = coder.encode(read_image(image))
    header = container.Header(entry["id"], quality, _fingerprint(coder), stream.size)
    data = container.pack(header, stream.strings)
    with atomic(output) as temporary:
        temporary.write_bytes(data)
    rows, columns = coder.padding(stream.size)
    padding = f"; {columns} columns and {rows} rows of padding" if rows or columns else ""
    alike = "" if coder.portable else "; sure to decode only with this software on such a processor"
    return (
        f"{codec} q{quality}: {stream.payload_bytes} bytes of payload, {stream.bpp:.4f} bits per pixel; "
        f"{len(data) - stream.payload_bytes} bytes of container{padding}{alike}"
    )


def decompress(source: Path, output: Path, *, codec: str | None = None, weights: Path | None = None) -> str:
    """Decode what :func:`compress` wrote into a PNG file, and say by which codec.

    Args:
        codec: the only one that is accepted; None takes whatever the stream names.

    Raises:
        UsageError: an unknown codec.
        ValueError: a stream that is foreign, truncated, damaged, or of another codec or other weights.
        ArtifactError: the weights are missing or others.
    """
    if codec:
        entry_of(codec)
    try:
        header, strings = container.unpack(source.read_bytes())
    except container.ContainerError as error:
        raise container.ContainerError(f"{source}: {error}") from None
    height, width = header.size
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"{source}: says that it holds {width}x{height} pixels, more than any image that is coded"
        )
    writer = next((name for name, entry in catalog().items() if entry["id"] == header.codec), None)
    if writer is None:
        raise ValueError(f"{source}: written by codec {header.codec}, which config/catalog/codecs.yaml lacks")
    if codec and entry_of(codec)["id"] != header.codec:
        raise ValueError(f"{source}: written by {writer}, not by {codec}; name that one, or none")
    coder = open_codec(entry_of(writer), header.quality, weights)
    if _fingerprint(coder) != header.fingerprint:
        raise ValueError(
            f"{source}: written with weights {header.fingerprint.hex()}, but those of {writer} "
            f"q{header.quality} here are {_fingerprint(coder).hex()}; pass the file of the others as weights"
        )
    stream = Bitstream(strings=strings, shape=coder.shape(header.size), size=header.size)
    write_png(output, coder.decode(stream))
    height, width = header.size
    return f"{writer} q{header.quality}: {width}x{height} pixels"


def _fingerprint(coder: LearnedCodec | ClassicalCodec) -> bytes:
    return coder.fingerprint[: container.FINGERPRINT_BYTES]
