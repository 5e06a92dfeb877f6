"""fptt.torch.FPTT is a PyTorch optimizer: what PyTorch's own machinery expects of one."""

import copy
import gc
import io
import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import fptt
import fptt.torch
from fptt.torch import FPTT

F64 = torch.float64


def wrappable():
    optim = torch.optim
    found = {
        "SGD": lambda p: optim.SGD(p, lr=0.1),
        "SGD-momentum-decay": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        "SGD-nesterov-one-by-one": lambda p: optim.SGD(
            p, lr=0.1, momentum=0.9, nesterov=True, foreach=False
        ),
        "SGD-fused": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
        "Adam-amsgrad": lambda p: optim.Adam(p, lr=0.05, amsgrad=True),
        "AdamW": lambda p: optim.AdamW(p, lr=0.05),
        "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, alpha=0.9),
    }
    for name in ("Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop"):
        found[name] = lambda p, name=name: getattr(optim, name)(p, lr=0.05)
    return found


def parameters(seed=0, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype))
        for shape in ((3, 5), (7,), (2, 1, 3))
    ]


def give_gradients(params, step, dtype=F64):
    generator = torch.Generator().manual_seed(1000 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)


def train(optimizer, params, steps, dtype=F64):
    for step in steps:
        give_gradients(params, step, dtype)
        optimizer.step()


def bits(tensors):
    return [tensor.detach().clone() for tensor in tensors]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def memory(optimizer, params):
    """lambda and m of all parameters."""
    return [optimizer.state[p][key] for p in params for key in ("lambda", "mean")]


def refused(message):
    return pytest.raises(fptt.InputError, match="^" + re.escape(message) + "$")


