"""PCMP, pairs of distorted images of one reference, matched in PSNR and labelled by the votes of pretrained models."""
