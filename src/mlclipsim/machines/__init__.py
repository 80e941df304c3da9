"""Pretrained downstream models: they vote, and they judge. So far classifiers."""

from mlclipsim.machines.classifier import Classifier, load

__all__ = ["Classifier", "load"]
