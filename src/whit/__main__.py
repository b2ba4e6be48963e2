"""`python -m whit` is `whit`."""

from whit.cli import main

main()
