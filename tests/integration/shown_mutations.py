"""Changes of what is shown of deliberations: their specifications, standing, results and records."""

import json
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from tests.integration.log_mutations import flipped
from tests.integration.stored_logs import COLUMNS, Mutation, Row, Stored

__all__ = ["BENEATH", "OF_DELIBERATIONS", "SHOWN"]


def _at(table: str, column: str) -> int:
    return COLUMNS[table].split(", ").index(column)


_SPECIFIED = (
    "question text",
    "question context",
    "question answer kind",
    "question answer options 0",
    "question answer options 2",
    "rule kind",
    "rule fraction",
    "protocol wave_size",
    "quorum min_answered_fraction",
    "limits agent_timeout_s",
    "limits deadline_s",
    "limits max_attempts",
    "limits max_total_tokens",
    "limits max_cost_usd",
    "sampling temperature",
    "sampling max_output_tokens",
    "metadata origin",
    "seed",
)
_ROSTER = ("name", "agents 0 id", "agents 1 persona text", "agents 2 model")
_CAME_TO = (
    "roll_call answered",
    "roll_call timed_out",
    "rounds 0 number",
    "rounds 0 tally yes",
    "rounds 0 agents 0",
    "outcome status",
    "outcome rule",
    "outcome decision",
    "outcome tally yes",
    "outcome tally no",
    "outcome margin",
    "outcome dissent percentage",
    "outcome dissent positions 0 answer",
    "outcome dissent positions 0 agents 0",
    "outcome dissent positions 0 reasons 0",
    "outcome blind_tally yes",
    "outcome effective_votes",
    "outcome rules_agreeing 0",
    "outcome votes_to_flip",
    "failures 0 agent_id",
    "failures 0 state",
    "failures 0 attempts",
    "failures 0 failure kind",
    "failures 0 failure message",
    "failures 0 duration_seconds",
    "usage calls",
    "usage input_tokens",
    "usage cost_usd",
    "models 0",
    "reason",
)
_STANDING = (
    "status",
    "created_at",
    "started_at",
    "finished_at",
    "orchestrator",
    "simulated",
    "result",
    "first_index",
    "last_index",
    "tree_size",
    "root_hash",
)
_NEEDED = ("status", "created_at", "orchestrator")
_RECORDED = (
    "round_number",
    "agent_id",
    "state",
    "attempts",
    "started_at",
    "finished_at",
    "content",
    "answer",
    "confidence",
    "reasoning",
    "failure_kind",
    "failure_message",
    "model_asked",
    "model",
    "calls",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "truncated",
    "duration_seconds",
    "leaf_index",
    "salts",
)
_WORDS = (
    "queued",
    "running",
    "completed",
    "inquorate",
    "failed",
    "answered",
    "abstained",
    "throttled",
    "forged",
    '"no"',
)


