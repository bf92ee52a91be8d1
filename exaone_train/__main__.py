"""`python -m exaone_train`, and so `torchrun -m exaone_train`."""

from exaone_train.cli import main

if __name__ == "__main__":
    main()
