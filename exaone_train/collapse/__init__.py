"""WSI-specific feature collapse: how far features cluster by slide, centre and scanner instead of by tissue."""
