"""Prefect flows around `exaone_prep.build`: scheduling and visibility, nothing a core function could hold."""
