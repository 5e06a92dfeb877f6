"""Parameter updates: optimizers, alone and inside the FPTT wrapper, and gradient clipping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fptt.program.bfloat16 import round_at_random
from fptt.program.opset.products import bias_gradient, weight_gradient
from fptt.program.opspec import REGISTRY, Array, Work, WorkRule, op

#: tensor and first_row tell random numbers apart, where rounding is stochastic
_OPTIMIZER_ATTRS = "optimizer momentum beta1 beta2 epsilon tensor first_row"
_FPTT_ATTRS = f"{_OPTIMIZER_ATTRS} alpha beta mode directed"
#: optimizer -> (mul, add, trans) of one element, and scalar divisions of one tensor
_OPTIMIZER_WORK = {"sgd": (1, 1, 0, 0), "momentum": (2, 2, 0, 0), "adam": (8, 4, 1, 1)}


def _direction(theta: Array, g: Array, lam: Array, mean: Array, alpha: float, mode: str) -> Array:
    """Gradient of the loss plus R(t): g - w lambda + alpha (theta - mean)."""
    pull = lam if mode == "code" else 0.5 * lam
    return g - pull + alpha * (theta - mean)


def _step(
    theta: Array,
    d: Array,
    lr: Array,
    first: Array | None,
    second: Array | None,
    correction: Array | None,
    attrs: Mapping[str, Any],
) -> tuple[Array, Array | None, Array | None]:
    """One step of the optimizer: new theta and the new moments."""
    if attrs["optimizer"] == "sgd":
        return theta - lr * d, None, None
    assert first is not None
    if attrs["optimizer"] == "momentum":
        first = attrs["momentum"] * first + d
        return theta - lr * first, first, None
    assert second is not None
    assert correction is not None
    beta1, beta2 = attrs["beta1"], attrs["beta2"]
    first = beta1 * first + (1 - beta1) * d
    second = beta2 * second + (1 - beta2) * d * d
    rate = lr / correction[0]
    step = rate * first / (np.sqrt(second / correction[1]) + attrs["epsilon"])
    return theta - step, first, second


def _rounded(values: Array, which: int, noise: Array | None, attrs: Mapping[str, Any]) -> Array:
    """Values (0 theta, 1 lambda, 2 m) rounded to bfloat16 at random; without noise as they are."""
    if noise is None:
        return values
    key = (int(noise[0]), int(noise[1]), attrs["tensor"])
    return round_at_random(values, key, which, attrs["first_row"])


def _update_work(
    d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
) -> dict[str, Work]:
    mul, add, trans, scalar_mul = _OPTIMIZER_WORK[attrs["optimizer"]]
    if "factor" in given:
        mul += 1
    if "lam" in given:
        paper = attrs["mode"] == "paper"
        if not attrs["directed"]:
            mul, add = mul + 1 + paper, add + 3
        # lambda' = lambda - alpha (theta' - m);
        # m' = (1 - beta) m + beta theta' - beta/alpha lambda'
        mul, add = mul + 4 + paper, add + 4
    return {"EWO-SGD": Work(mul, add, trans) * d["size"] + Work(mul=scalar_mul)}


@op(
    "theta:* g:* lr:1 factor?:1 first?:* second?:* correction?:2 noise#int?:2 -> theta_out:* "
    "first_out?:* second_out?:*",
    main_class="EWO-SGD",
    attrs=_OPTIMIZER_ATTRS,
    in_place="theta=theta_out first=first_out second=second_out",
    work=_update_work,
    c_symbol="update",
)
def update(
    theta: Array,
    g: Array,
    lr: Array,
    factor: Array | None,
    first: Array | None,
    second: Array | None,
    correction: Array | None,
    noise: Array | None,
    **attrs: Any,
) -> tuple[Array, Array | None, Array | None]:
    """theta' = the optimizer's step along g (times the clipping factor).

    sgd: theta - lr g. momentum: v' = mu v + g, theta - lr v'. adam (Kingma & Ba, 2015):
    m' = b1 m + (1 - b1) g, v' = b2 v + (1 - b2) g^2, theta - lr (m'/q1) / (sqrt(v'/q2) + eps),
    with q = 1 - b^n kept in `correction`. With `noise` (seed and number of the update), theta' is
    rounded to bfloat16 up or down at random.
    """
    d = g if factor is None else g * factor
    theta_out, first, second = _step(theta, d, lr, first, second, correction, attrs)
    return _rounded(theta_out, 0, noise, attrs), first, second


@op(
    "theta:* g:* lam:* mean:* lr:1 factor?:1 first?:* second?:* correction?:2 noise#int?:2 -> "
    "theta_out:* lam_out:* mean_out:* first_out?:* second_out?:*",
    main_class="EWO-SGD",
    attrs=_FPTT_ATTRS,
    work=_update_work,
    in_place="theta=theta_out lam=lam_out mean=mean_out first=first_out second=second_out",
    c_symbol="fptt_update",
)
def fptt_update(
    theta: Array,
    g: Array,
    lam: Array,
    mean: Array,
    lr: Array,
    factor: Array | None,
    first: Array | None,
    second: Array | None,
    correction: Array | None,
    noise: Array | None,
    **attrs: Any,
) -> tuple[Array | None, ...]:
    """The update of FPTT, one pass over memory.

        d = g - lambda + alpha (theta - m)            (lambda/2 in mode "paper")
        theta' = optimizer(theta, d)
        lambda' = lambda - alpha (theta' - m)         (lambda/2 - ... in mode "paper")
        m' = (1 - beta) m + beta theta' - (beta/alpha) lambda'

    With `directed`, g is d already (clipping needs d of all tensors first). With `noise`, theta',
    lambda' and m' are rounded to bfloat16 up or down at random.
    """
    alpha, beta, mode = attrs["alpha"], attrs["beta"], attrs["mode"]
    d = g if attrs["directed"] else _direction(theta, g, lam, mean, alpha, mode)
    if factor is not None:
        d = d * factor
    theta_out, first, second = _step(theta, d, lr, first, second, correction, attrs)
    kept = lam if mode == "code" else 0.5 * lam
    lam_out = kept - alpha * (theta_out - mean)
    mean_out = (1 - beta) * mean + beta * theta_out - (beta / alpha) * lam_out
    return (
        _rounded(theta_out, 0, noise, attrs),
        _rounded(lam_out, 1, noise, attrs),
        _rounded(mean_out, 2, noise, attrs),
        first,
        second,
    )


#: operands of an update that follow the gradient, and its results, for a parameter of these sizes
_AFTER = "lr:1 factor?:1 first?:{0} second?:{0} correction?:2 noise#int?:2"
_MOMENTS = "first_out?:{0} second_out?:{0}"
_UPDATE_IN_PLACE = "theta=theta_out first=first_out second=second_out"
_FPTT_IN_PLACE = f"{_UPDATE_IN_PLACE} lam=lam_out mean=mean_out"


def _applied_work(product: WorkRule) -> WorkRule:
    """The work of a gradient that is applied as soon as a part of it is there."""

    def work(
        d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
    ) -> dict[str, Work]:
        size = d["o"] * d.get("i", 1)
        return product(d, {}, frozenset()) | _update_work({**d, "size": size}, attrs, given)

    return work


_weight_work = _applied_work(REGISTRY["weight_gradient"].work)
_bias_work = _applied_work(REGISTRY["bias_gradient"].work)


@op(
    f"theta:o,i dy:n,o x:n,i {_AFTER} -> theta_out:o,i {_MOMENTS} tile?:t,u".format("o,i"),
    main_class="EWO-SGD",
    attrs=_OPTIMIZER_ATTRS,
    in_place=_UPDATE_IN_PLACE,
    work=_weight_work,
    c_symbol="weight_update",
)
def weight_update(
    theta: Array, dy: Array, x: Array, *others: Array | None, **attrs: Any
) -> tuple[Array | None, ...]:
    """`update` along dy^T x, which is never in memory as a whole; `tile` holds a piece of it."""
    return (*update(theta, weight_gradient(dy, x, None), *others, **attrs), None)


@op(
    f"theta:o dy:n,o {_AFTER} -> theta_out:o {_MOMENTS}".format("o"),
    main_class="EWO-SGD",
    attrs=_OPTIMIZER_ATTRS,
    in_place=_UPDATE_IN_PLACE,
    work=_bias_work,
    c_symbol="bias_update",
)
def bias_update(
    theta: Array, dy: Array, *others: Array | None, **attrs: Any
) -> tuple[Array | None, ...]:
    """`update` along the sum of dy's rows."""
    return tuple(update(theta, bias_gradient(dy, None), *others, **attrs))