# -- the equations -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["code", "paper"])
@pytest.mark.parametrize("name", wrappable())
def test_any_optimizer(name, mode):
    """Against the equations, written out for one tensor at a time around the same optimizer."""
    alpha, beta, weight = 0.3, 0.4, {"code": 1.0, "paper": 0.5}[mode]
    ours, theirs = parameters(), parameters()
    wrapped = FPTT(wrappable()[name](ours), alpha=alpha, beta=beta, mode=mode)
    plain = wrappable()[name](theirs)
    means, lambdas = bits(theirs), [torch.zeros_like(p) for p in theirs]
    for step in range(8):
        give_gradients(ours, step)
        wrapped.step()
        give_gradients(theirs, step)
        for p, m, lam in zip(theirs, means, lambdas, strict=True):
            p.grad = p.grad - weight * lam + alpha * (p.detach() - m)
        plain.step()
        for n, p in enumerate(theirs):
            theta = p.detach()
            lambdas[n] = weight * lambdas[n] - alpha * (theta - means[n])
            means[n] = (1 - beta) * means[n] + beta * theta - (beta / alpha) * lambdas[n]
    for n, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(wrapped.state[p]["lambda"], lambdas[n], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(wrapped.state[p]["mean"], means[n], rtol=1e-12, atol=1e-13)


def test_the_gradient_afterwards_is_d_clipped():
    params = parameters()
    optimizer = FPTT(torch.optim.SGD(params, lr=0.1), alpha=0.3, clip=0.5)
    train(optimizer, params, range(3))
    before = [(bits([p])[0], *bits(optimizer.state[p].values())) for p in params]
    give_gradients(params, 7)
    gradients = bits(p.grad for p in params)
    optimizer.step()
    d = [g - lam + 0.3 * (p - m) for g, (p, lam, m) in zip(gradients, before, strict=True)]
    norm = torch.cat([value.flatten() for value in d]).norm()
    assert norm > 0.5  # of all tensors together
    for p, value in zip(params, d, strict=True):
        torch.testing.assert_close(p.grad, value * 0.5 / norm, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["SGD-momentum-decay", "AdamW", "RMSprop"])
def test_without_regularisation_it_is_the_optimizer_itself(name):
    ours, theirs = parameters(), parameters()
    wrapped, plain = FPTT(wrappable()[name](ours), regularise=False), wrappable()[name](theirs)
    train(wrapped, ours, range(5))
    train(plain, theirs, range(5))
    wrapped.end_epoch()
    with wrapped.averaged():
        assert same(ours, theirs)
    assert same(ours, theirs)
    assert not wrapped.state


def test_maximize_is_the_mirror_image():
    ours, theirs = parameters(), parameters()
    up = FPTT(torch.optim.SGD(ours, lr=0.1, momentum=0.5, maximize=True), clip=0.4)
    down = FPTT(torch.optim.SGD(theirs, lr=0.1, momentum=0.5), clip=0.4)
    for step in range(6):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        for p in theirs:
            p.grad.neg_()
        up.step()
        down.step()
    assert same(ours, theirs)


def test_a_parameter_without_gradient_is_skipped():
    params, others = parameters(), parameters()
    optimizer, other = FPTT(torch.optim.SGD(params, lr=0.1)), FPTT(torch.optim.SGD(others, lr=0.1))
    for step in range(4):
        give_gradients(params, step)
        give_gradients(others, step)
        if step in (0, 2):
            params[1].grad = None
            others[1].grad = None
        before = bits([params[1]])
        optimizer.step()
        other.step()
        if step == 0:
            assert params[1] not in optimizer.state
        if step in (0, 2):
            assert same(before, [params[1]])
    # R(t) acts alone on a zero gradient
    before, lam = bits([params[1]]), optimizer.state[params[1]]["lambda"].clone()
    assert lam.abs().max() > 0
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()
    assert not same(before, [params[1]])


def test_closure():
    params = parameters()
    optimizer = FPTT(torch.optim.SGD(params, lr=0.1))
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        calls.append(loss)
        return loss

    assert optimizer.step(closure) is calls[0]
    assert len(calls) == 1
    assert optimizer.step(closure) < calls[0]


# -- groups and schedulers -----------------------------------------------------------------------


def test_groups_with_their_own_options():
    """Two groups are two optimizers."""
    params = parameters()
    together = FPTT(
        torch.optim.SGD(
            [
                {"params": params[:1], "lr": 0.2, "fptt_alpha": 0.7},
                {"params": params[1:], "fptt_beta": 0.9},
            ],
            lr=0.1,
        ),
        alpha=0.2,
        beta=0.3,
    )
    train(together, params, range(6))
    alone = parameters()
    first = FPTT(torch.optim.SGD(alone[:1], lr=0.2), alpha=0.7, beta=0.3)
    second = FPTT(torch.optim.SGD(alone[1:], lr=0.1), alpha=0.2, beta=0.9)
    for step in range(6):
        give_gradients(alone, step)
        first.step()
        second.step()
    assert same(params, alone)


def test_add_param_group():
    params, others = parameters(), parameters()
    optimizer = FPTT(torch.optim.Adam(params[:2], lr=0.1), alpha=0.2)
    whole = FPTT(torch.optim.Adam(others[:2], lr=0.1), alpha=0.2)
    late = FPTT(torch.optim.Adam(others[2:], lr=0.01), alpha=0.5)
    for step in range(6):
        if step == 3:
            optimizer.add_param_group({"params": [params[2]], "lr": 0.01, "fptt_alpha": 0.5})
        give_gradients(params, step)
        give_gradients(others, step)
        optimizer.step()
        whole.step()
        if step >= 3:
            late.step()
    assert same(params, others)
    assert optimizer.param_groups is optimizer.inner.param_groups
    with refused("FPTT: alpha is 0; give a number above 0, or regularise=False to train without "
                 "R(t)"):  # fmt: skip
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "fptt_alpha": 0})
    assert len(optimizer.param_groups) == 2


