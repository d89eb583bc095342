"""`python -m aurixel`: the command line, for where no script was installed."""

from aurixel.cli import main

main()
