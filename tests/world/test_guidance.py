"""The heads that guide the CLIP towers of the zoo while they are trained."""

import pytest
import torch

from mlclipsim.world import zoo
from mlclipsim.world.captions import tokenize
from mlclipsim.world.guidance import GuidedClip


@pytest.mark.parametrize("name", ["scene-clip", "scene-clip-resnet"])
def test_every_part_of_the_loss_reaches_the_tower(name):
    """Also pins that the embedding is the tower's own: open_clip would pool an earlier stage of a ResNet."""
    clip = zoo.build(name)
    guided = GuidedClip(clip)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    guided.eval()
    torch.testing.assert_close(guided._look(images)["image_features"], clip.encode_image(images))

    text = tokenize(["a large red plain star", "a large blue dotted ring"])
    objects = torch.tensor([[4, 0, 0], [8, 5, 3]])
    loss = guided(images, text, objects, torch.zeros(2, 64, 64, dtype=torch.long))
    loss.backward()
    assert loss.isfinite()
    untouched = [n for n, p in guided.named_parameters() if p.grad is None]
    assert not untouched


def test_positions_start_as_waves_that_tell_patches_apart():
    positions = zoo.build("scene-clip").visual.positional_embedding[1:].detach()
    likeness = torch.nn.functional.cosine_similarity(positions[:, None], positions[None], dim=2)
    assert likeness.fill_diagonal_(0).max() < 0.99
    assert likeness[0, 1] > likeness[0, 63]  # neighbours are more alike than opposite corners
