"""The mutations of the C sources still fit them; `python tests/mutations_c.py` runs them."""

from mutations_c import EQUIVALENT, FUSED_MUTATIONS, MUTATIONS, mutated
from other_engine import ROOT, sources


def test_every_mutation_changes_one_place():
    for name, old, new in MUTATIONS + FUSED_MUTATIONS:
        (path,) = sources(ROOT, [name])
        assert mutated(path.read_text(), old, new) != path.read_text(), old


def test_what_changes_nothing_is_in_the_table():
    assert {old for _, old, _ in MUTATIONS} >= EQUIVALENT