SCHEDULERS = {
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
    "Cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6),
    "OneCycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.3, total_steps=10),
    "Plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=1),
}


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW], ids=["SGD", "AdamW"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(name, make):
    """A scheduler of the wrapper changes what the wrapped optimizer does, momentum included."""
    options = dict(momentum=0.9) if make is torch.optim.SGD else {}
    ours, theirs, dummy = parameters(), parameters(), parameters()
    wrapped = FPTT(make(ours, lr=0.1, **options))
    scheduler = SCHEDULERS[name](wrapped)
    by_hand = FPTT(make(theirs, lr=0.1, **options))
    plain = make(dummy, lr=0.1, **options)
    known = SCHEDULERS[name](plain)
    rates = []
    for step in range(8):
        for key in ("lr", "momentum", "betas"):
            if key in plain.param_groups[0]:
                by_hand.inner.param_groups[0][key] = plain.param_groups[0][key]
        rates.append(plain.param_groups[0]["lr"])
        train(wrapped, ours, [step])
        train(by_hand, theirs, [step])
        train(plain, dummy, [step])
        arguments = (1.0,) if name == "Plateau" else ()
        scheduler.step(*arguments)
        known.step(*arguments)
    assert len(set(rates)) > 2
    assert scheduler.get_last_lr() == known.get_last_lr()
    assert same(ours, theirs)


def test_a_scheduler_goes_on_after_loading():
    """The loaded groups are shared again."""
    params = parameters()
    optimizer = FPTT(torch.optim.SGD(params, lr=0.1))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    train(optimizer, params, [0])
    scheduler.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.inner.param_groups[0]["lr"] == 0.05
    train(optimizer, params, [1])
    scheduler.step()
    assert optimizer.inner.param_groups[0]["lr"] == 0.025
    optimizer.inner.load_state_dict(optimizer.inner.state_dict())
    train(optimizer, params, [2])
    assert optimizer.param_groups is optimizer.inner.param_groups


# -- saving and copying --------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 0.7])
@pytest.mark.parametrize("name", ["SGD-momentum-decay", "AdamW", "RMSprop"])
def test_state_dict_goes_on_with_the_same_bits(name, clip):
    params = parameters(dtype=torch.float32)
    optimizer = FPTT(wrappable()[name](params), alpha=0.3, mode="paper", clip=clip)
    train(optimizer, params, range(3), torch.float32)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "params": bits(params)}, file)
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    others = [nn.Parameter(value) for value in saved["params"]]
    other = FPTT(wrappable()[name](others), alpha=0.9, mode="paper")
    other.load_state_dict(saved["optimizer"])
    assert same(memory(optimizer, params), memory(other, others))
    train(optimizer, params, range(3, 6), torch.float32)
    train(other, others, range(3, 6), torch.float32)
    assert same(params, others)
    assert same(memory(optimizer, params), memory(other, others))
    assert (other.alpha, other.clip) == (0.3, clip)


def test_a_loaded_state_is_a_copy():
    params, others = parameters(), parameters()
    optimizer, other = (FPTT(torch.optim.Adam(p, lr=0.1)) for p in (params, others))
    train(optimizer, params, range(2))
    other.load_state_dict(optimizer.state_dict())
    before = bits(memory(other, others))
    train(optimizer, params, range(2, 4))
    assert same(memory(other, others), before)


def test_a_state_is_loaded_onto_the_parameters_device_and_dtype():
    params = parameters(dtype=torch.float32)
    optimizer = FPTT(torch.optim.SGD(params, lr=0.1, momentum=0.9))
    train(optimizer, params, range(2), torch.float32)
    moved = [nn.Parameter(p.detach().to("meta", F64)) for p in params]
    other = FPTT(torch.optim.SGD(moved, lr=0.1, momentum=0.9))
    other.load_state_dict(optimizer.state_dict())
    state = [*memory(other, moved), other.inner.state[moved[0]]["momentum_buffer"]]
    assert {(t.device.type, t.dtype) for t in state} == {("meta", F64)}


