"""The functions and methods of tensors that can be read, and advice about others."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.nn import functional

#: function -> the method of `Walk` that reads it
FUNCTIONS: dict[Any, str] = {
    operator.getitem: "getitem",
    torch.relu: "relu",
    torch.relu_: "relu",
    functional.relu: "relu",
    functional.relu_: "relu",
    functional.dropout: "dropout",
    torch.dropout: "dropout",
    torch.stack: "stack",
    torch.transpose: "transpose",
    torch.swapaxes: "transpose",
    torch.permute: "permute",
    torch.select: "select",
    torch.squeeze: "squeeze",
    torch.unsqueeze: "unsqueeze",
    torch.unbind: "unbind",
    torch.flatten: "flatten",
    torch.zeros_like: "zeros",
}
#: the same for methods of tensors, by name
METHODS = {
    "relu": "relu",
    "relu_": "relu",
    "transpose": "transpose",
    "swapaxes": "transpose",
    "permute": "permute",
    "select": "select",
    "squeeze": "squeeze",
    "unsqueeze": "unsqueeze",
    "unbind": "unbind",
    "flatten": "flatten",
    "view": "view",
    "reshape": "view",
    "contiguous": "same",
    "to": "cast",
    "float": "cast",
    "double": "cast",
    "cpu": "cast",
    "cuda": "cast",
    "new_zeros": "zeros",
}
_LOGITS = "return the logits: the cross-entropy includes the softmax"
_BRANCH = "one layer follows the other in fptt, without branches and residual connections"
_WHOLE = "Linear takes [batch, steps, features] as it is; leave the reshaping out"
#: what to do about functions that are met often
ADVICE = {
    "add": _BRANCH,
    "sub": _BRANCH,
    "mul": _BRANCH,
    "cat": _BRANCH + " (to collect the steps of a loop use torch.stack)",
    "concat": _BRANCH,
    "softmax": _LOGITS,
    "log_softmax": _LOGITS,
    "view": _WHOLE,
    "reshape": _WHOLE,
    "flatten": _WHOLE,
    "mean": "take the last step, out[:, -1], or return the outputs of all steps",
    "sum": "take the last step, out[:, -1], or return the outputs of all steps",
    "max": "take the last step, out[:, -1], or return the outputs of all steps",
}
