"""Markers, and the settings of drawn examples (see programs.examples)."""

import os

from hypothesis import Phase, settings

settings.register_profile("fptt", deadline=None, print_blob=True)
# for mutations.py, which only wants to know whether a test fails
settings.register_profile(
    "quick", deadline=None, database=None, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile(os.environ.get("FPTT_HYPOTHESIS", "fptt"))


def pytest_configure(config):
    config.addinivalue_line("markers", "mutations: breaks a copy of src and expects red tests")