@op(
    f"theta:o,i dy:n,o x:n,i lam:o,i mean:o,i {_AFTER} -> theta_out:o,i lam_out:o,i mean_out:o,i "
    f"{_MOMENTS} tile?:t,u".format("o,i"),
    main_class="EWO-SGD",
    attrs=_FPTT_ATTRS,
    in_place=_FPTT_IN_PLACE,
    work=_weight_work,
    c_symbol="fptt_weight_update",
)
def fptt_weight_update(
    theta: Array, dy: Array, x: Array, *others: Array | None, **attrs: Any
) -> tuple[Array | None, ...]:
    """`fptt_update` along dy^T x, which is never in memory as a whole."""
    return (*fptt_update(theta, weight_gradient(dy, x, None), *others, **attrs), None)


@op(
    f"theta:o dy:n,o lam:o mean:o {_AFTER} -> theta_out:o lam_out:o mean_out:o {_MOMENTS}".format(
        "o"
    ),
    main_class="EWO-SGD",
    attrs=_FPTT_ATTRS,
    in_place=_FPTT_IN_PLACE,
    work=_bias_work,
    c_symbol="fptt_bias_update",
)
def fptt_bias_update(
    theta: Array, dy: Array, *others: Array | None, **attrs: Any
) -> tuple[Array | None, ...]:
    """`fptt_update` along the sum of dy's rows."""
    return tuple(fptt_update(theta, bias_gradient(dy, None), *others, **attrs))


