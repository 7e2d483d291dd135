"""``python -m gridtally``."""

from gridtally.cli import main

main()
