from mlclipsim.encoders import Encoder, load_encoder


def shallow(seed: int | None) -> Encoder:
    """scene-clip without its last two blocks; with a seed the same shape with random weights."""
    whole = load_encoder("scene-clip", seed=seed)
    visual = whole.visual
    visual.transformer.resblocks = visual.transformer.resblocks[:-2]
    mean, std = whole.mean.flatten().tolist(), whole.std.flatten().tolist()
    return Encoder(visual, name="scene-clip-shallow", pretrained=whole.pretrained, mean=mean, std=std)
