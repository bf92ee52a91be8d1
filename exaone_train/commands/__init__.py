"""One module per command that does more than call one function."""
