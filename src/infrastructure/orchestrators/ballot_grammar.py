"""Writes the schema of a ballot as a GBNF grammar of one line, for llama.cpp.

llama.cpp makes a grammar of a JSON schema by itself, but one that allows line ends and indentation between any two tokens: a small
model then writes blanks until it is cut off. Grammar: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import permutations
from typing import Any

__all__ = ["ballot_grammar"]

_LEAST_REASON = 8
_MOST_PERMUTED = 4
_NUMBER = '"-"? [0-9]{1,12} ("." [0-9]{1,4})?'
# What stands in a JSON string without an escape, so that no string can end in the midst of one.
_CHARACTER = r'[^"\\\x00-\x1F\x7F]'
_DEFAULT_LENGTH = 2000


def ballot_grammar(schema: Mapping[str, Any]) -> str:
    """The grammar of the objects that `ballot_schema` describes, on one line, with one blank where people write one."""
    members = []
    for name, wanted in schema["properties"].items():
        least = _LEAST_REASON if name == "reasoning" else 1
        members.append(f"{_literal(json.dumps(name) + ': ')} {_alternatives(wanted, least)}")
    separated = f" {_literal(', ')} ".join(members)
    return f"root ::= {_literal('{')} {separated} {_literal('}')}\n"


def _alternatives(wanted: Mapping[str, Any], least: int) -> str:
    if "enum" in wanted:
        return "(" + " | ".join(_literal(json.dumps(value, ensure_ascii=False)) for value in wanted["enum"]) + ")"
    kinds = wanted["type"] if isinstance(wanted["type"], list) else [wanted["type"]]
    found = [_one(kind, wanted, least) for kind in kinds]
    return "(" + " | ".join(found) + ")"


def _one(kind: str, wanted: Mapping[str, Any], least: int) -> str:
    if kind == "null":
        return _literal("null")
    if kind == "number":
        return f"({_NUMBER})"
    if kind == "string":
        most = max(least, wanted.get("maxLength", _DEFAULT_LENGTH))
        return rf'"\"" {_CHARACTER}{{{least},{most}}} "\""'
    return _array(wanted)


def _array(wanted: Mapping[str, Any]) -> str:
    options = [json.dumps(option, ensure_ascii=False) for option in wanted["items"]["enum"]]
    if wanted.get("minItems") and len(options) <= _MOST_PERMUTED:
        # A whole ranking, so that no option can be named twice.
        return "(" + " | ".join(_literal(f"[{', '.join(order)}]") for order in permutations(options)) + ")"
    one = "(" + " | ".join(_literal(option) for option in options) + ")"
    some = f"{_literal('[')} {one} ({_literal(', ')} {one}){{0,{len(options) - 1}}} {_literal(']')}"
    return some if wanted.get("minItems") else f"({some} | {_literal('[]')})"


def _literal(text: str) -> str:
    escaped = "".join(
        f"\\{character}" if character in '"\\' else character if character.isprintable() else f"\\U{ord(character):08X}"
        for character in text
    )
    return f'"{escaped}"'