def test_states_of_the_plain_optimizer():
    """A run goes on with FPTT that began without it, and the other way round."""
    params = parameters()
    plain = torch.optim.Adam(params, lr=0.1)
    train(plain, params, range(3))
    optimizer = FPTT(torch.optim.Adam(params, lr=0.5))
    train(optimizer, params, [9])
    optimizer.load_state_dict(plain.state_dict())
    assert not optimizer.state
    assert optimizer.inner.state[params[0]]["step"] == 3
    assert optimizer.param_groups[0]["lr"] == 0.1
    train(optimizer, params, [3])
    plain.load_state_dict(optimizer.state_dict()["inner"])
    assert plain.state[params[0]]["step"] == 4

    unregularised = FPTT(torch.optim.Adam(params, lr=0.1), regularise=False)
    unregularised.load_state_dict(optimizer.state_dict())
    assert not unregularised.state
    unregularised.step()
    optimizer.load_state_dict(unregularised.state_dict())
    assert not optimizer.state


def test_a_state_of_the_other_mode_is_refused():
    params = parameters()
    optimizer = FPTT(torch.optim.SGD(params, lr=0.1), mode="paper")
    with refused(
        "FPTT: the state was saved in mode 'code' and this is mode 'paper', whose lambda is "
        "another; make FPTT(..., mode='code')"
    ):
        optimizer.load_state_dict(FPTT(torch.optim.SGD(params, lr=0.1)).state_dict())


def through_pickle(pair):
    return pickle.loads(pickle.dumps(pair))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])
def test_copies(duplicate):
    params = parameters()
    optimizer = FPTT(torch.optim.Adam(params, lr=0.1), alpha=0.3, mode="paper", clip=1.0)
    train(optimizer, params, range(3))
    others, other = duplicate((params, optimizer))
    train(optimizer, params, range(3, 6))
    assert not same(params, others)
    train(other, others, range(3, 6))
    assert same(params, others)
    assert same(memory(optimizer, params), memory(other, others))
    assert other.param_groups is other.inner.param_groups
    assert repr(other) == repr(optimizer)


def test_weights_loaded_before_the_first_step_are_m_at_first():
    params = parameters()
    optimizer = FPTT(torch.optim.SGD(params, lr=0.1), alpha=0.5)
    with torch.no_grad():
        for p in params:
            p.add_(1)
    start = bits(params)
    train(optimizer, params, [0])
    # lambda' = -alpha (theta' - m) shows what m was
    for p, theta in zip(params, start, strict=True):
        torch.testing.assert_close(optimizer.state[p]["lambda"], -0.5 * (p.detach() - theta))
    optimizer.restart()
    start = bits(params)
    train(optimizer, params, [1])
    for p, theta in zip(params, start, strict=True):
        torch.testing.assert_close(optimizer.state[p]["lambda"], -0.5 * (p.detach() - theta))


# -- the running mean ----------------------------------------------------------------------------


def test_averaged():
    params = parameters(dtype=torch.float32)
    optimizer = FPTT(torch.optim.SGD(params, lr=0.1), alpha=0.3)
    with optimizer.averaged():  # before the first step there is no m
        pass
    train(optimizer, params, range(4), torch.float32)
    theta, means = bits(params), bits(optimizer.state[p]["mean"] for p in params)
    assert not same(theta, means)
    with optimizer.averaged():
        assert same(params, means)
        with refused("FPTT: averaged() inside averaged(); the parameters are m already"):
            optimizer.averaged().__enter__()
        with refused(
            "FPTT: step() inside averaged(), where the parameters are m and not theta; leave the "
            "with-block before training goes on"
        ):
            optimizer.step()
        with refused("FPTT: end_epoch() inside averaged(); leave the with-block first"):
            optimizer.end_epoch()
        with torch.no_grad():
            params[0].zero_()  # whatever happens here
    assert same(params, theta)
    assert same([optimizer.state[p]["mean"] for p in params], means)

    def evaluation_that_fails():
        with optimizer.averaged():
            raise KeyError("in the evaluation")

    with pytest.raises(KeyError):
        evaluation_that_fails()
    assert same(params, theta)
    train(optimizer, params, [4], torch.float32)


