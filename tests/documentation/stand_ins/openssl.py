"""What the pages ask of openssl, for machines that have none: random hexadecimal digits."""

from __future__ import annotations

import argparse
import secrets
import sys


def parser() -> argparse.ArgumentParser:
    """What is known here."""
    found = argparse.ArgumentParser(prog="openssl", allow_abbrev=False)
    found.add_argument("command", choices=["rand"])
    found.add_argument("-hex", action="store_true", required=True)
    found.add_argument("count", type=int)
    return found


if __name__ == "__main__":
    sys.stdout.write(secrets.token_hex(parser().parse_args().count) + "\n")
