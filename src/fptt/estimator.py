"""A classifier of sequences with the conventions of scikit-learn."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fptt.errors import InputError
from fptt.nets import CELLS, Network, cell_layers, top_layer
from fptt.program import build
from fptt.rules import FPTT, SGD, Optimizer, Rule
from fptt.trainer import Trainer
from fptt.training.batches import as_array, check_lengths

Array = NDArray[Any]


class SequenceClassifier:
    """Classifies sequences with one recurrent layer and a linear readout.

    Follows scikit-learn: parameters of the constructor are stored as they are, `fit` starts anew,
    `partial_fit` goes on (one pass over what it gets, the way a device learns), and learnt
    attributes end with an underscore. Works in pipelines and searches; scikit-learn itself is not
    needed.

    Args:
        hidden: cells of the recurrent layer.
        cell: "lstm", "gru", "rnn", "elstm", "lru", "lif", "alif" or "ltc", as for `fptt train`.
        rule: how it learns; FPTT in at most 4 parts by default.
        optimizer: SGD(lr=0.1, momentum=0.9) by default.
        epochs: passes of `fit`.
        batch: sequences per batch.
        clip: largest global norm of the update direction, or None.
        seed: of weights and order.

    Attributes:
        classes_: the labels, sorted.
        n_features_in_: features per step.
        trainer_: the `Trainer` underneath.

    Example:
        >>> import numpy as np
        >>> x = np.repeat(np.eye(2, dtype=np.float32), 8, axis=0)[:, None, :].repeat(5, axis=1)
        >>> y = np.repeat(["left", "right"], 8)
        >>> classifier = SequenceClassifier(hidden=8, epochs=20).fit(x, y)
        >>> print(classifier.predict(x[:1])[0], classifier.score(x, y))
        left 1.0
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        hidden: int = 128,
        *,
        cell: str = "lstm",
        rule: Rule | None = None,
        optimizer: Optimizer | None = None,
        epochs: int = 10,
        batch: int = 32,
        clip: float | None = 1.0,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.cell = cell
        self.rule = rule
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch = batch
        self.clip = clip
        self.seed = seed

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator (only ever called by it)."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, three_d_array=True),
        )

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's parameters."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> SequenceClassifier:
        """Changes parameters of the constructor; learnt attributes stay until the next `fit`."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise InputError(
                    f"SequenceClassifier has no parameter {name!r}; it has {', '.join(known)}"
                )
            setattr(self, name, value)
        return self

    def fit(
        self, X: ArrayLike, y: ArrayLike, lengths: ArrayLike | None = None
    ) -> SequenceClassifier:
        """Learns from the beginning.

        Args:
            X: float [n, steps, features].
            y: labels [n], numbers or strings.
            lengths: steps of every sequence, where they differ.

        Raises:
            InputError: data that do not fit.
        """
        x, labels = as_array("X", X), as_array("y", y)
        classes = np.unique(labels)
        codes, all_lengths = self._codes(labels, len(x), classes), self._lengths(x, lengths)
        self._start(x, classes)
        self.trainer_.fit((x, codes, all_lengths), self.epochs)
        return self

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> SequenceClassifier:
        """Goes on learning: one pass over these sequences, in their order.

        Args:
            X, y, lengths: as in `fit`; no longer than the sequences of the first call.
            classes: all labels that will ever come; needed in the first call only.
        """
        x, labels = as_array("X", X), as_array("y", y)
        begun = hasattr(self, "trainer_")
        if classes is None and not begun:
            raise InputError(
                "partial_fit: give classes=[...] in the first call, all labels that will ever come"
            )
        known = self.classes_ if classes is None else np.unique(np.asarray(classes))
        if begun and not np.array_equal(known, self.classes_):
            raise InputError(
                f"partial_fit: classes are {known.tolist()}, but in the first call they were "
                f"{self.classes_.tolist()}; call fit to begin anew"
            )
        codes, all_lengths = self._codes(labels, len(x), known), self._lengths(x, lengths)
        if not begun:
            self._start(x, known)
        for low in range(0, len(x), self.batch):
            rows = slice(low, low + self.batch)
            self.trainer_.train_batch(
                x[rows], codes[rows], None if all_lengths is None else all_lengths[rows]
            )
        return self

    def _logits(self, X: ArrayLike, lengths: ArrayLike | None) -> Array:
        if not hasattr(self, "trainer_"):
            raise InputError("this SequenceClassifier has not learnt yet; call fit first")
        return self.trainer_.predict(X, lengths)

    def decision_function(self, X: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """Logits [n, classes] in the order of `classes_`.

        With two classes [n], as scikit-learn has it: the logit of the second less that of the
        first.
        """
        logits = self._logits(X, lengths)
        return np.asarray(logits[:, 1] - logits[:, 0]) if logits.shape[1] == 2 else logits

    def predict_proba(self, X: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """Probabilities [n, classes], in the order of `classes_`."""
        logits = self._logits(X, lengths).astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def predict(self, X: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """The most probable label of every sequence [n]."""
        best = self._logits(X, lengths).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def score(
        self,
        X: ArrayLike,
        y: ArrayLike,
        lengths: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """The (weighted) fraction of sequences that are classified rightly."""
        found, labels = self.predict(X, lengths), as_array("y", y)
        if labels.shape != found.shape:
            raise InputError(
                f"y has shape {list(labels.shape)}; X has {len(found)} sequences, so give "
                f"[{len(found)}]"
            )
        weights = None if sample_weight is None else np.asarray(sample_weight, np.float64)
        return float(np.average(found == labels, weights=weights))

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"SequenceClassifier({options})"

    def _start(self, x: Array, classes: Array) -> None:
        if x.ndim != 3:
            raise InputError(f"X has shape {list(x.shape)}; give [n, steps, features]")
        if len(classes) < 2:
            raise InputError(f"y has the one class {classes.tolist()}; give at least two")
        if self.cell not in CELLS:
            raise InputError(f"cell is {self.cell!r}; choose one of {', '.join(CELLS)}")
        self.classes_ = classes
        self.n_features_in_ = x.shape[2]
        layers = cell_layers(self.cell, x.shape[2], self.hidden)
        width = layers[0].width(x.shape[2])
        net = Network([*layers, top_layer(layers[0], width, len(classes))])
        rule = self.rule or FPTT(parts=min(4, x.shape[1]))
        program = build(
            net,
            rule,
            self.optimizer or SGD(lr=0.1, momentum=0.9),
            steps=x.shape[1],
            batch=self.batch,
            clip=self.clip,
        )
        self.trainer_ = Trainer(program, seed=self.seed)

    def _codes(self, labels: Array, n: int, classes: Array) -> Array:
        if labels.shape != (n,):
            raise InputError(
                f"y has shape {list(labels.shape)}; X has {n} sequences, so give [{n}]"
            )
        number = {label: code for code, label in enumerate(classes.tolist())}
        for label in labels.tolist():
            if label not in number:
                raise InputError(
                    f"y contains the label {label!r}; the classes are {classes.tolist()}"
                )
        return np.array([number[label] for label in labels.tolist()], np.int32)

    def _lengths(self, x: Array, lengths: ArrayLike | None) -> Array | None:
        return None if lengths is None else check_lengths(lengths, len(x), x.shape[1])
