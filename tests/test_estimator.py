"""SequenceClassifier against scikit-learn itself."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import assert_bits_equal
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils import get_tags

import fptt
from fptt import SequenceClassifier
from fptt.errors import InputError
from fptt.nets import CELLS

NAMES = np.array(["down", "left", "up"])


def full(text):
    return "^" + re.escape(text) + r"\Z"


def sequences(n=60, steps=6, seed=0):
    """Noise in which the class shows as a shift of one of three features."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(0, 0.3, (n, steps, 3)).astype(np.float32)
    x[np.arange(n), :, y] += 1
    return x, NAMES[y]


def classifier(**options):
    return SequenceClassifier(**{"hidden": 8, "epochs": 15, "batch": 8, **options})


def test_it_learns_string_labels():
    x, y = sequences()
    model = classifier()
    assert model.fit(x, y) is model
    assert model.classes_.tolist() == NAMES.tolist()
    assert model.n_features_in_ == 3
    x_test, y_test = sequences(seed=1)
    found = model.predict(x_test)
    assert found.shape == (60,) and found.dtype.kind == "U"
    assert model.score(x_test, y_test) == (found == y_test).mean() > 0.95


@pytest.mark.parametrize(
    "labels", [[10, -3, 7], [0.5, 2.5, -1.0], [True, False, True], ["b", "a", "c"]], ids=str
)
def test_labels_of_every_kind_come_back(labels):
    x, y = sequences()
    given = np.array(labels)[np.searchsorted(NAMES, y)]
    model = classifier().fit(x, given)
    assert model.classes_.tolist() == sorted(set(labels))
    assert (model.predict(x) == given).mean() > 0.95


def test_probabilities():
    x, y = sequences()
    model = classifier().fit(x, y)
    probabilities = model.predict_proba(x)
    logits = model.decision_function(x)
    assert probabilities.shape == logits.shape == (60, 3)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(60), abs=1e-12)
    assert np.array_equal(model.classes_[probabilities.argmax(1)], model.predict(x))
    ratios = np.log(probabilities[:, 0] / probabilities[:, 2])
    assert ratios == pytest.approx(logits[:, 0] - logits[:, 2], abs=1e-4)


def test_probabilities_of_extreme_logits():
    x, y = sequences()
    model = classifier().fit(x, y)
    values = model.trainer_.parameters()
    values["1.bias"] = np.array([1e30, 0, -1e30])
    model.trainer_.load_parameters(values)
    assert model.predict_proba(x[:2]).tolist() == [[1, 0, 0]] * 2


def test_unequal_lengths():
    x, y = sequences()
    lengths = np.random.default_rng(1).integers(1, 7, 60)
    padded = x.copy()
    padded[np.arange(6) >= lengths[:, None]] = 100
    model = classifier().fit(padded, y, lengths)
    assert model.score(padded, y, lengths) > 0.95
    alone = model.predict_proba(x[4:5, : lengths[4]])
    assert model.predict_proba(padded, lengths)[4] == pytest.approx(alone[0], abs=1e-6)


# --- conventions ----------


def test_parameters():
    rule = fptt.FPTT(parts=2)
    given = dict(
        hidden=5,
        cell="gru",
        rule=rule,
        optimizer=fptt.Adam(),
        epochs=2,
        batch=7,
        clip=None,
        seed=3,
    )
    model = SequenceClassifier(**given)
    assert model.get_params() == model.get_params(deep=False) == given
    assert set(vars(model)) == set(given)  # nothing is computed before fit
    assert model.set_params(hidden=9, seed=4) is model
    assert model.get_params() == {**given, "hidden": 9, "seed": 4}
    x, y = sequences(24)
    model.fit(x, y)
    program = model.trainer_.program
    assert str(program.net) == "GRU(3, 9) - Linear(9, 3)"
    assert (program.rule, program.optimizer) == (rule, fptt.Adam())
    assert (program.batch, program.clip, model.trainer_.seed) == (7, None, 4)


def test_defaults():
    x, y = sequences(12, steps=3)
    program = SequenceClassifier(epochs=1).fit(x, y).trainer_.program
    assert (program.rule, program.optimizer) == (fptt.FPTT(parts=3), fptt.SGD(0.1, 0.9))
    assert (program.batch, program.clip) == (32, 1.0)


def test_a_parameter_that_does_not_exist():
    model = classifier()
    message = (
        "SequenceClassifier has no parameter 'hiden'; it has hidden, cell, rule, optimizer, "
        "epochs, batch, clip, seed"
    )
    with pytest.raises(InputError, match=full(message)):
        model.set_params(hiden=3)


def test_clone():
    model = classifier(rule=fptt.TBPTT(parts=2), clip=None)
    x, y = sequences(24)
    model.fit(x, y)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "trainer_") and not hasattr(copy, "classes_")
    copy.fit(x, y)
    assert_bits_equal(copy.trainer_.parameters(), model.trainer_.parameters(), "parameters")


