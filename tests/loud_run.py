"""A run that does nothing but complain, as a program: three megabytes of numbered lines on standard error."""

from __future__ import annotations

import sys

__all__: list[str] = []

if __name__ == "__main__":
    sys.stdin.read()
    for number in range(50_000):
        sys.stderr.write(f"line {number}: {'x' * 50}\n")
