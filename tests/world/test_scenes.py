"""Scenes: deterministic, labelled by what is drawn, over photographs of one role each."""

import numpy as np
import pytest

from mlclipsim.randomness import generator
from mlclipsim.world.captions import CONTEXT_LENGTH, VOCABULARY, tokenize
from mlclipsim.world.scenes import COLOURS, PHOTOGRAPHS, SHAPES, TEXTURES, load_photograph, render


def scenes(n, seed=1, photograph="astronaut"):
    return [render(generator(seed, "test", i), load_photograph(photograph)) for i in range(n)]


def test_same_state_gives_the_same_bytes():
    first, second = scenes(5), scenes(5)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        assert a.caption == b.caption
    assert not np.array_equal(first[0].image, first[1].image)


def test_image_is_8_bit_rgb_with_one_to_three_objects():
    for scene in scenes(50):
        assert scene.image.shape == (64, 64, 3)
        assert scene.image.dtype == np.uint8
        assert 1 <= len(scene.objects) <= 3


def test_label_is_the_shape_of_the_object_that_covers_most():
    for scene in scenes(80):
        reach = [max(o.box[2] - o.box[0], o.box[3] - o.box[1]) for o in scene.objects]
        assert reach[0] == max(reach)  # the longest extent: a thin large bar covers less than a small disc
        assert scene.label == list(SHAPES).index(scene.objects[0].shape)


def test_boxes_are_tight_around_masks_and_masks_do_not_overlap():
    for scene in scenes(40):
        seen = np.zeros((64, 64), int)
        for o in scene.objects:
            x0, y0, x1, y1 = o.box
            assert o.mask[y0:y1, x0:x1].sum() == o.mask.sum()
            assert o.mask[y0].any()
            assert o.mask[y1 - 1].any()
            assert o.mask[:, x0].any()
            assert o.mask[:, x1 - 1].any()
            seen += o.mask
        assert seen.max() == 1
        assert set(np.unique(scene.semantic)) == {0} | {1 + o.label for o in scene.objects}


def test_objects_stand_out_in_colour_from_what_lies_behind():
    rng = np.random.default_rng(3)
    green = np.tile(np.array(COLOURS["green"], np.uint8), (200, 200, 1))
    for _ in range(25):
        scene = render(rng, green)
        inside = scene.image[scene.objects[0].mask].mean(0)
        outside = scene.image[scene.semantic == 0].mean(0)
        assert np.linalg.norm(inside - outside) > 30  # texture and opacity take up to 70 of the 110 units


def test_every_class_colour_and_texture_occurs():
    objects = [o for scene in scenes(300) for o in scene.objects]
    assert {o.shape for o in objects} == set(SHAPES)
    assert {o.colour for o in objects} == set(COLOURS)
    assert {o.texture for o in objects} == set(TEXTURES)
    assert len(SHAPES) >= 10
    assert len(COLOURS) == 8
    assert len(TEXTURES) == 4


def test_every_role_of_the_partition_has_photographs_of_its_own():
    roles = {"zoo_train", "zoo_val", "pcmp_train", "pcmp_val", "pcmp_test"}
    roles |= {"codec_train", "codec_val", "rate_task_test"}
    assert set(PHOTOGRAPHS.values()) == roles
    contents = [load_photograph(name).tobytes() for name in PHOTOGRAPHS]
    assert len(set(contents)) == len(contents)


def test_unknown_photograph_is_refused_with_the_names_that_exist():
    with pytest.raises(ValueError, match=r"'lenna' is unknown; expected one of astronaut"):
        load_photograph("lenna")


def test_captions_fit_the_vocabulary_and_end_with_the_highest_token():
    captions = [scene.caption for scene in scenes(60)]
    tokens = tokenize(captions)
    assert tokens.shape == (60, CONTEXT_LENGTH)
    assert len(VOCABULARY) <= 64
    for row, caption in zip(tokens, captions, strict=True):
        words = [VOCABULARY[i] for i in row if i]
        assert words == ["<start>", *caption.split(), "<end>"]
        assert int(row.argmax()) == len(words) - 1  # where open_clip's text tower pools


def test_words_outside_the_vocabulary_are_named():
    with pytest.raises(ValueError, match="outside the scenes' vocabulary: dog"):
        tokenize(["a large dog"])