@pytest.mark.parametrize("zero_lambda", [True, False])
@pytest.mark.parametrize("average", [True, False])
def test_end_epoch(average, zero_lambda):
    params = parameters()
    optimizer = FPTT(torch.optim.SGD(params, lr=0.1, momentum=0.9), alpha=0.3)
    optimizer.end_epoch()
    train(optimizer, params, range(4))
    theta, means = bits(params), bits(optimizer.state[p]["mean"] for p in params)
    lambdas = bits(optimizer.state[p]["lambda"] for p in params)
    optimizer.end_epoch(average=average, zero_lambda=zero_lambda)
    assert same(params, means if average else theta)
    found = [optimizer.state[p]["lambda"] for p in params]
    assert same(found, [torch.zeros_like(p) for p in params] if zero_lambda else lambdas)
    train(optimizer, params, [5])  # m and theta share no memory
    assert not same(params, [optimizer.state[p]["mean"] for p in params])


# -- what it costs, and its surroundings ---------------------------------------------------------


def live_bytes():
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated attributes of other objects
        tensors = [o for o in gc.get_objects() if type(o) in (torch.Tensor, nn.Parameter)]
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


@pytest.mark.parametrize(("clip", "mode"), [(None, "code"), (0.5, "paper")])
def test_it_keeps_lambda_and_m_and_nothing_else(clip, mode):
    params = parameters()
    size = sum(p.nbytes for p in params)
    give_gradients(params, 0)
    optimizer = FPTT(torch.optim.SGD(params, lr=0.1), mode=mode, clip=clip)
    before = live_bytes()
    for _ in range(3):
        optimizer.step()
    assert live_bytes() - before == 2 * size


def test_hooks():
    params = parameters()
    optimizer = FPTT(torch.optim.SGD(params, lr=0.1), alpha=0.5)
    train(optimizer, params, [0])
    seen = []

    def note(of, *_):
        seen.append((of, params[0].grad.clone()))

    optimizer.register_step_pre_hook(note)
    optimizer.register_step_post_hook(note)
    optimizer.inner.register_step_pre_hook(note)
    give_gradients(params, 1)
    g = params[0].grad.clone()
    optimizer.step()
    assert [of for of, _ in seen] == [optimizer, optimizer.inner, optimizer]
    assert torch.equal(seen[0][1], g)
    assert not torch.equal(seen[1][1], g)
    assert torch.equal(seen[2][1], seen[1][1])