@op(
    "theta:* g:* lam:* mean:* -> d:*",
    main_class="EWO-SGD",
    attrs="alpha mode",
    in_place="g=d",
    work=lambda d, attrs, given: {
        "EWO-SGD": Work(mul=1 + (attrs["mode"] == "paper"), add=3) * d["size"]
    },
    c_symbol="fptt_direction",
)
def fptt_direction(
    theta: Array, g: Array, lam: Array, mean: Array, *, alpha: float, mode: str
) -> Array:
    """d = g - lambda + alpha (theta - m): the first line of `fptt_update` alone."""
    return _direction(theta, g, lam, mean, alpha, mode)


@op(
    "d:* start?:1 -> total:1",
    main_class="EWO-SGD",
    in_place="start=total",
    work=lambda d, attrs, given: {
        "EWO-SGD": Work(mul=d["size"], add=d["size"] - ("start" not in given))
    },
    c_symbol="square_sum",
)
def square_sum(d: Array, start: Array | None) -> Array:
    """total = start + the sum of d^2."""
    total = (d * d).sum().reshape(1) if d.dtype != object else np.array([(d * d).sum()])
    return total if start is None else total + start


@op(
    "total:1 -> factor:1",
    main_class="EWO-SGD",
    attrs="clip",
    in_place="total=factor",
    work=lambda d, attrs, given: {"EWO-SGD": Work(1, 1, 1)},
    c_symbol="clip_factor",
)
def clip_factor(total: Array, *, clip: float) -> Array:
    """factor = min(1, clip / (sqrt(total) + 1e-6)), as PyTorch clips the global norm."""
    return np.minimum(clip / (np.sqrt(total) + 1e-6), 1)


@op(
    "correction:2 -> correction_out:2",
    main_class="EWO-SGD",
    attrs="beta1 beta2",
    in_place="correction=correction_out",
    work=lambda d, attrs, given: {"EWO-SGD": Work(2, 2, 0)},
    c_symbol="adam_correction",
)
def adam_correction(correction: Array, *, beta1: float, beta2: float) -> Array:
    """q' = b q + (1 - b) for both moments: q = 1 - b^n without a power and without cancellation."""
    q1, q2 = correction
    return np.array([beta1 * q1 + (1 - beta1), beta2 * q2 + (1 - beta2)], correction.dtype)
