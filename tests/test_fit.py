"""The fit: its gradient, what it recovers, what it refuses, and the scores that follow from it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad, linprog
from scipy.special import expit, softmax
from scipy.stats import norm

from mlclipsim import fit
from mlclipsim.artifacts import ArtifactError, read_json, read_table, write_table

WEIGHTS, TAU = np.array([0.05, 0.1, 0.2, 0.4, 0.25]), 0.02


@pytest.fixture(scope="module")
def planted():
    """5,000 pairs whose labels are exactly the model's probabilities."""
    rng = np.random.default_rng(3)
    deltas = rng.normal(size=(5000, 5)) * np.linspace(0.01, 0.1, 5)
    return deltas, expit(deltas @ WEIGHTS / TAU)


def test_gradient_is_the_slope_of_the_objective(planted):
    deltas, labels = planted[0][:200], planted[1][:200]
    rng = np.random.default_rng(0)
    mass = rng.dirichlet(np.ones(200))
    for _ in range(3):
        at = np.append(rng.normal(size=5), np.log(0.03))

        def value(x):
            return fit.objective(x, deltas, labels, mass, 0.01)[0]

        def slope(x):
            return fit.objective(x, deltas, labels, mass, 0.01)[1]

        assert check_grad(value, slope, at) < 1e-5


@pytest.mark.parametrize("kind", ["thurstone", "hinge"])
def test_gradient_of_other_losses(planted, kind):
    deltas, labels = planted[0][:200], planted[1][:200]
    mass, at = np.full(200, 1 / 200), np.append(np.random.default_rng(0).normal(size=5), np.log(0.03))

    def value(x):
        return fit.objective(x, deltas, labels, mass, 0.01, kind)[0]

    def slope(x):
        return fit.objective(x, deltas, labels, mass, 0.01, kind)[1]

    assert check_grad(value, slope, at) < 1e-5


def test_thurstone_recovers_what_gaussian_noise_made(planted):
    found = fit.fit_weights(planted[0], norm.cdf(planted[0] @ WEIGHTS / TAU), 0.0, kind="thurstone")
    np.testing.assert_allclose(found.weights, WEIGHTS, atol=2e-3)
    assert found.tau == pytest.approx(TAU, rel=0.01)


def test_hinge_is_the_linear_programs_optimum(planted):
    """In ``v = w / tau`` the hinge is a linear program: least slacks of ``v d >= 1`` and ``-v d >= 1``."""
    deltas, labels = planted[0][:300] / 0.05, planted[1][:300]
    eye, nothing = np.eye(300), np.zeros((300, 300))
    program = linprog(
        np.concatenate([np.zeros(5), labels / 300, (1 - labels) / 300]),
        A_ub=np.block([[-deltas, -eye, nothing], [deltas, nothing, -eye]]),
        b_ub=-np.ones(600),
    )
    assert fit.fit_weights(deltas, labels, 0.0, kind="hinge").loss == pytest.approx(program.fun, rel=0.01)


def test_recovers_planted_weights_and_temperature(planted):
    found = fit.fit_weights(*planted, 0.0)
    np.testing.assert_allclose(found.weights, WEIGHTS, atol=2e-3)
    assert found.tau == pytest.approx(TAU, rel=0.01)
    # The least cross-entropy there is: the entropy of the labels themselves.
    p = planted[1]
    entropy = -np.mean(p * np.log(p) + (1 - p) * np.log1p(-p))
    assert found.loss == pytest.approx(entropy, abs=1e-6)


def test_recovers_planted_weights_from_binary_votes(planted):
    votes = (np.random.default_rng(1).random(5000) < planted[1]).astype(float)
    found = fit.fit_weights(planted[0], votes, 1e-5)
    # Shares, because the weight of a layer that hardly spreads is hardly determined.
    expected = fit.shares(WEIGHTS, planted[0])
    np.testing.assert_allclose(fit.shares(found.weights, planted[0]), expected, atol=0.03)


def test_a_harmful_layer_gets_no_weight(planted):
    noise = np.random.default_rng(5).normal(size=5000)
    deltas = np.column_stack([planted[0], -planted[0] @ WEIGHTS + 0.05 * noise])
    found = fit.fit_weights(deltas, planted[1], 1e-6)
    assert found.weights[-1] < 0.01


def test_swapping_a_and_b_changes_nothing(planted):
    deltas, labels = planted
    swapped = fit.fit_weights(-deltas, 1 - labels, 1e-3)
    np.testing.assert_allclose(swapped.weights, fit.fit_weights(deltas, labels, 1e-3).weights, atol=1e-4)


def test_penalty_pulls_towards_equal_weights(planted):
    spread = [np.ptp(fit.fit_weights(*planted, penalty).weights) for penalty in (0.0, 0.01, 1.0)]
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 0.2


def test_counts_are_repetitions(planted):
    deltas, labels = planted[0][:300], planted[1][:300]
    counts = np.random.default_rng(2).integers(0, 4, 300)
    by_count = fit.fit_weights(deltas, labels, 1e-3, counts=counts)
    repeated = fit.fit_weights(np.repeat(deltas, counts, axis=0), np.repeat(labels, counts), 1e-3)
    np.testing.assert_allclose(by_count.weights, repeated.weights, atol=1e-4)


def test_labels_without_signal_give_no_warning_and_finite_weights(planted):
    found = fit.fit_weights(planted[0], np.full(5000, 0.5), 1e-4)
    assert np.isfinite(found.theta).all()
    assert found.loss == pytest.approx(np.log(2), abs=1e-3)