def test_gradient_scaler():
    """Of mixed precision: gradients are unscaled before d is made, and a step with Inf skipped."""
    ours, theirs = parameters(dtype=torch.float32), parameters(dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    wrapped, plain = (FPTT(torch.optim.SGD(p, lr=0.1), alpha=0.5) for p in (ours, theirs))
    for step in range(4):
        loss = sum((p * (p + step)).sum() for p in ours)
        wrapped.zero_grad()
        scaler.scale(loss).backward()
        if step == 2:
            ours[0].grad[0, 0] = float("inf")
        scaler.step(wrapped)
        scaler.update()
        if step != 2:
            plain.zero_grad()
            sum((p * (p + step)).sum() for p in theirs).backward()
            plain.step()
    assert same(ours, theirs)


def test_refusals():
    params = parameters()
    sgd = torch.optim.SGD(params, lr=0.1)
    for wrong in (0, -1, float("inf"), float("nan"), True, "0.1"):
        with refused(
            f"FPTT: alpha is {wrong!r}; give a number above 0, or regularise=False to train "
            "without R(t)"
        ):
            FPTT(sgd, alpha=wrong)
    with refused("FPTT: beta is 1.5; give a number with 0 < beta <= 1"):
        FPTT(sgd, beta=1.5)
    with refused("FPTT: mode is 'Paper'; choose one of 'code', 'paper'"):
        FPTT(sgd, mode="Paper")
    with refused("FPTT: regularise is 1; give True or False"):
        FPTT(sgd, regularise=1)
    with refused("FPTT: clip is 0; give a norm above 0, or None"):
        FPTT(sgd, clip=0)
    with refused("FPTT: optimizer is wrapped by FPTT already; wrap it once"):
        FPTT(FPTT(sgd))
    with refused(
        "FPTT: optimizer is a list; give an optimizer with its parameters, such as "
        "torch.optim.SGD(model.parameters(), lr=0.1)"
    ):
        FPTT(params[:1])
    with refused(
        "FPTT: LBFGS evaluates the loss several times in a step, and FPTT has one gradient per "
        "part; wrap SGD, Adam or another that needs no closure"
    ):
        FPTT(torch.optim.LBFGS(params))
    with refused(
        "FPTT: differentiable=True cannot be wrapped: the update of lambda and m keeps no graph; "
        "make the optimizer without it"
    ):
        FPTT(torch.optim.SGD(params, lr=0.1, differentiable=True))
    # a refusal leaves the optimizer as it was
    assert len(sgd.param_groups) == 1
    train(sgd, params, [0])


def test_sparse_gradients_are_refused_before_anything_changes():
    dense, table = nn.Parameter(torch.ones(2)), nn.Embedding(5, 3, sparse=True)
    optimizer = FPTT(torch.optim.SGD([dense, table.weight], lr=0.1))
    (table(torch.tensor([1, 2])).sum() + dense.sum()).backward()
    with refused(
        "FPTT: the gradient of parameter 1 of group 0, [5, 3], is sparse, and d is dense; use "
        "torch.nn.Embedding(..., sparse=False), or regularise=False"
    ):
        optimizer.step()
    assert dense.tolist() == [1, 1]
    FPTT(torch.optim.SGD([dense, table.weight], lr=0.1), regularise=False).step()


def test_names_are_loaded_when_asked_for():
    code = (
        "import sys, fptt.torch; assert 'torch' not in sys.modules; "
        "fptt.torch.predict; assert callable(fptt.torch.parts); assert 'torch' in sys.modules"
    )
    root = str(Path(fptt.__file__).parent.parent)
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, check=True)
    assert {"FPTT", "parts", "predict", "Stateful", "AuxiliaryLoss"} <= set(dir(fptt.torch))
    with pytest.raises(AttributeError, match=r"^module 'fptt\.torch' has no attribute 'SGD'$"):
        _ = fptt.torch.SGD


def test_an_unsupported_version_of_torch(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.13.1+cpu")
    with pytest.raises(fptt.InputError, match=r"^fptt\.torch works with PyTorch from .* 1\.13\.1"):
        fptt.torch.__getattr__("FPTT")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    """The same updates as on the CPU; a state goes from there to here and back."""
    params = parameters()
    optimizer = FPTT(torch.optim.Adam(params, lr=0.1), clip=0.5)
    train(optimizer, params, range(3))
    there = [nn.Parameter(p.detach().cuda()) for p in params]
    moved = FPTT(torch.optim.Adam(there, lr=0.1))
    moved.load_state_dict(optimizer.state_dict())
    assert all(tensor.is_cuda for tensor in memory(moved, there))
    for step in range(3, 6):
        train(optimizer, params, [step])
        for p, q in zip(params, there, strict=True):
            give_gradients(params, step)
            q.grad = p.grad.cuda()
        moved.step()
    for p, q in zip(params, there, strict=True):
        torch.testing.assert_close(p, q.cpu(), rtol=1e-9, atol=1e-12)
    optimizer.load_state_dict(moved.state_dict())
    assert not memory(optimizer, params)[0].is_cuda
