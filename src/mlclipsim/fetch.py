"""What a catalog names, from the network to where the steps look for it; or a sentence on how else it comes.

Whatever is fetched is complete and checked, or not taken for there: weights by their sha256, data sets by the
numbers of their files and by what sums the catalog has.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlclipsim import pretrained
from mlclipsim.archives import is_archive, unpack
from mlclipsim.artifacts import ArtifactError, sha256_of
from mlclipsim.datasets.check import incomplete
from mlclipsim.download import DownloadError, Remote, download
from mlclipsim.places import locate

__all__ = ["by_hand", "fetch", "is_there", "knows"]

Entry = Mapping[str, Any]


def fetch(name: str, entry: Entry) -> str:
    """Get all files of an entry that are not there yet, and say where they are.

    Raises:
        ArtifactError: nobody may or can fetch it, with what to place where; or what came is not it.
    """
    if not knows(entry) and is_there(entry):
        return f"{name}: here already, though no address of it is known"
    if not knows(entry):
        raise ArtifactError(f"{name}: no address is known; {'; '.join(by_hand(entry))}")
    if "reader" in entry:
        return _data_set(name, entry)
    paths = [_weights(name, source) for source in pretrained.sources(dict(entry))]
    return "\n".join(f"{name}: {path}" for path in paths)


def knows(entry: Entry) -> bool:
    """Whether there is an address for every file of the entry."""
    if "reader" in entry:
        return bool(entry.get("url") or any(entry.get("remote", {}).values()))
    return bool(pretrained.sources(dict(entry)))


def is_there(entry: Entry) -> bool:
    """Whether nothing of the entry is missing, by names and numbers of files."""
    if "reader" in entry:
        folders = _folders(entry)
        return all(folder.is_dir() for folder in folders) and not (folders and incomplete(folders[0], entry))
    return None not in pretrained.files(dict(entry)).values()


def by_hand(entry: Entry) -> list[str]:
    """What to place where, of an entry without an address or without network: parts of a sentence."""
    if "reader" in entry:
        folders = " and ".join(map(str, _folders(entry)))
        how = str(entry.get("download") or "unpack it into `path`").replace("`path`", folders)
        return [entry.get("address") or entry["source"], f"needs {entry['needs']}", how]
    if "library" in entry and "points" not in entry:
        return [str(entry["needs"])]
    settings = [*entry.get("points", {}).values(), entry]
    files = [(one.get("weights") or one.get("checkpoint"), one.get("sha256")) for one in settings]
    return [
        f"put the file{f' of sha256 {sha256}' if sha256 else ''} at {locate(place)}"
        for place, sha256 in files
        if place
    ]


def _folders(entry: Entry) -> list[Path]:
    return [locate(place) for place in (entry.get("path"), entry.get("photographs")) if place]


def _weights(name: str, source: pretrained.Source) -> Path:
    if source.path and source.urls:
        remote = Remote(source.urls, source.sha256, source.n_bytes)
        try:
            return download(remote, source.path)
        except DownloadError as error:
            if not source.hub:
                raise _with_place(name, error, remote, source.path) from None
    return _from_hub(name, *source.hub)


def _from_hub(name: str, repository: str, file: str) -> Path:
    """From Hugging Face, by its own client, which resumes; files of weights are named by their sha256."""
    import huggingface_hub

    try:
        path = Path(huggingface_hub.hf_hub_download(repository, file))
    except Exception as error:  # of the hub and its transports: all mean that it did not come
        reason = " ".join(str(error).split())[:200]
        raise DownloadError(
            f"{name}: {file} of {repository} could not be fetched ({reason}); without network copy the "
            f"folder models--{repository.replace('/', '--')} of a machine that has it into "
            f"{huggingface_hub.constants.HF_HUB_CACHE}"
        ) from None
    expected = path.resolve().name
    if len(expected) == 64 and (seen := sha256_of(path)) != expected:
        raise DownloadError(f"{path}: expected sha256 {expected}, got {seen}; remove it and fetch it again")
    return path


def _with_place(name: str, error: DownloadError, remote: Remote, path: Path) -> DownloadError:
    size = f"{remote.n_bytes:,} bytes" if remote.n_bytes else ""
    known = ", ".join(filter(None, [size, remote.sha256 and f"sha256 {remote.sha256}"]))
    said = f" ({known})" if known else ""
    return DownloadError(
        f"{name}: {error}; without network put {remote.urls[0]}{said} at {path} and run this again"
    )


def _data_set(name: str, entry: Entry) -> str:
    folder = locate(entry["path"])
    if folder.is_dir() and not incomplete(folder, entry):
        return f"{name}: {folder}, complete"
    archives = []
    for file, remote in _remotes(entry).items():
        into = folder / entry.get("remote", {}).get(file, {}).get("into", ".")
        place = folder / file if is_archive(file) else into / file
        try:
            download(remote, place)
        except DownloadError as error:
            raise _with_place(name, error, remote, place) from None
        if is_archive(file):
            unpack(place, into)
            archives.append(place)
    if problems := incomplete(folder, entry):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ArtifactError(f"{name}: {problems[0]}{more}; {'; '.join(by_hand(entry))}")
    for archive in archives:  # kept until here: a killed run goes on from them
        archive.unlink()
    return f"{name}: {folder}, complete; `mlclipsim check-data {name}` looks at every image"


def _remotes(entry: Entry) -> dict[str, Remote]:
    """Name below the data set's folder -> the file on the network."""
    sums = entry.get("sha256") or {}
    if "url" in entry:
        folders = (entry["url"], *entry.get("mirrors", ()))
        return {file: Remote(tuple(url + file for url in folders), digest) for file, digest in sums.items()}
    return {
        file: Remote((one["url"], *one.get("mirrors", ())), one.get("sha256"), one.get("bytes"))
        for file, one in entry["remote"].items()
        if one  # null takes a file away that the catalog has
    }