def test_scikit_learn_sees_a_classifier():
    assert is_classifier(classifier())
    tags = get_tags(classifier())
    assert (tags.estimator_type, tags.target_tags.required) == ("classifier", True)
    assert (tags.input_tags.three_d_array, tags.input_tags.two_d_array) == (True, False)


def test_cross_validation_is_stratified_and_works():
    x, y = sequences()
    order = np.argsort(y)  # without stratification, folds would lack whole classes
    scores = cross_val_score(classifier(), x[order], y[order], cv=3)
    assert scores.shape == (3,) and scores.min() > 0.9
    accuracy = cross_val_score(classifier(), x[order], y[order], cv=3, scoring="accuracy")
    assert np.array_equal(accuracy, scores)


def test_grid_search():
    x, y = sequences()
    search = GridSearchCV(
        classifier(epochs=6), {"hidden": [1, 8], "cell": ["lstm", "gru"]}, cv=2, refit=True
    ).fit(x, y)
    assert search.best_params_["hidden"] == 8
    means = search.cv_results_["mean_test_score"]
    assert len(means) == 4 and np.ptp(means) > 0
    assert search.best_estimator_.hidden == 8
    assert search.predict(x).shape == (60,)
    assert search.predict_proba(x).shape == (60, 3)


def test_the_package_does_not_need_scikit_learn():
    code = (
        "import sys; import fptt.estimator; "
        "bad = [m for m in ('sklearn', 'torch', 'pandas') if m in sys.modules]; "
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    source = Path(fptt.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# --- fit and partial_fit ----------


def test_fit_starts_anew():
    x, y = sequences(24)
    once, twice = classifier(epochs=3).fit(x, y), classifier(epochs=3).fit(x, y)
    twice.fit(x, y)
    assert_bits_equal(twice.trainer_.parameters(), once.trainer_.parameters(), "parameters")
    twice.fit(x[:, :4, :2], y == "up")
    assert twice.classes_.tolist() == [False, True]
    assert twice.n_features_in_ == 2


def test_fit_is_the_trainer_s_fit():
    x, y = sequences(24)
    model = classifier(epochs=3).fit(x, y)
    trainer = fptt.Trainer(model.trainer_.program, seed=0)
    trainer.fit((x, np.searchsorted(NAMES, y)), 3)
    assert_bits_equal(model.trainer_.parameters(), trainer.parameters(), "parameters")


def test_partial_fit_streams():
    """One pass in the given order, whatever the pieces, as long as they are whole batches."""
    x, y = sequences()
    whole = classifier().partial_fit(x, y, classes=NAMES[::-1])
    pieces = classifier()
    pieces.partial_fit(x[:16], y[:16], classes=NAMES)
    for low in range(16, 60, 8):
        assert pieces.partial_fit(x[low : low + 8], y[low : low + 8]) is pieces
    assert_bits_equal(pieces.trainer_.parameters(), whole.trainer_.parameters(), "parameters")
    by_hand = fptt.Trainer(whole.trainer_.program, seed=0)
    codes = np.searchsorted(NAMES, y)
    for low in range(0, 60, 8):
        by_hand.train_batch(x[low : low + 8], codes[low : low + 8])
    assert_bits_equal(by_hand.parameters(), whole.trainer_.parameters(), "parameters")


def test_partial_fit_learns_from_single_sequences():
    x, y = sequences()
    model = classifier(optimizer=fptt.SGD(0.05))
    for _ in range(6):
        for n in range(60):
            model.partial_fit(x[n : n + 1], y[n : n + 1], classes=NAMES)
    assert model.score(*sequences(seed=1)) > 0.9


def test_partial_fit_goes_on_after_fit():
    x, y = sequences()
    model = classifier(epochs=1).fit(x, y)
    before = model.trainer_.parameters()
    model.partial_fit(x, y)
    assert not np.array_equal(model.trainer_.parameters()["1.bias"], before["1.bias"])
    twin = classifier(epochs=1).fit(x, y).partial_fit(x, y)
    assert_bits_equal(model.trainer_.parameters(), twin.trainer_.parameters(), "parameters")


def test_partial_fit_of_unequal_and_shorter_sequences():
    x, y = sequences(24)
    lengths = np.arange(24) % 6 + 1
    one = classifier().partial_fit(x, y, NAMES, lengths=lengths)
    two = classifier().partial_fit(x, y, NAMES, lengths=lengths)
    two.partial_fit(x[:, :2], y)
    other = x.copy()
    other[np.arange(6) >= lengths[:, None]] = 50
    three = classifier().partial_fit(other, y, NAMES, lengths=lengths)
    parameters = one.trainer_.parameters()
    assert_bits_equal(three.trainer_.parameters(), parameters, "parameters")
    assert not np.array_equal(two.trainer_.parameters()["1.bias"], parameters["1.bias"])


# --- messages ----------

X, Y = sequences(9)
FITS = {
    "axes": (X[:, 0], Y, None, "X has shape [9, 3]; give [n, steps, features]"),
    "labels": (X, Y[:4], None, "y has shape [4]; X has 9 sequences, so give [9]"),
    "columns": (X, Y[:, None], None, "y has shape [9, 1]; X has 9 sequences, so give [9]"),
    "one class": (X, np.full(9, "up"), None, "y has the one class ['up']; give at least two"),
    "nan": (
        np.where(np.arange(9 * 18).reshape(9, 6, 3) == 25, np.nan, X),
        Y,
        None,
        "x contains NaN, Inf or more than float32 holds, first at index [",
    ),
    "ragged": (
        [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]],
        Y[:2],
        None,
        "X has rows of unequal length; fill them up to one length and give lengths=[...]",
    ),
    "lengths": (
        X,
        Y,
        [7] * 9,
        "lengths contains 7; x has 6 steps, so lengths run from 1 to 6",
    ),
}


@pytest.mark.parametrize("name", FITS)
def test_what_cannot_be_fitted(name):
    x, y, lengths, message = FITS[name]
    expected = "^" + re.escape(message) if name == "nan" else full(message)
    with pytest.raises(InputError, match=expected):
        classifier().fit(x, y, lengths)


@pytest.mark.parametrize("name", sorted(set(FITS) - {"nan"}))
def test_a_failed_fit_keeps_what_was_learnt(name):
    model = classifier(epochs=2).fit(X, Y)
    before = model.predict_proba(X)
    x, y, lengths, message = FITS[name]
    with pytest.raises(InputError, match=full(message)):
        model.fit(x, y, lengths)
    assert np.array_equal(model.predict_proba(X), before)


def test_a_cell_that_does_not_exist():
    with pytest.raises(InputError, match=full(f"cell is 'lsmt'; choose one of {', '.join(CELLS)}")):
        classifier(cell="lsmt").fit(X, Y)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "score"])
