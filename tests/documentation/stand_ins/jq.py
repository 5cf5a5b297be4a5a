"""What the pages ask of jq, for machines that have none: a path such as `.items[0].id`, in one document or many."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_STEP = re.compile(r"\.(\w+)|\[(\d*)\]")


def parser() -> argparse.ArgumentParser:
    """The options that are known here."""
    found = argparse.ArgumentParser(prog="jq", allow_abbrev=False)
    found.add_argument("-r", "--raw-output", action="store_true")
    found.add_argument("-c", "--compact-output", action="store_true")
    found.add_argument("path", type=checked_path)
    found.add_argument("file", nargs="?")
    return found


def checked_path(path: str) -> str:
    """The path, when it is one."""
    if path != "." and _STEP.sub("", path):
        raise argparse.ArgumentTypeError(f"{path!r} is no path such as .items[0].id")
    return path


def select(document: Any, path: str) -> Iterator[Any]:
    """What lies at the end of the path; `[]` goes through a list."""
    found = [document]
    for name, index in _STEP.findall(path):
        if name:
            found = [None if each is None else each.get(name) for each in found]
        elif index:
            found = [None if each is None else each[int(index)] for each in found]
        else:
            found = [inner for each in found for inner in each]
    yield from found


def main() -> None:
    """Print what the path finds in every document of the input."""
    given = parser().parse_args()
    text = Path(given.file).read_text(encoding="utf-8") if given.file else sys.stdin.read()
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        at += len(text[at:]) - len(text[at:].lstrip())
        document, at = decoder.raw_decode(text, at)
        for found in select(document, given.path):
            if given.raw_output and isinstance(found, str):
                line = found
            else:
                spaces = {"separators": (",", ":")} if given.compact_output else {"indent": 2}
                line = json.dumps(found, ensure_ascii=False, **spaces)
            sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
