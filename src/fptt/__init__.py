"""fptt: train recurrent networks where the data is, by Forward Propagation Through Time."""

from fptt.errors import FpttError, InputError, NumericalError, SaveError, SnapshotWarning
from fptt.estimator import SequenceClassifier
from fptt.nets import (
    ALIF,
    GRU,
    LIF,
    LRU,
    LSTM,
    LTC,
    RNN,
    Dropout,
    ElementwiseLSTM,
    Embedding,
    LeakyIntegrator,
    Linear,
    Network,
    ReLU,
)
from fptt.program import Program, build
from fptt.rules import (
    BPTT,
    FPTT,
    SGD,
    TBPTT,
    Adam,
    Auxiliary,
    CosineSchedule,
    EveryStep,
    Last,
    PlateauSchedule,
    StepSchedule,
)
from fptt.storage.snapshot import load
from fptt.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "ALIF",
    "BPTT",
    "FPTT",
    "GRU",
    "LIF",
    "LRU",
    "LSTM",
    "LTC",
    "RNN",
    "SGD",
    "TBPTT",
    "Adam",
    "Auxiliary",
    "CosineSchedule",
    "Dropout",
    "ElementwiseLSTM",
    "Embedding",
    "EveryStep",
    "FpttError",
    "InputError",
    "Last",
    "LeakyIntegrator",
    "Linear",
    "Network",
    "NumericalError",
    "PlateauSchedule",
    "Program",
    "ReLU",
    "SaveError",
    "SequenceClassifier",
    "SnapshotWarning",
    "StepSchedule",
    "Trainer",
    "build",
    "load",
]
