"""Archives that do what they should not: leave their folder, link, or grow without end."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from mlclipsim import archives
from mlclipsim.archives import is_archive, unpack
from mlclipsim.artifacts import ArtifactError

FILES = {"images/a.png": b"a" * 100, "images/b/c.png": b"c" * 50, "table.csv": b"x,y\n"}


def as_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def as_tar(path: Path, files: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in others:
            archive.addfile(info)
    return path


MAKERS = {"a.zip": as_zip, "a.tar.gz": as_tar}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", MAKERS)
def test_files_come_out_as_they_went_in(tmp_path, name):
    archive = MAKERS[name](tmp_path / name, FILES)
    assert unpack(archive, tmp_path / "out") == len(FILES)
    assert contents(tmp_path / "out") == FILES
    unpack(archive, tmp_path / "out")  # again, over what is there
    assert contents(tmp_path / "out") == FILES


@pytest.mark.parametrize("name", MAKERS)
def test_a_folder_of_the_same_name_is_not_doubled(tmp_path, name):
    archive = MAKERS[name](tmp_path / name, {f"set/{file}": content for file, content in FILES.items()})
    unpack(archive, tmp_path / "set")
    assert contents(tmp_path / "set") == FILES
    unpack(archive, tmp_path / "other")
    assert set(contents(tmp_path / "other")) == {f"set/{file}" for file in FILES}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("bad", ["../evil", "a/../../evil", "/evil", "a\\..\\evil"])
def test_nothing_leaves_the_folder(tmp_path, name, bad):
    archive = MAKERS[name](tmp_path / name, {"good": b"x", bad: b"y"})
    with pytest.raises(ArtifactError, match=r"cannot be unpacked \(.*outside"):
        unpack(archive, tmp_path / "a" / "out")
    assert contents(tmp_path) == {name: archive.read_bytes()}  # not even the good one


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_tars_with_links_or_devices_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "table.csv"
    archive = as_tar(tmp_path / "a.tar.gz", FILES, info)
    with pytest.raises(ArtifactError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_zips_with_links_are_refused(tmp_path):
    path = as_zip(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "table.csv")
    with pytest.raises(ArtifactError, match="'link' is no file"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("name", MAKERS)
def test_bombs_are_not_let_off(tmp_path, monkeypatch, name):
    monkeypatch.setattr(archives, "_LEAST", 2**20)
    archive = MAKERS[name](tmp_path / name, {"zeros": bytes(2**23)})
    with pytest.raises(ArtifactError, match="unpacks to more than"):
        unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_many_empty_files_are_a_bomb_too(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_LEAST", 100 * 4096)
    monkeypatch.setattr(archives, "_RATIO", 1)
    archive = as_zip(tmp_path / "a.zip", {f"{number}": b"" for number in range(200)})
    with pytest.raises(ArtifactError, match="unpacks to more than"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("name", MAKERS)
def test_damaged_archives_leave_nothing(tmp_path, name):
    whole = MAKERS[name](tmp_path / name, {"noise": bytes(range(256)) * 200} | FILES).read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:200] + b"\0" * 40 + whole[240:], b"no archive at all"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ArtifactError, match="cannot be unpacked"):
            unpack(tmp_path / name, tmp_path / "out")
        assert contents(tmp_path / "out") == {}


def test_what_a_killed_run_left_is_removed(tmp_path):
    left = tmp_path / "out" / ".unpacking-a.zip" / "half"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    unpack(as_zip(tmp_path / "a.zip", FILES), tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


def test_what_macos_adds_is_left_out(tmp_path):
    unpack(as_zip(tmp_path / "a.zip", FILES | {"__MACOSX/._a.png": b"?"}), tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


def test_kinds_of_archives():
    assert all(is_archive(name) for name in ("a.zip", "a.tar", "A.TAR.GZ", "a.tgz", "a.tar.xz"))
    assert not any(is_archive(name) for name in ("tid2013.rar", "csiq.DMOS.xlsx", "vgg16.pth", "zip"))
