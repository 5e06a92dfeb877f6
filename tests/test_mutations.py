"""Every mutation turns the tests that it names red; see mutations.py."""

import re
from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation, Server, StaleMutation, all_tests, mutated_copy

pytestmark = pytest.mark.mutations


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


def test_without_mutation_the_tests_pass(server):
    code, output = server.try_mutation(None, all_tests())
    assert code == 0, output


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_mutation(server, mutation):
    code, output = server.try_mutation(mutation)
    assert code == 1, output
    assert re.search(r"^(FAILED|[1-9]\d* failed)", output, re.MULTILINE), output


def test_names_are_unique():
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize(("old", "times"), [("no such text", 0), ("Array", None)])
def test_an_edit_that_does_not_fit_is_refused(tmp_path, old, times):
    stale = Mutation("stale", (("program/opset/cells.py", old, ""),), ())
    source = Path(__file__).parent.parent / "src/fptt/program/opset/cells.py"
    times = source.read_text().count(old) if times is None else times
    assert times != 1
    message = (
        f"stale: {old!r} stands {times} times in program/opset/cells.py; it must stand there once"
    )
    with pytest.raises(StaleMutation, match=f"^{re.escape(message)}$"):
        mutated_copy(stale, tmp_path)


def test_a_run_that_imports_another_copy_is_noticed(server, tmp_path):
    """An empty copy: the tests cannot import it, so nothing was tested."""
    (tmp_path / "src" / "fptt").mkdir(parents=True)
    code, _ = server.run(tmp_path / "src", ("test_dropout.py",))
    assert code not in (0, 1)
