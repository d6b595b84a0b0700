"""`python -m vggnet` and `torchrun -m vggnet`: the command line."""

from vggnet.cli import main

if __name__ == "__main__":
    main()
