"""`python -m hasten.cli`: the command line without the installed script."""

from hasten.cli import main

main()
