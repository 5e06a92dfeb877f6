"""What the tests of snapshots share: small trainers, files taken apart and put together again."""

import json
import struct
import warnings
import zlib

from cases import random_data

import fptt
from fptt.errors import SnapshotWarning
from fptt.storage import slotfile, slots, snapshot
from fptt.storage.contents import decode

LAYERS = [("RNN", 1, 2), ("Linear", 2, 2)]


def trainer_of(layers=LAYERS, rule=None, optimizer=None, *, seed=7, **options):
    net = fptt.Network([getattr(fptt, kind)(*size) for kind, *size in layers])
    options = {"steps": 4, "batch": 2, **options}
    rule, optimizer = rule or fptt.FPTT(parts=2), optimizer or fptt.SGD(0.1)
    return fptt.Trainer(fptt.build(net, rule, optimizer, **options), seed=seed)


def train(trainer, layers=LAYERS, seed=0):
    """One batch."""
    program = trainer.program
    every = "every_step" if program.schedule.every_step else "last"
    size = (program.batch, program.steps)
    return trainer.train_batch(*random_data(layers, *size, every, program.criterion, seed))


def state_of(path):
    """All that a snapshot brings back, as something to compare."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SnapshotWarning)
        return _comparable(*snapshot.read(path))


def state_in(medium):
    """The same of a container in memory."""
    return _comparable(*decode(slots.load(medium, slots.read_layout(medium)).payload))


def _comparable(header, arrays):
    return json.dumps(header["trainer"]), {name: a.tobytes() for name, a in arrays.items()}


class Memory:
    """A medium in memory."""

    def __init__(self, data=b""):
        self.data = bytearray(data)

    def size(self):
        return len(self.data)

    def read(self, offset, count):
        return self.data[offset : offset + count]

    def erase(self, offset, count):
        self.data.extend(bytes(max(0, offset + count - len(self.data))))
        self.write(offset, slots.ERASED)

    def write(self, offset, data):
        self.data.extend(bytes(max(0, offset + len(data) - len(self.data))))
        self.data[offset : offset + len(data)] = data

    def sync(self):
        pass


def signed(data):
    return data + struct.pack("<I", zlib.crc32(data))


def contents(path):
    """The newest state of a snapshot, without the container."""
    with open(path, "rb", buffering=0) as file:
        disk = slotfile.Disk(file)
        return bytes(slots.load(disk, slots.read_layout(disk)).payload)


def first_version(payload):
    """A file of the first version."""
    return signed(slots.MAGIC + struct.pack("<I", 1) + payload)


def two_slots(*payloads, sequence=0):
    """A file of two slots that holds one state after the other."""
    medium, layout = Memory(), slots.Layout.of(max(map(len, payloads)))
    slots.create(medium, layout, len(payloads[0]), [memoryview(payloads[0])])
    for n, payload in enumerate(payloads[1:], sequence):
        last = slots.Slot(n % 2, n % 2**32, 0, 0)
        slots.put(medium, layout, last, len(payload), [memoryview(payload)])
    return bytes(medium.data)


def parted(payload):
    """Description and buffers of a state."""
    (length,) = struct.unpack_from("<I", payload)
    return json.loads(payload[4 : 4 + length]), payload[4 + length :]


def joined(header, buffers):
    """The opposite; `header` may also be text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + buffers
