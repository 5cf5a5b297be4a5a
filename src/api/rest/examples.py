"""Examples for the OpenAPI document: what each of its schemas looks like, and the texts that are no JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["EXAMPLES", "TEXTS"]

_ID = "456c41c8-3de5-42a6-a753-bd7e3c221515"
_RUN = "0199aa5e-2b1f-7c3d-9a51-6f0e2d4c8b17"
_KEY = "conclave.example/witness+fd586445+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
_QUESTION = "Should the city centre be closed to private cars?"
_HASH = "a59f02d263a9f8290917a7efcd3721f2a4602d830a725fc23accd9066e24917d"
_CHECKPOINT = f"conclave.example/witness\n9\npZ8C0mOp+CkJF6fvzTch8qRgLYMKcl/COszZBm4kkX0=\n\n— conclave.example/witness {'A' * 91}=\n"
_ENTRY = '{"at":"2026-11-21T21:26:08.193132Z","agents":3,"deliberation_id":"456c41c8","round":0,"type":"round.started"}'
_LIMITS = {
    "agent_timeout_s": 120.0,
    "deadline_s": 1800.0,
    "max_attempts": 2,
    "max_total_tokens": 400000,
    "max_cost_usd": 5.0,
}
_SAMPLING = {"temperature": 0.7, "max_output_tokens": 1024}
_REQUEST = {
    "question": _QUESTION,
    "answer": {"kind": "choice", "options": ["yes", "no", "weekends only"]},
    "protocol": {"kind": "poll"},
    "rule": {"kind": "plurality"},
    "agents": {"roster": "archons", "count": 3},
    "quorum": {"min_answered_fraction": 0.5},
    "limits": _LIMITS,
    "sampling": _SAMPLING,
    "metadata": {"origin": "scheduled"},
    "seed": 7,
}
_ROLL_CALL = {
    "asked": 3,
    "answered": 2,
    "abstained": 1,
    "invalid": 0,
    "timed_out": 0,
    "throttled": 0,
    "failed": 0,
    "over_budget": 0,
    "cancelled": 0,
    "halted": 0,
}
_TALLY = {"yes": 0, "no": 2, "weekends only": 0}
_OUTCOME = {
    "status": "decided",
    "decision": "no",
    "rule": "plurality",
    "tally": _TALLY,
    "margin": 2,
    "spread": None,
    "dissent": {"percentage": 0.0, "positions": []},
    "blind_tally": _TALLY,
    "changed": [],
    "effective_votes": None,
    "robustness": {"rules_agreeing": ["plurality", "threshold"], "votes_to_flip": 2},
}
_USAGE = {
    "calls": 3,
    "input_tokens": 1240,
    "output_tokens": 310,
    "cost_usd": 0.0021,
    "uncertain_tokens": 0,
    "uncertain_usd": 0.0,
}
_NOBODY: Mapping[str, Any] = {"pivotal": [], "low": None, "high": None}
_UNDIVIDED = {"entropy_bits": 0.0, "polarisation": 0.0}
_WORTH = {
    "warnings": [],
    "drop_out": [],
    "winners": [
        {"rule": "plurality", "status": "decided", "decision": "no"},
        {"rule": "threshold", "status": "decided", "decision": "no"},
    ],
    "without_one": {"agent": _NOBODY, "model": None, "persona": None},
    "movement": None,
    "division": {"blind": _UNDIVIDED, "final": _UNDIVIDED},
    "effective_votes": {"across": None, "within": None},
    "copies": [],
    "same_words": [],
    "agreement": {"shares": [1.0], "sustained": False},
}
_DELIBERATION = {
    **_REQUEST,
    "id": _ID,
    "status": "completed",
    "context": None,
    "origin": "scheduled",
    "created_at": "2026-11-21T21:26:08.191829Z",
    "started_at": "2026-11-21T21:26:08.193132Z",
    "finished_at": "2026-11-21T21:26:11.207147Z",
    "orchestrator": "openai",
    "simulated": False,
    "models": ["openai/small"],
    "reason": None,
    "cancel_requested": False,
    "roll_call": _ROLL_CALL,
    "rounds": [{"round": 0, "purpose": "answer", "kept": [], "roll_call": _ROLL_CALL, "tally": _TALLY}],
    "saved": None,
    "statement": None,
    "statements": [],
    "outcome": _OUTCOME,
    "worth": _WORTH,
    "control": None,
    "failures": [],
    "fallbacks": [],
    "usage": _USAGE,
    "witness": {"first_index": 0, "last_index": 8, "tree_size": 9, "root_hash": _HASH},
    "erased": False,
}
_OUTPUT = {
    "agent_id": "archon-1",
    "round": 0,
    "attempt": 1,
    "state": "answered",
    "content": '{"answer": "no", "confidence": 0.8, "reasoning": "Shops depend on it."}',
    "truncated": False,
    "answer": "no",
    "confidence": 0.8,
    "reasoning": "Shops depend on it.",
    "failure": None,
    "started_at": "2026-11-21T21:26:08.193771Z",
    "finished_at": "2026-11-21T21:26:11.201002Z",
    "duration_seconds": 3.007231,
    "model_asked": "openai/small",
    "model": "openai/small",
    "fell_back": False,
    "usage": {**_USAGE, "calls": 1},
    "leaf_index": 5,
    "leaf_hash": _HASH,
    "erased": False,
}
_RUN_DOCUMENT = {
    "id": _RUN,
    "kind": "pantheon",
    "status": "running",
    "started_at": "2026-11-21T21:26:08.191829Z",
    "finished_at": None,
    "arguments": {"task": "Say hello", "cycles": 1},
    "result": None,
    "reason": None,
}
_CALIBRATION = [{"from": 0.7, "to": 0.8, "count": 2, "stated": 0.8, "right": 1.0}]
_SCORED = {"questions": 4, "weight": 1.4}

EXAMPLES: Mapping[str, Any] = {
    "Alive": {"status": "ok"},
    "Bundle": {
        "version": 1,
        "checkpoint": _CHECKPOINT,
        "public_key": _KEY,
        "entries": [{"index": 0, "entry": _ENTRY, "inclusion_proof": [_HASH]}],
        "disclosures": [{"sha256": _HASH, "salt": "00112233445566778899aabbccddeeff", "text": _QUESTION}],
    },
    "ConsistencyProof": {"first": 4, "second": 9, "first_root": _HASH, "second_root": _HASH, "hashes": [_HASH]},
    "Deliberation": _DELIBERATION,
    "DeliberationPage": {"items": [{**_DELIBERATION, "worth": None, "fallbacks": None}], "next_cursor": None},
    "DeliberationRequest": _REQUEST,
    "Event": {
        "sequence": 7,
        "type": "agent.ended",
        "at": "2026-11-21T21:26:11.201002Z",
        "deliberation_id": _ID,
        "round": 0,
        "agent_id": "archon-1",
        "state": "answered",
        "attempt": 1,
    },
    "Halt": {
        "halted": True,
        "reason": "Costs look wrong.",
        "since": "2026-11-21T21:26:08.191829Z",
        "channels": {"database": {"halted": True, "reachable": True}, "file": {"halted": True, "reachable": True}},
    },
    "HaltReason": {"reason": "Costs look wrong."},
    "InclusionProof": {"index": 5, "tree_size": 9, "leaf_hash": _HASH, "root_hash": _HASH, "hashes": [_HASH]},
    "LogEntry": {"index": 2, "leaf_hash": _HASH, "entry": _ENTRY},
    "Output": _OUTPUT,
    "OutputPage": {"items": [_OUTPUT], "next_cursor": None},
    "Pool": {"capacity": 72, "active": 3, "available": 69, "waiting": 0},
    "Problem": {
        "type": "urn:conclave:problem:invalid-specification",
        "title": "The deliberation cannot be run as described",
        "status": 422,
        "detail": "1 field cannot be accepted.",
        "errors": [{"pointer": "/answer/options", "detail": "has 1 option, 2 to 50 are taken"}],
    },
    "Quote": {
        "calls": {"expected": 3, "at_most": 6},
        "tokens": {"expected": 1550, "at_most": 400000},
        "cost_usd": {"expected": 0.0021, "at_most": 5.0},
        "notices": [],
    },
    "Readiness": {
        "status": "ready",
        "halted": False,
        "dependencies": {"database": {"works": True, "detail": ""}},
    },
    "Recount": {
        "deliberation_id": _ID,
        "rule": {"kind": "threshold", "fraction": 0.5},
        "outcome": _OUTCOME,
        "leaf_index": 9,
    },
    "RecountRequest": {"rule": {"kind": "threshold", "fraction": 0.5}},
    "Resolution": {
        "deliberation_id": _ID,
        "answer": "no",
        "brier": 0.04,
        "correct": True,
        "error": None,
        "agents": [{"agent_id": "archon-1", "score": 0.04, **_SCORED}],
        "models": [{"model": "openai/small", "score": 0.04, "answers": 2, **_SCORED}],
        "calibration": _CALIBRATION,
        "leaf_index": 10,
    },
    "ResolutionRequest": {"answer": "no"},
    "Roster": {
        "name": "archons",
        "description": "Viewpoints of 72 professions.",
        "agents": [{"id": "archon-1", "name": "Baker", "persona": "You bake bread.", "model": None}],
    },
    "RosterPage": {
        "items": [{"name": "archons", "description": "Viewpoints of 72 professions.", "count": 72}],
        "next_cursor": None,
    },
    "Run": _RUN_DOCUMENT,
    "RunEvent": {"sequence": 1, "type": "run.started", "at": "2026-11-21T21:26:08.191829Z", "run_id": _RUN},
    "RunPage": {"items": [_RUN_DOCUMENT], "next_cursor": None},
    "RunRequest": {"kind": "pantheon", "arguments": {"task": "Say hello", "cycles": 1}},
    "TrackRecord": {
        "questions": 4,
        "agents": [{"name": "archon-1", "score": 0.1, "skill": 0.6, **_SCORED}],
        "models": [],
        "calibration": _CALIBRATION,
    },
    "UsagePage": {"items": [{"key": "2026-11-21", **_USAGE}]},
    "WebhookDelivery": {
        "type": "deliberation.completed",
        "at": "2026-11-21T21:26:11.207147Z",
        "deliberation_id": _ID,
        "deliberation": _DELIBERATION,
    },
    "WebhookKeys": {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
                "use": "sig",
            }
        ]
    },
}
"""One of each schema that stands for itself, by its name."""

_EVENTS = (
    "retry: 1000\n\n"
    "id: 1\nevent: {kind}.{first}\n"
    'data: {{"sequence":1,"type":"{kind}.{first}","at":"2026-11-21T21:26:08.191829Z","{kind}_id":"{id}"}}\n\n'
    ": ping\n\n"
    "id: 2\nevent: {kind}.completed\n"
    'data: {{"sequence":2,"type":"{kind}.completed","at":"2026-11-21T21:26:11.207147Z","{kind}_id":"{id}"}}\n\n'
)

TEXTS: Mapping[str, str] = {
    "getCheckpoint": _CHECKPOINT,
    "getMetrics": "# TYPE conclave_pool_active_agents gauge\nconclave_pool_active_agents 3.0\n",
    "getMinutes": f"# Minutes of deliberation {_ID}\n",
    "getReport": "<!doctype html>\n<html lang=en>...</html>\n",
    "streamEvents": _EVENTS.format(kind="deliberation", first="queued", id=_ID),
    "streamRunEvents": _EVENTS.format(kind="run", first="started", id=_RUN),
}
"""What the operations of these names answer that answer text."""
