"""Forward Propagation Through Time as a wrapper of any PyTorch optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from fptt.checks import is_number
from fptt.errors import InputError

#: options of a parameter group; `alpha` alone is RMSprop's smoothing constant
ALPHA, BETA = "fptt_alpha", "fptt_beta"
_OPTIONS = ("alpha", "beta", "mode", "regularise", "clip")
#: weight of lambda in d and in its own recursion
_WEIGHT_OF_LAMBDA = {"code": 1.0, "paper": 0.5}


def _check_number(name: str, value: object, largest: float, expected: str) -> None:
    if not (is_number(value) and 0 < value <= largest and value < float("inf")):
        raise InputError(f"FPTT: {name} is {value!r}; give {expected}")


def _check_options(alpha: object, beta: object) -> None:
    _check_number(
        "alpha",
        alpha,
        float("inf"),
        "a number above 0, or regularise=False to train without R(t)",
    )
    _check_number("beta", beta, 1, "a number with 0 < beta <= 1")


class FPTT(torch.optim.Optimizer):
    """FPTT: a step of another optimizer on the loss plus a dynamic regulariser R(t).

    State per parameter: the running mean m (starts as theta) and lambda (starts as 0). With g the
    gradient of the part's loss at theta, which `loss.backward()` left in .grad, `step` computes

        d       = g - w lambda + alpha (theta - m)          gradient of l + R(t)
        theta'  = optimizer(theta, d)                       the global norm of d clipped first
        lambda' = w lambda - alpha (theta' - m)
        m'      = (1 - beta) m + beta theta' - (beta/alpha) lambda'

    w is 1 in mode "code" (what the authors' program runs) and 1/2 in mode "paper".

    Call it once for every part of a sequence; `fptt.torch.parts` cuts the sequence. It is a
    torch.optim.Optimizer: it shares its parameter groups with the wrapped one, so learning rate
    schedulers work on it, and `state[p]["lambda"]` and `state[p]["mean"]` can be looked at. They
    are all it keeps, in the dtype of the parameter. They are made at the parameter's first step,
    so weights may be loaded before that; after loading weights later, call `restart`.

    Differences that matter:

    - torch.nn.utils.clip_grad_norm_ would clip g. FPTT clips d, so use `clip` of this class.
    - After `step`, .grad holds d (clipped), not g: no third tensor is needed for it. As with any
      optimizer, zero the gradients before the next backward pass.
    - A parameter whose .grad is None is skipped as in all PyTorch optimizers: it does not move and
      its lambda and m stay. R(t) alone moves it where .grad is zero
      (`zero_grad(set_to_none=False)`).
    - m is the running mean of parameters only: `averaged` and `end_epoch` leave buffers, such as
      the statistics of BatchNorm, as they are.

    Args:
        optimizer: the optimizer to wrap, with its parameters. It is stepped by this object only.
            LBFGS, which evaluates the loss several times in a step, cannot be wrapped.
        alpha: strength of R(t), > 0. A parameter group may have its own as `fptt_alpha`.
        beta: weight of the new parameters in m, 0 < beta <= 1; for a group, `fptt_beta`.
        mode: "code" or "paper".
        regularise: False drops R(t), lambda and m: what is left is the wrapped optimizer, called
            after every part (truncated BPTT), with `clip`.
        clip: largest global norm of d over all parameters; None does not clip.

    Raises:
        InputError: a value outside its range, an optimizer that cannot be wrapped.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = FPTT(torch.optim.SGD([weight], lr=0.5), alpha=0.5)
        >>> weight.square().sum().backward()
        >>> optimizer.step()  # g = 2, theta' = 0, lambda' = 0.5, m' = 0.5 + 0 - 0.5
        >>> [value.item() for value in (weight, *optimizer.state[weight].values())]
        [0.0, 0.5, 0.0]

    Reference: Kag & Saligrama, "Training Recurrent Neural Networks via Forward Propagation Through
    Time", ICML 2021.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        alpha: float = 0.1,
        beta: float = 0.5,
        mode: Literal["code", "paper"] = "code",
        regularise: bool = True,
        clip: float | None = None,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InputError(
                f"FPTT: optimizer is a {type(optimizer).__name__}; give an optimizer with its "
                "parameters, such as torch.optim.SGD(model.parameters(), lr=0.1)"
            )
        if isinstance(optimizer, FPTT):
            raise InputError("FPTT: optimizer is wrapped by FPTT already; wrap it once")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise InputError(
                "FPTT: LBFGS evaluates the loss several times in a step, and FPTT has one gradient "
                "per part; wrap SGD, Adam or another that needs no closure"
            )
        _check_options(alpha, beta)
        if mode not in _WEIGHT_OF_LAMBDA:
            raise InputError(f"FPTT: mode is {mode!r}; choose one of 'code', 'paper'")
        if not isinstance(regularise, bool):
            raise InputError(f"FPTT: regularise is {regularise!r}; give True or False")
        if clip is not None:
            _check_number("clip", clip, float("inf"), "a norm above 0, or None")
        self.alpha, self.beta, self.mode = alpha, beta, mode
        self.regularise, self.clip = regularise, clip
        self._averaged = False
        # torch adds the groups one by one, to a list of this object's own; ours is shared instead
        self.inner: torch.optim.Optimizer | None = None
        super().__init__(optimizer.param_groups, {**optimizer.defaults})
        self.inner = optimizer
        self.param_groups = optimizer.param_groups

    # -- parameter groups ----------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group to the wrapped optimizer; lambda and m of its parameters start anew.

        Raises:
            InputError: fptt_alpha or fptt_beta outside its range, a differentiable optimizer.
        """
        _check_options(*self._options(param_group))
        if param_group.get("differentiable", self.defaults.get("differentiable")):
            raise InputError(
                "FPTT: differentiable=True cannot be wrapped: the update of lambda and m keeps no "
                "graph; make the optimizer without it"
            )
        if self.inner is None:
            super().add_param_group(param_group)
        else:
            self._share().add_param_group(param_group)

    def _options(self, group: dict[str, Any]) -> tuple[float, float]:
        """alpha and beta of a group."""
        return group.get(ALPHA, self.alpha), group.get(BETA, self.beta)

    def _share(self) -> torch.optim.Optimizer:
        """The wrapped optimizer, its groups shared; loading a state makes it a new list of them."""
        inner = cast(torch.optim.Optimizer, self.inner)
        self.param_groups = inner.param_groups
        return inner

    # -- the update ----------------------------------------------------------------------------

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update, from the gradients of one part's loss.

        Args:
            closure: called once, before the update, to compute loss and gradients.

        Returns:
            What the closure returned.

        Raises:
            InputError: a sparse gradient, or a call inside `averaged`; nothing is changed.
        """
        if self._averaged:
            raise InputError(
                "FPTT: step() inside averaged(), where the parameters are m and not theta; leave "
                "the with-block before training goes on"
            )
        inner = self._share()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = [self._moving(number) for number in range(len(self.param_groups))]
        weight = _WEIGHT_OF_LAMBDA[self.mode]
        for group, (theta, gradients, lambdas, means) in zip(
            self.param_groups, groups, strict=True
        ):
            if theta:
                # maximize=True turns d around, so that here it comes as -d
                sign = -1.0 if group.get("maximize") else 1.0
                difference = torch._foreach_sub(theta, means)
                torch._foreach_add_(gradients, lambdas, alpha=-sign * weight)
                torch._foreach_add_(gradients, difference, alpha=sign * self._options(group)[0])
                del difference
        if self.clip is not None:
            clip_grad_norm_([p for group in self.param_groups for p in group["params"]], self.clip)
        inner.step()
        for group, (theta, _, lambdas, means) in zip(self.param_groups, groups, strict=True):
            if theta:
                alpha, beta = self._options(group)
                if weight != 1:
                    torch._foreach_mul_(lambdas, weight)
                difference = torch._foreach_sub(theta, means)
                torch._foreach_add_(lambdas, difference, alpha=-alpha)
                del difference
                torch._foreach_mul_(means, 1 - beta)
                torch._foreach_add_(means, theta, alpha=beta)
                torch._foreach_add_(means, lambdas, alpha=-beta / alpha)
        return loss

    def _moving(self, number: int) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """theta, .grad, lambda and m of what R(t) acts on in a group."""
        theta: list[Tensor] = []
        if self.regularise:
            parameters = self.param_groups[number]["params"]
            theta = [p for p in parameters if p.grad is not None]
            for index, p in enumerate(parameters):
                if p.grad is not None and p.grad.layout != torch.strided:
                    raise InputError(
                        f"FPTT: the gradient of parameter {index} of group {number}, "
                        f"{list(p.shape)}, is sparse, and d is dense; use "
                        "torch.nn.Embedding(..., sparse=False), or regularise=False"
                    )
        for p in theta:
            if not self.state[p]:
                self.state[p]["lambda"] = torch.zeros_like(p)
                self.state[p]["mean"] = p.detach().clone()
        return (
            theta,
            [cast(Tensor, p.grad) for p in theta],
            [self.state[p]["lambda"] for p in theta],
            [self.state[p]["mean"] for p in theta],
        )

    # -- the running mean ----------------------------------------------------------------------

    def _means(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        for group in self.param_groups:
            for p in group["params"]:
                if p in self.state:
                    yield p, self.state[p]

    @torch.no_grad()
    def end_epoch(self, average: bool = True, zero_lambda: bool = True) -> None:
        """End of an epoch: theta becomes m and lambda 0, so that evaluation uses m.

        The published code does both after every epoch; for PTB it keeps lambda. The state of the
        wrapped optimizer stays. With regularise=False nothing happens.

        Args:
            average: whether theta becomes m.
            zero_lambda: whether lambda becomes 0.

        Raises:
            InputError: a call inside `averaged`.
        """
        if self._averaged:
            raise InputError("FPTT: end_epoch() inside averaged(); leave the with-block first")
        for p, state in self._means():
            if average:
                p.copy_(state["mean"])
            if zero_lambda:
                state["lambda"].zero_()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block the parameters are m; afterwards theta, bit for bit.

        For evaluation in the middle of an epoch, or to save the model that is evaluated. theta
        also comes back when the block ends by an exception. The block needs a copy of theta.

        Raises:
            InputError: a block inside another.

        Example:
            with optimizer.averaged():
                accuracy = evaluate(model)
        """
        if self._averaged:
            raise InputError("FPTT: averaged() inside averaged(); the parameters are m already")
        kept = [(p, p.detach().clone()) for p, _ in self._means()]
        self._averaged = True
        try:
            with torch.no_grad():
                for p, state in self._means():
                    p.copy_(state["mean"])
            yield
        finally:
            with torch.no_grad():
                for p, theta in kept:
                    p.copy_(theta)
            self._averaged = False

    def restart(self) -> None:
        """Forgets lambda and m: at the next step m is theta and lambda 0."""
        self.state.clear()

    # -- files and copies ----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """State and groups as of any optimizer, with the wrapped one's state dict under "inner".

        state_dict()["inner"] can be loaded into the wrapped optimizer alone.
        """
        self._share()
        packed = super().state_dict()
        packed["inner"] = cast(torch.optim.Optimizer, self.inner).state_dict()
        packed["fptt"] = {name: getattr(self, name) for name in _OPTIONS}
        return packed

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` gave, onto the parameters' devices; the tensors are copied.

        alpha, beta and clip come from there, as the learning rate does.

        A state dict of the wrapped optimizer alone can be loaded too: then lambda and m start
        anew. Without R(t), here or where it was saved, there are none to load.

        Raises:
            InputError: a state saved in the other mode, where lambda means something else.
            ValueError: groups or parameters that do not fit.
        """
        inner = self._share()
        state_dict = copy.deepcopy(state_dict)
        options = state_dict.pop("fptt", None)
        if options is None:
            inner.load_state_dict(state_dict)
            self.state.clear()
            self._share()
            return
        if options["regularise"] and self.regularise and options["mode"] != self.mode:
            raise InputError(
                f"FPTT: the state was saved in mode {options['mode']!r} and this is mode "
                f"{self.mode!r}, whose lambda is another; make FPTT(..., mode={options['mode']!r})"
            )
        inner.load_state_dict(state_dict.pop("inner"))
        super().load_state_dict(state_dict)
        self.alpha, self.beta, self.clip = (options[name] for name in ("alpha", "beta", "clip"))
        if not self.regularise:
            self.state.clear()
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("inner", *_OPTIONS)}
        return {**super().__getstate__(), **kept, "_averaged": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.inner is not None:
            self._share()

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in _OPTIONS)
        return f"FPTT({self.inner!r}, {options})"
