"""What the commands of `exaone_prep.cli` do and say; one module each."""