def test_nothing_learnt_yet(method):
    arguments = (X, Y) if method == "score" else (X,)
    message = "this SequenceClassifier has not learnt yet; call fit first"
    with pytest.raises(InputError, match=full(message)):
        getattr(classifier(), method)(*arguments)


def test_labels_that_are_unknown():
    model = classifier()
    message = "partial_fit: give classes=[...] in the first call, all labels that will ever come"
    with pytest.raises(InputError, match=full(message)):
        model.partial_fit(X, Y)
    message = "y contains the label 'left'; the classes are ['down', 'up']"
    with pytest.raises(InputError, match=full(message)):
        model.partial_fit(X, Y, classes=["up", "down"])
    model.partial_fit(X, Y, classes=NAMES)  # the failed calls have left nothing behind
    message = "y contains the label 'right'; the classes are ['down', 'left', 'up']"
    with pytest.raises(InputError, match=full(message)):
        model.partial_fit(X, np.where(Y == "left", "right", Y))
    message = "y contains the label 2; the classes are ['down', 'left', 'up']"
    with pytest.raises(InputError, match=full(message)):
        model.partial_fit(X, np.full(9, 2))
    message = (
        "partial_fit: classes are ['down', 'up'], but in the first call they were ['down', 'left', "
        "'up']; call fit to begin anew"
    )
    with pytest.raises(InputError, match=full(message)):
        model.partial_fit(X, Y, classes=["up", "down"])


def test_other_features_and_longer_sequences():
    model = classifier(epochs=1).fit(X, Y)
    message = "x has shape [9, 6, 2]; this network takes [batch, steps, 3]"
    for method in (model.predict, model.predict_proba):
        with pytest.raises(InputError, match=full(message)):
            method(X[:, :, :2])
    assert model.predict(np.concatenate([X, X], axis=1)).shape == (9,)
    message = (
        "x has 8 sequences of 12 steps; the program was built for at most 8 of 6: build with "
        "batch=8, steps=12, or give smaller batches"
    )
    with pytest.raises(InputError, match=full(message)):
        model.partial_fit(np.concatenate([X, X], axis=1), Y)


def test_two_classes_have_one_decision_value():
    """scikit-learn's scorers of binary problems ask for it."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 5, 2)).astype(np.float32)
    y = (x[:, -1, 0] > 0).astype(int)
    classifier = SequenceClassifier(hidden=4, epochs=3).fit(x, y)
    values = classifier.decision_function(x)
    assert values.shape == (60,)
    assert np.array_equal(values > 0, classifier.predict(x) == 1)
    scores = cross_val_score(SequenceClassifier(hidden=4, epochs=3), x, y, scoring="roc_auc")
    assert np.isfinite(scores).all()


def test_score_weighs_and_checks_its_labels():
    x, y = np.zeros((4, 3, 1), np.float32), np.array(["a", "b", "a", "a"])
    classifier = SequenceClassifier(hidden=2, epochs=1).fit(x, y)
    (found,) = set(classifier.predict(x))
    weights = [1, 0, 2, 3]
    expected = np.average(y == found, weights=weights)
    assert classifier.score(x, y, sample_weight=weights) == pytest.approx(expected)
    with pytest.raises(
        fptt.InputError, match=r"^y has shape \[3\]; X has 4 sequences, so give \[4\]$"
    ):
        classifier.score(x, y[:3])
