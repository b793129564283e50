"""`python -m swarmnode`: the same as the `swarmnode` program."""

from swarmnode.cli import main

main()
