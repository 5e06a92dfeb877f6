"""Timing round robin, on clocks that do not tick by themselves."""

import gc

import pytest

from fptt.bench import timing
from fptt.bench.timing import Timing, interleaved


class World:
    """A clock, and functions that move it: each call takes the next of the given seconds."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def clock(self):
        return self.now

    def takes(self, name, *seconds):
        left = list(seconds)

        def function():
            assert not gc.isenabled()
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return function


def test_median_and_quartiles_without_the_warm_up():
    world = World()
    # two calls to warm up, which do not count, and five rounds
    function = world.takes("a", 100, 50, 5, 1, 4, 2, 3)
    times = interleaved({"a": function}, rounds=5, clock=world.clock)
    assert times == {"a": Timing(median=3, low=2, high=4, rounds=5, calls=1)}


def test_round_robin():
    world = World()
    functions = {"a": world.takes("a", 1), "b": world.takes("b", 2)}
    times = interleaved(functions, rounds=3, clock=world.clock)
    assert "".join(world.calls) == "aabb" + "ab" * 3
    assert (times["a"].median, times["b"].median) == (1, 2)


def test_short_functions_are_called_more_often():
    world = World()
    functions = {"short": world.takes("s", 9, 0.25), "long": world.takes("L", 9, 3)}
    times = interleaved(functions, rounds=2, min_s=1, clock=world.clock)
    assert times["short"] == Timing(0.25, 0.25, 0.25, rounds=2, calls=4)
    assert times["long"] == Timing(3, 3, 3, rounds=2, calls=1)
    assert "".join(world.calls) == "s" + "ssss" + "LL" + "ssssL" * 2


@pytest.mark.parametrize(("most_s", "rounds"), [(0, 3), (3, 3), (4.5, 5), (100, 9)])
def test_no_round_begins_late(most_s, rounds):
    times = interleaved({"a": (world := World()).takes("a", 1)}, 9, 0, most_s, world.clock)
    assert times["a"].rounds == rounds


def test_settling_takes_no_time():
    world = World()

    def settle():
        world.calls.append("-")
        world.now += 100

    functions = {"a": world.takes("a", 1), "b": world.takes("b", 2)}
    times = interleaved(functions, rounds=2, clock=world.clock, settle=settle)
    assert "".join(world.calls) == "aabb" + "-a-b" * 2
    assert (times["a"].median, times["b"].median) == (1, 2)


@pytest.mark.parametrize(("work", "glances"), [([], 1), ([0.5], 2), ([0.5] * 3, 4)])
def test_waiting_until_idle(monkeypatch, work, glances):
    slept, left, worked = [], list(work), [0.0]

    def sleep(seconds):
        slept.append(seconds)
        worked[0] += left.pop() if left else 0

    monkeypatch.setattr(timing.time, "sleep", sleep)
    monkeypatch.setattr(timing.time, "process_time", lambda: worked[0])
    timing.until_idle(most_s=60)
    assert len(slept) == glances
    slept.clear()
    timing.until_idle(most_s=0)
    assert not slept


def test_one_round():
    world = World()
    times = interleaved({"a": world.takes("a", 2)}, rounds=1, clock=world.clock)
    assert times["a"] == Timing(2, 2, 2, rounds=1, calls=1)


@pytest.mark.parametrize("on", [True, False])
def test_garbage_collection_is_left_as_it_was(on):
    def fails():
        raise RuntimeError("broken")

    was = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        interleaved({"a": lambda: None}, rounds=1)
        assert gc.isenabled() is on
        with pytest.raises(RuntimeError, match="broken"):
            interleaved({"a": fails}, rounds=1)
        assert gc.isenabled() is on
    finally:
        (gc.enable if was else gc.disable)()


@pytest.mark.parametrize(("functions", "rounds"), [({}, 1), ({"a": int}, 0)])
def test_nothing_to_time(functions, rounds):
    with pytest.raises(ValueError, match="give some"):
        interleaved(functions, rounds=rounds)
