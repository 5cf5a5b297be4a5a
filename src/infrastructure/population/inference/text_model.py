"""The adapter `openai`: rows of features told to a language model in words, whose answer is the opinion that it would hold."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from application.ports.inference import FULL_PULL, NO_PULL, Table
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from domain.models.run import JsonValue
from infrastructure.population.inference.answer_cache import keys_of
from infrastructure.population.inference.features import LEVELS
from infrastructure.population.thinking.answer_record import AnswerRecord
from infrastructure.population.thinking.reply import Reply
from infrastructure.population.thinking.talk import Talk, Voice, together

__all__ = ["TextModel"]

_BY = "inference"
_HALF = LEVELS // 2
_SHARE = 32


class TextModel:
    """See `InferenceModel`. No two calls for the same features in one population: what was answered once holds from then on.

    What failed may be asked again in a later tick. Everything is recorded as it comes, and taken from the record after a resume.
    """

    name = "openai"

    def __init__(self, talk: Talk, record: AnswerRecord, *, topic: str, seed: int, deadline_s: float) -> None:
        """A batch ends after `deadline_s` seconds at the latest. `talk` and `record` are closed with it."""
        self._talk = talk
        self._record = record
        self._topic = topic
        self._seed = seed
        self._deadline_s = deadline_s
        self._outcomes: Counter[AgentState] = Counter()
        self._usage = Usage()
        self._waited_s = 0.0
        # After which tick an answer is known.
        self._answers: dict[int, tuple[int, float]] = {}
        for reply in record.found(_BY):
            self._learn(reply, after=reply.tick)

    def infer(self, features: Table, *, tick: int) -> Table:
        """See `InferenceModel`."""
        rows: NDArray[np.int8] = np.asarray(features)
        keys = [int(key) for key in keys_of(rows)]
        began = time.perf_counter()
        opinions = dict(zip(keys, self._talk.run(self._opinions(keys, rows, tick)), strict=True))
        self._waited_s += time.perf_counter() - began
        pulls = np.full(len(rows), NO_PULL, np.int16)
        for place, key in enumerate(keys):
            if (opinion := opinions[key]) is not None:
                own = (int(rows[place, 0]) + _HALF) / LEVELS
                pulls[place] = round((opinion - own) * FULL_PULL)
        return pulls.data

    def document(self) -> dict[str, JsonValue]:
        """See `InferenceModel`."""
        return {
            "outcomes": {state.value: count for state, count in sorted(self._outcomes.items())},
            "calls": self._usage.calls,
            "input_tokens": self._usage.input_tokens,
            "output_tokens": self._usage.output_tokens,
            "cost_usd": self._usage.cost_usd,
            "waited_s": self._waited_s,
        }

    def close(self) -> None:
        """See `InferenceModel`."""
        self._talk.close()
        self._record.close()

    async def _opinions(self, keys: list[int], rows: NDArray[np.int8], tick: int) -> list[float | None]:
        until = asyncio.get_running_loop().time() + self._deadline_s
        return await together(self._opinion(key, row, tick, until) for key, row in zip(keys, rows, strict=True))

    async def _opinion(self, key: int, row: NDArray[np.int8], tick: int, until: float) -> float | None:
        known = self._answers.get(key)
        if known is not None and known[0] < tick:
            return known[1]
        reply = self._record.take(_BY, tick, key)
        if reply is None:
            voice = Voice(_BY, tick, key, self._topic, _persona(row), self._seed)
            reply = await self._talk.ask(voice, until=until, sending=self._sending)
            self._record.add(reply)
        self._outcomes[reply.outcome] += 1
        if reply.usage is not None:
            self._usage += reply.usage
        self._learn(reply, after=tick - 1)
        return reply.opinion

    def _sending(self, voice: Voice) -> None:
        self._record.asking(voice.by, voice.tick, voice.who)

    def _learn(self, reply: Reply, *, after: int) -> None:
        if reply.opinion is not None:
            self._answers[reply.who] = (after, reply.opinion)


def _persona(row: NDArray[np.int8]) -> str:
    """Only what stands in the features, so that the same features are the same words."""
    opinion, heard, _, change, susceptibility, bound, activity, kind = (int(number) for number in row)
    told = [
        f"Your own opinion is {(opinion + _HALF) / LEVELS:.2f}. Somebody you know just told you theirs: {(heard + _HALF) / LEVELS:.2f}.",
        f"You gave way by {change / LEVELS:+.2f} a moment ago.",
        f"You are moved by others {susceptibility / _SHARE:.2f} of the way, heed who is at most {bound / _SHARE:.2f} away, and speak "
        f"{activity / _SHARE:.2f} of the time.",
    ]
    if kind:
        told.append(f"You belong to community {kind}.")
    return " ".join(told)
