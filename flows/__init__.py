"""Prefect flows: they call the functions of `exaone_prep`, show how it goes, and repeat nothing."""

import os

from exaone_prep.budget import calm_libraries

# Before anything imports NumPy: a flow run is a process of its own, whose parallelism comes from its workers.
calm_libraries(os.environ)
