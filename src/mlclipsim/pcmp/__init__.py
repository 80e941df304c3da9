"""PCMP: pairs of distorted images of one reference, matched in PSNR, labelled by votes of networks."""
