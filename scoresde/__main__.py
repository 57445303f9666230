"""``python -m scoresde`` is ``scoresde``."""

from scoresde.cli import main

if __name__ == "__main__":
    main(prog_name="scoresde")
