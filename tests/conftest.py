"""Markers, and the settings of drawn examples (see programs.examples)."""

import os

import pytest
from hypothesis import Phase, settings

settings.register_profile("fptt", deadline=None, print_blob=True)
# for mutations.py, which only wants to know whether a test fails, and every time the same
settings.register_profile(
    "quick",
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile(os.environ.get("FPTT_HYPOTHESIS", "fptt"))


def pytest_configure(config):
    config.addinivalue_line("markers", "mutations: breaks a copy of src and expects red tests")


@pytest.fixture(params=["native", "reference"])
def each_backend(request, monkeypatch):
    """Runs a test on either back end: whatever trainer is made in it, except in float64."""
    import fptt.trainer  # not before mutations.py has chosen the copy

    make = fptt.trainer.make_backend

    def chosen(choice, program, threads=1):
        if "float64" in (program.dtype, program.activation_dtype):
            return make(choice, program, threads)
        return make(request.param, program, threads)

    monkeypatch.setattr(fptt.trainer, "make_backend", chosen)