def test_penalty_is_chosen_on_validation(planted):
    train, validation = [(planted[0][s], planted[1][s]) for s in (slice(0, 4000), slice(4000, None))]
    best, losses = fit.choose_penalty(train, validation, [1.0, 0.0, 0.1])
    assert best.penalty == 0.0 == min(losses, key=losses.get)


def test_shares_weigh_by_spread():
    deltas = np.array([[1.0, 10.0], [-1.0, -10.0]])
    np.testing.assert_allclose(fit.shares(np.array([0.5, 0.5]), deltas), [1 / 11, 10 / 11])
    # counted twice: the same as repeated
    counts = np.array([2, 1])
    np.testing.assert_allclose(
        fit.shares(np.array([0.5, 0.5]), deltas, counts),
        fit.shares(np.array([0.5, 0.5]), np.repeat(deltas, counts, axis=0)),
    )


@pytest.mark.parametrize(
    ("deltas", "labels", "said"),
    [
        (np.zeros((3, 2)), np.zeros(4), "expected deltas"),
        (np.zeros((0, 2)), np.zeros(0), "at least one labelled pair"),
        (np.full((2, 2), np.nan), np.zeros(2), "finite"),
    ],
)
def test_bad_input_is_refused(deltas, labels, said):
    with pytest.raises(ValueError, match=said):
        fit.fit_weights(deltas, labels, 0.0)


def test_unknown_loss_is_refused(planted):
    with pytest.raises(ValueError, match="'huber' is unknown, expected one of bradley_terry"):
        fit.fit_weights(*planted, 0.0, kind="huber")


def test_step_writes_shares_with_intervals(invented_pcmp, invented_weights):
    weights = read_json(invented_weights)
    (fold,) = weights["folds"]
    assert weights["encoder"] == "scene-clip"
    assert weights["layers"] == [f"layer_{n:02d}" for n in range(1, 7)] + ["global"]
    np.testing.assert_allclose(softmax(fold["theta"]), fold["weights"], atol=1e-12)
    assert sum(fold["shares"]) == pytest.approx(1)
    low, high = np.transpose(fold["shares_ci"])
    assert (low <= high).all()
    assert ((low - 0.01 <= fold["shares"]) & (fold["shares"] <= high + 0.01)).all()
    assert fold["boundary"] is False
    assert fold["n_references"] == 50
    assert fold["val_loss"] == min(loss for _, loss in fold["val_loss_by_penalty"])
    np.testing.assert_allclose(fold["weights"], [0.02, 0.03, 0.05, 0.30, 0.40, 0.10, 0.10], atol=0.05)


def test_step_gives_the_same_bytes_twice_and_flags_a_boundary(invented_pcmp, tmp_path):
    similarities = invented_pcmp.tables.similarities.copy()
    noise = np.random.default_rng(0)
    for name in fit.layer_names(similarities)[:-1]:  # only `global` knows anything
        similarities[name] = 0.5 + 1e-6 * noise.random(len(similarities))
    write_table(tmp_path / "similarities.parquet", similarities, "similarities")
    inputs = invented_pcmp.paths | {"similarities": tmp_path / "similarities.parquet"}
    for name in ("a.json", "b.json"):
        spec = {"seed": 1, "fit": {"penalties": [1e-4], "bootstrap": 3}}
        fit.learn(spec, inputs, {"weights": tmp_path / name})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json")["folds"][0]["boundary"] is True


def test_step_says_what_is_missing(invented_pcmp, tmp_path):
    spec = {"seed": 1, "fit": {"penalties": [1e-3], "bootstrap": 2}}
    pairs = invented_pcmp.tables.pairs
    write_table(tmp_path / "pairs.parquet", pairs[pairs["role"] != "pcmp_val"], "pairs")
    inputs = invented_pcmp.paths | {"pairs": tmp_path / "pairs.parquet"}
    with pytest.raises(ArtifactError, match="pcmp_val pairs with labels"):
        fit.learn(spec, inputs, {"weights": tmp_path / "weights.json"})
    write_table(tmp_path / "few.parquet", invented_pcmp.tables.similarities.iloc[5:], "similarities")
    inputs = invented_pcmp.paths | {"similarities": tmp_path / "few.parquet"}
    with pytest.raises(ArtifactError, match="similarities of every paired image"):
        fit.learn(spec, inputs, {"weights": tmp_path / "weights.json"})


def test_scores_are_the_weighted_similarities(invented_pcmp, invented_weights, tmp_path):
    inputs = invented_pcmp.paths | {
        "weights": invented_weights,
        "untrained": invented_pcmp.paths["similarities"],
    }
    fit.score({"roles": ["pcmp_test"]}, inputs, {"scores": tmp_path / "scores.parquet"})
    scores = read_table(tmp_path / "scores.parquet", "scores")
    test_images = invented_pcmp.tables.images.query("role == 'pcmp_test'")["image_id"]
    assert set(scores["image_id"]) == set(test_images)
    image = test_images.iloc[7]
    row = (
        invented_pcmp.tables.similarities.set_index("image_id").loc[image].drop("reference_id").astype(float)
    )
    mine = scores[scores["image_id"] == image].set_index("metric")["score"]
    weights = np.array(read_json(invented_weights)["folds"][0]["weights"])
    assert mine["ml_clipsim"] == pytest.approx(row.to_numpy() @ weights)
    assert mine["ml_clipsim_uniform"] == mine["untrained"] == pytest.approx(row.mean())
    assert mine["clip_global"] == row["global"]
