"""Weights of channels on an invented PCMP: equal ones are the uniform metric, planted ones are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from mlclipsim import fit
from mlclipsim.artifacts import ArtifactError, read_table, write_table
from mlclipsim.benchmarks import channel_weights
from mlclipsim.benchmarks.channel_weights import Products
from mlclipsim.benchmarks.refit import Study


@pytest.fixture(scope="module")
def study(invented_pcmp, invented_weights):
    spec = {
        "seed": invented_pcmp.seed,
        "folds": invented_pcmp.folds,
        "benchmark": {"roles": ["pcmp_test"], "resamples": 50},
    }
    return Study.read(spec, invented_pcmp.paths | {"weights": invented_weights})


@pytest.fixture(scope="module")
def products(study, invented_pcmp):
    return Products.read(invented_pcmp.paths["products"], study.pairs, study.weights["layers"])


@pytest.fixture(scope="module")
def deltas(study, invented_pcmp):
    return fit.differences(study.pairs, invented_pcmp.tables.similarities)


def test_equal_weights_are_the_uniform_metric(study, products, deltas):
    n = deltas.shape[1]
    found = products.differences(np.full(len(products.layer), 1 / n), study.test)
    np.testing.assert_allclose(found, deltas[study.test].mean(axis=1), atol=1e-3)  # halves
    by_layer = np.array(study.fitted[0])
    found = products.differences(by_layer[products.layer], study.test)
    np.testing.assert_allclose(found, deltas[study.test] @ by_layer, atol=1e-3)


def test_the_gradient_leads_to_the_minimum(study, products, monkeypatch):
    """No small step from the fitted weights, inside the bounds, has a lower penalised loss."""
    monkeypatch.setattr(channel_weights, "PENALTIES", (0.1,))
    train, _ = study.fitting(np.isfinite(study.labels["seen"][:, 0]))
    label = study.labels["seen"][train, 0]
    fits = [
        channel_weights._fit(products, train, label, begin)[0.1]
        for begin in (np.full(7, 1.0), np.linspace(0.1, 30, 7))
    ]
    np.testing.assert_allclose(fits[0], fits[1], rtol=0.02, atol=0.02 * fits[0].max())  # convex: one minimum
    assert (fits[0] >= 0).all()


def test_planted_channels_are_found(study, products):
    """Labels by two channels, which their layers' sums hide."""
    planted = np.zeros(len(products.layer))
    planted[[13, 18]] = 30, 60  # one each of the fourth and the fifth layer
    label = expit(products.differences(planted, np.arange(len(study.pairs))))[:, None]
    (weights,) = channel_weights.choose(replace(study, labels={"seen": label}), products)
    np.testing.assert_allclose(weights, planted, atol=2)


def test_a_large_penalty_gives_weights_of_layers(study, products, monkeypatch):
    monkeypatch.setattr(channel_weights, "PENALTIES", (1e6,))
    (weights,) = channel_weights.choose(study, products)
    by_layer = weights.reshape(-1, 4)
    np.testing.assert_allclose(by_layer, by_layer.mean(axis=1, keepdims=True) * np.ones(4), rtol=1e-2)


def test_products_of_other_layers_or_images_are_refused(study, invented_pcmp, tmp_path):
    table = read_table(invented_pcmp.paths["products"], "products")
    for name, other in (("layers", table.drop(columns="layer_02")), ("images", table.iloc[1:])):
        write_table(tmp_path / name, other, "products")
        with pytest.raises(ArtifactError, match="expected products of layer_01"):
            Products.read(tmp_path / name, study.pairs, study.weights["layers"])
