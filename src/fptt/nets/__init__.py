"""What is trained: layers and the network that they form."""

from fptt.nets.dropout import Dropout
from fptt.nets.embedding import Embedding
from fptt.nets.gru import GRU
from fptt.nets.linear import Linear
from fptt.nets.lstm import LSTM
from fptt.nets.network import Network
from fptt.nets.relu import ReLU
from fptt.nets.rnn import RNN

#: the recurrent layers that take (inputs, hidden), by the name in options
CELLS: dict[str, type[LSTM] | type[GRU] | type[RNN]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}

__all__ = ["CELLS", "GRU", "LSTM", "RNN", "Dropout", "Embedding", "Linear", "Network", "ReLU"]
