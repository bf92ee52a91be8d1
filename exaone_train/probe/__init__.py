"""Linear evaluation of a frozen encoder on the six patch-level tasks of EXAONEPath."""