def _other(value: Any, draw: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + draw.choice((1, -1, 1_000))
    if isinstance(value, bytes):
        return flipped(value, draw)
    if isinstance(value, datetime):
        return value + timedelta(seconds=1)
    if isinstance(value, str) and value.endswith("Z") and value[:4].isdecimal():
        return value.replace(":00:", ":01:")
    return draw.choice([each for each in _WORDS if each != value])


def _opposite(value: Any) -> Any:
    """The other truth value. SQLite has numbers for them, of which every one but 0 reads as true."""
    return type(value)(not value)


def _forge_within(rows: Sequence[Row], column: int, paths: Sequence[str], draw: random.Random) -> None:
    """Change one value within a document, in a row that has such a value."""
    while True:
        steps: list[Any] = [int(step) if step.isdecimal() else step for step in draw.choice(paths).split()]
        row = draw.choice(rows)
        document = inner = json.loads(row[column] or "null")
        try:
            for step in steps[:-1]:
                inner = inner[step]
            value = inner[steps[-1]]
        except (LookupError, TypeError):
            continue
        if value is not None:
            break
    inner[steps[-1]] = _other(value, draw)
    row[column] = json.dumps(document)


def _forge_specification(log: Stored, draw: random.Random) -> None:
    _forge_within(log.specifications, _at("specifications", "specification"), _SPECIFIED, draw)


def _forge_roster(log: Stored, draw: random.Random) -> None:
    _forge_within(log.specifications, _at("specifications", "roster"), _ROSTER, draw)


def _forge_result(log: Stored, draw: random.Random) -> None:
    _forge_within(log.deliberations, _at("deliberations", "result"), _CAME_TO, draw)


def _forge_standing(log: Stored, draw: random.Random) -> None:
    name = draw.choice(_STANDING)
    column = _at("deliberations", name)
    row = draw.choice([each for each in log.deliberations if each[column] is not None])
    if name == "simulated":
        row[column] = _opposite(row[column])
    elif name in _NEEDED:
        row[column] = _other(row[column], draw)
    else:
        row[column] = draw.choice((None, _other(row[column], draw)))


def _forge_key_name(log: Stored, draw: random.Random) -> None:
    erased = {row[0] for row in log.erasures}
    row = draw.choice([each for each in log.deliberations if each[0] not in erased])
    row[_at("deliberations", "key_name")] = "yours"


def _forge_salts(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.specifications)
    salts = row[_at("specifications", "salts")]
    # Of the question, which everyone has: a salt of no text belongs to nothing.
    row[_at("specifications", "salts")] = (
        bytes(16) if salts is None else draw.choice((None, flipped(salts[:16], draw) + salts[16:]))
    )


def _forge_record(log: Stored, draw: random.Random) -> None:
    column = _at("agent_records", draw.choice(_RECORDED))
    row = draw.choice([each for each in log.agent_records if each[column] is not None])
    if column != _at("agent_records", "salts"):
        is_flag = column == _at("agent_records", "truncated")
        row[column] = _opposite(row[column]) if is_flag else _other(row[column], draw)
        return
    # Of the content or else of the message: a salt of no text belongs to nothing.
    start = 32 if row[_at("agent_records", "content")] is None else 0
    salts = row[column]
    row[column] = salts[:start] + flipped(salts[start : start + 16], draw) + salts[start + 16 :]


def _delete_record(log: Stored, draw: random.Random) -> None:
    del log.agent_records[draw.randrange(len(log.agent_records))]


def _swap_records(log: Stored, draw: random.Random) -> None:
    own = draw.choice(log.agent_records)[0]
    one, other = draw.sample([row for row in log.agent_records if row[0] == own], 2)
    place = _at("agent_records", "ordinal")
    one[place], other[place] = other[place], one[place]


def _reveal_erased(log: Stored, draw: random.Random) -> None:
    """Put words into a mouth of which the log says that they are gone."""
    erased = {row[0] for row in log.erasures}
    row = draw.choice([each for each in log.agent_records if each[0] in erased])
    row[_at("agent_records", draw.choice(("content", "reasoning")))] = "forged"


def _hide_as_erased(log: Stored, draw: random.Random) -> None:
    """Take the salts away, as if the texts had been erased, and put others in their place."""
    erased = {row[0] for row in log.erasures}
    row = draw.choice([each for each in log.agent_records if each[0] not in erased])
    row[_at("agent_records", "salts")], row[_at("agent_records", "content")] = None, "forged"


def _delete_deliberation(log: Stored, draw: random.Random) -> None:
    own = draw.choice(log.deliberations)[0]
    for table in ("deliberations", "specifications", "agent_records"):
        rows = getattr(log, table)
        rows[:] = [row for row in rows if row[0] != own]


def _delete_specification(log: Stored, draw: random.Random) -> None:
    del log.specifications[draw.randrange(len(log.specifications))]


def _insert_deliberation(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.deliberations)
    specification = next(each for each in log.specifications if each[0] == row[0])
    log.deliberations.append(["forged", 99, *row[2:]])
    log.specifications.append(["forged", *specification[1:]])


def _swap_positions(log: Stored, draw: random.Random) -> None:
    one, other = draw.sample(log.deliberations, 2)
    one[1], other[1] = other[1], one[1]


# A deliberation itself differs, alone and in lists.
SHOWN: Sequence[Mutation] = (
    _forge_specification,
    _forge_roster,
    _forge_result,
    _forge_standing,
    _forge_key_name,
    _forge_salts,
)
# What it is made of differs, so it is no longer shown; a list that was compared before shows what was recorded.
BENEATH: Sequence[Mutation] = (_forge_record, _delete_record, _swap_records, _reveal_erased, _hide_as_erased)


OF_DELIBERATIONS: Sequence[Mutation] = (
    _delete_deliberation,
    _delete_specification,
    _insert_deliberation,
    _swap_positions,
)
