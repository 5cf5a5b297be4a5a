"""What the pages ask of the sqlite3 program, for machines that have none: `.backup`, and one statement."""

from __future__ import annotations

import argparse
import re
import sqlite3
import sys
from contextlib import closing


def parser() -> argparse.ArgumentParser:
    """What is known here."""
    found = argparse.ArgumentParser(prog="sqlite3", allow_abbrev=False)
    found.add_argument("file")
    found.add_argument("statement")
    return found


def main() -> None:
    """Do it."""
    given = parser().parse_args()
    with closing(sqlite3.connect(given.file)) as database:
        if copy := re.fullmatch(r"\.backup '(.+)'", given.statement):
            with closing(sqlite3.connect(copy[1])) as other:
                database.backup(other)
            return
        for row in database.execute(given.statement):
            sys.stdout.write("|".join("" if value is None else str(value) for value in row) + "\n")


if __name__ == "__main__":
    main()
