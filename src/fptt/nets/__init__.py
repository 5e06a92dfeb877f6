"""What is trained: layers and the network that they form."""

from collections.abc import Callable

from fptt.nets.alif import ALIF
from fptt.nets.dropout import Dropout
from fptt.nets.elementwise_lstm import ElementwiseLSTM
from fptt.nets.embedding import Embedding
from fptt.nets.gru import GRU
from fptt.nets.layer import Layer, Recurrent
from fptt.nets.leaky import LeakyIntegrator, top_layer
from fptt.nets.lif import LIF
from fptt.nets.linear import Linear
from fptt.nets.lru import LRU
from fptt.nets.lstm import LSTM
from fptt.nets.ltc import LTC
from fptt.nets.network import Network
from fptt.nets.relu import ReLU
from fptt.nets.rnn import RNN

#: the recurrent layers that take (inputs, hidden), by the name in options
CELLS: dict[str, Callable[[int, int], Recurrent]] = {
    "lstm": LSTM,
    "gru": GRU,
    "rnn": RNN,
    "elstm": ElementwiseLSTM,
    "lru": LRU,
    "lif": LIF,
    "alif": ALIF,
    "ltc": LTC,
}


def cell_layers(cell: str, inputs: int, hidden: int) -> list[Layer]:
    """The recurrent layer that an option names, and ReLU upon it where it is linear by itself.

    Example:
        >>> cell_layers("lru", 3, 5)[1:]
        [ReLU()]
    """
    layer = CELLS[cell](inputs, hidden)
    return [layer, ReLU()] if isinstance(layer, LRU) else [layer]


__all__ = [
    "ALIF",
    "CELLS",
    "GRU",
    "LIF",
    "LRU",
    "LSTM",
    "LTC",
    "RNN",
    "Dropout",
    "ElementwiseLSTM",
    "Embedding",
    "LeakyIntegrator",
    "Linear",
    "Network",
    "ReLU",
    "cell_layers",
    "top_layer",
]
