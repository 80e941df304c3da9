"""One role per photograph, near-duplicates included."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

from mlclipsim.artifacts import ArtifactError
from mlclipsim.datasets.partition import assign_roles, check_partition, duplicate_groups, fingerprint
from mlclipsim.images import decode_image

SOURCES = [data.astronaut(), data.chelsea(), data.coffee()]


def pictures(count: int) -> list[np.ndarray]:
    """Distinct crops."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        source = SOURCES[i % 3]
        y, x = (i // 3 * 97) % 200, (i // 3 * 61) % 200
        made.append(np.rot90(source[y : y + 96, x : x + 96], int(rng.integers(4))).copy())
    return made


def recoded(image: np.ndarray) -> np.ndarray:
    """Smaller, darker, and through JPEG."""
    import io

    stream = io.BytesIO()
    Image.fromarray((image * 0.9).astype(np.uint8)).resize((80, 80)).save(stream, "JPEG", quality=60)
    return decode_image(stream.getvalue())


def test_a_recoded_copy_is_the_same_picture_and_others_are_not():
    originals = pictures(12)
    groups = duplicate_groups([fingerprint(image) for image in [*originals, *map(recoded, originals)]])
    assert groups[:12].tolist() == groups[12:].tolist()
    assert len(set(groups)) == 12


def test_flat_pictures_are_told_apart_by_their_grey():
    flat = [np.full((32, 32, 3), grey, np.uint8) for grey in (20, 20, 200)]
    groups = duplicate_groups([fingerprint(image) for image in flat])
    assert groups[0] == groups[1] != groups[2]


COUNTS = {"pcmp_train": 4, "pcmp_test": 3, "zoo_train": 2}


def test_roles_are_filled_and_do_not_depend_on_names_or_order():
    prints = [fingerprint(image) for image in pictures(12)]
    names = [f"n{i}" for i in range(12)]
    one = assign_roles(names, prints, COUNTS, seed=1)
    assert one["role"].value_counts().to_dict() == COUNTS
    renamed = assign_roles([f"z{i}" for i in range(12)][::-1], prints[::-1], COUNTS, seed=1)
    assert dict(zip(one["sha256"], one["role"], strict=True)) == dict(
        zip(renamed["sha256"], renamed["role"], strict=True)
    )
    other = assign_roles(names, prints, COUNTS, seed=2)
    assert set(one.loc[one["role"] == "pcmp_test", "sha256"]) != set(
        other.loc[other["role"] == "pcmp_test", "sha256"]
    )


def test_more_training_data_leaves_the_test_set_as_it_is():
    prints = [fingerprint(image) for image in pictures(12)]
    names = [f"n{i}" for i in range(12)]
    few, many = (assign_roles(names, prints, COUNTS | {"zoo_train": n}, seed=1) for n in (2, 5))
    test = [set(frame.loc[frame["role"] == "pcmp_test", "photograph"]) for frame in (few, many)]
    assert test[0] == test[1]


def test_a_study_of_codecs_leaves_all_other_roles_as_they_are():
    prints = [fingerprint(image) for image in pictures(12)]
    names = [f"n{i}" for i in range(12)]
    codecs = {"codec_train": 1, "codec_val": 1, "rate_task_test": 1}
    without, with_codecs = (
        assign_roles(names, prints, counts, seed=1) for counts in (COUNTS, COUNTS | codecs)
    )
    kept = with_codecs[with_codecs["role"].isin(list(COUNTS))].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, without)


def test_near_duplicates_share_a_role_and_count_once():
    originals = pictures(6)
    images = [*originals, *map(recoded, originals)]
    prints = [fingerprint(image) for image in images]
    names = [f"n{i}" for i in range(12)]
    frame = assign_roles(names, prints, {"pcmp_train": 3, "pcmp_test": 3}, seed=1).set_index("photograph")
    for i in range(6):
        assert frame.at[f"n{i}", "role"] == frame.at[f"n{i + 6}", "role"]
    assert frame[frame["first"]]["role"].value_counts().to_dict() == {"pcmp_train": 3, "pcmp_test": 3}
    with pytest.raises(
        ValueError, match=r"expected at least 7 distinct photographs .* found 6 \(in 12 files\)"
    ):
        assign_roles(names, prints, {"pcmp_train": 4, "pcmp_test": 3}, seed=1)


def test_unknown_role():
    with pytest.raises(ValueError, match=r"roles \['test'\] are unknown"):
        assign_roles([], [], {"test": 1}, seed=1)


def test_any_overlap_is_refused():
    rows = [("a", "1", "pcmp_train"), ("b", "2", "pcmp_test"), ("c", "3", "pcmp_test")]
    good = pd.DataFrame(rows, columns=["photograph", "sha256", "role"])
    check_partition(good, [0, 1, 1])
    with pytest.raises(
        ArtifactError, match=r"same near-duplicates plays several: a \(pcmp_train\), b \(pcmp_test\)"
    ):
        check_partition(good, [0, 0, 1])
    with pytest.raises(ArtifactError, match="same content"):
        check_partition(good.assign(sha256=["1", "1", "3"]))
    with pytest.raises(ArtifactError, match="same photograph"):
        check_partition(good.assign(photograph=["a", "a", "c"]))
