"""Pairs are made by name, and what has no partner or several is said."""

from __future__ import annotations

import pytest

from mlclipsim.pairing import pair_files


@pytest.fixture
def folder(tmp_path):
    """Make files (their content does not matter here) and return the folder."""

    def make(name, *files):
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / name

    return make


def test_folders_pair_by_path_without_extension(folder):
    references = folder("refs", "b.png", "a.v2.PNG", "deep/a.png", "notes.txt")
    distorted = folder("dists", "deep/a.webp", "b.jpg", "a.v2.jpg", ".hidden.png", ".cache/x.png")
    pairs, unpaired = pair_files(references, distorted)
    found = [(p.name, p.reference.relative_to(references), p.distorted.relative_to(distorted)) for p in pairs]
    assert [(name, str(a), str(b)) for name, a, b in found] == [
        ("a.v2", "a.v2.PNG", "a.v2.jpg"),
        ("b", "b.png", "b.jpg"),
        ("deep/a", "deep/a.png", "deep/a.webp"),
    ]
    assert unpaired == []


def test_a_missing_file_shifts_no_pair(folder):
    references, distorted = (
        folder("refs", "a.png", "b.png", "c.png"),
        folder("dists", "b.jpg", "c.jpg", "d.jpg"),
    )
    pairs, unpaired = pair_files(references, distorted)
    assert [(p.reference.stem, p.distorted.stem) for p in pairs] == [("b", "b"), ("c", "c")]
    assert unpaired == [
        f"{references / 'a.png'}: unpaired, no image named a in {distorted}",
        f"{distorted / 'd.jpg'}: unpaired, no image named d in {references}",
    ]


def test_one_reference_goes_with_every_image(folder):
    reference, distorted = folder("refs", "x.png") / "x.png", folder("dists", "2.jpg", "1/a.jpg")
    pairs, unpaired = pair_files(reference, distorted)
    assert [(p.name, p.reference) for p in pairs] == [("1/a", reference), ("2", reference)]
    assert unpaired == []


def test_two_files_are_a_pair_whatever_their_names(folder):
    files = folder("any", "x.dat", "y.png")
    ((pair,), unpaired) = pair_files(files / "x.dat", files / "y.png")
    assert (pair.name, pair.reference, unpaired) == ("y", files / "x.dat", [])


def test_names_that_several_files_have_are_all_listed(folder):
    references = folder("refs", "a.png", "a.JPG", "b/c.png", "b/c.webp", "d.png")
    with pytest.raises(ValueError, match="expected one image of a name") as caught:
        pair_files(references, folder("dists", "a.png"))
    message = str(caught.value)
    assert all(name in message for name in ("a.JPG and", "a.png", "c.png and", "c.webp"))
    assert "d.png" not in message


@pytest.mark.parametrize(
    ("reference", "distorted", "message"),
    [
        ("refs", "dists/x.png", "is a folder but .* one file, expected two files"),
        ("refs", "no", "no: expected an image file or a folder of them, found nothing"),
        ("refs", "empty", "holds no images; expected files ending in .avif"),
        ("refs", "dists", r"no name in common \(a, ... and x, ...\)"),
    ],
)
def test_refuses_in_one_sentence(folder, reference, distorted, message):
    root = folder("refs", "a.png", "b.png").parent
    folder("dists", "x.png"), folder("empty", "readme.md")
    with pytest.raises((ValueError, OSError), match=message):
        pair_files(root / reference, root / distorted)
