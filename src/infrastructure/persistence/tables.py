"""The tables that deliberations and their record are stored in, the same on SQLite and Postgres.

Rows of the log (`witness_entries`, `witness_nodes`, `witness_checkpoints`, `erasures`) and of the ledger (`calls`, `charges`) are only ever
inserted, and the database holds everybody to it; those of `agent_records` too, but that the texts of an erased deliberation become
null. Documents are JSON kept as text, because Postgres' own JSON types refuse NUL escapes or forget the order of names, and a tally
has an order.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    DDL,
    TIMESTAMP,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    event,
)
from sqlalchemy.types import TypeEngine

from infrastructure.persistence.append_only import guard
from infrastructure.persistence.documents import time_from_text, time_to_text

__all__ = [
    "Moment",
    "agent_records",
    "calls",
    "catalogue",
    "charges",
    "deliberations",
    "disclosures",
    "erasures",
    "halt_state",
    "idempotency_keys",
    "metadata",
    "resolutions",
    "specifications",
    "spending",
    "topics",
    "webhook_cursors",
    "webhook_deliveries",
    "witness_checkpoints",
    "witness_entries",
    "witness_head",
    "witness_nodes",
]


class Moment(TypeDecorator[datetime]):
    """A moment, exact to the microsecond and always UTC: `timestamptz` on Postgres, RFC 3339 text on SQLite."""

    impl = String(27)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The type that this database stores a moment in."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(String(27))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """What is handed to the driver. Raises `ValueError` for a moment without a zone."""
        if value is None:
            return None
        text = time_to_text(value)
        return value if dialect.name == "postgresql" else text

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """The moment that was stored, in UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if dialect.name == "postgresql" else time_from_text(value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

deliberations = Table(
    "deliberations",
    metadata,
    Column("id", String(36), primary_key=True),
    # Counts up in the order of acceptance: what pages are cut by.
    Column("position", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("key_name", Text),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("orchestrator", Text, nullable=False),
    Column("simulated", Boolean, nullable=False),
    # Roll calls, tallies, outcome, failures, usage, models and reason; null until it ended.
    Column("result", Text),
    Column("cancel_requested", Boolean, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Moment),
    # Where its entries stand, and the log (size, root in hex) at the moment of its end.
    Column("first_index", BigInteger),
    Column("last_index", BigInteger),
    Column("tree_size", BigInteger),
    Column("root_hash", String(64)),
    Index(None, "position", unique=True),
    Index(None, "status", "position"),
    Index(None, "key_name", "position"),
    # In the order of their ends: what webhooks are told of is read on from here.
    Index(None, "last_index"),
)

# Apart from the deliberation, whose row is rewritten at every renewal of its lease while these, often long, never change.
specifications = Table(
    "specifications",
    metadata,
    Column("deliberation_id", String(36), ForeignKey("deliberations.id"), primary_key=True),
    Column("specification", Text, nullable=False),
    Column("roster", Text, nullable=False),
    # Of question, context, key name and personas, 16 bytes each; null once they are erased.
    Column("salts", LargeBinary),
)

agent_records = Table(
    "agent_records",
    metadata,
    Column("deliberation_id", String(36), ForeignKey("deliberations.id"), primary_key=True),
    Column("round_number", Integer, primary_key=True, autoincrement=False),
    Column("agent_id", Text, primary_key=True),
    # Counts up from 1 in each deliberation, in the order of commit.
    Column("ordinal", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment, nullable=False),
    Column("content", Text),
    Column("answer", Text),
    Column("confidence", Double),
    Column("reasoning", Text),
    Column("failure_kind", Text),
    Column("failure_message", Text),
    Column("model_asked", Text),
    Column("model", Text),
    Column("calls", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("truncated", Boolean, nullable=False),
    Column("duration_seconds", Double, nullable=False),
    Column("leaf_index", BigInteger, nullable=False),
    # Of content, reasoning, message and answer, 16 bytes each; null once they are erased.
    Column("salts", LargeBinary),
    # What calls may have taken at most whose end nobody knows.
    Column("uncertain_tokens", BigInteger, nullable=False),
    Column("uncertain_usd", Double, nullable=False),
    # Whether another model of its route ended it than the first.
    Column("fell_back", Boolean, nullable=False),
)

# One row, which holds what an append needs: how many entries there are, and the roots of the perfect subtrees of the log,
# largest first, 32 bytes each. It is locked for the length of an append, so nobody can fork the log.
witness_head = Table(
    "witness_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("tree_size", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
)

# The record, of which the events are read too: `sequence` is the number of the last event that this entry or an earlier one of
# its deliberation makes.
witness_entries = Table(
    "witness_entries",
    metadata,
    Column("idx", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("deliberation_id", String(36)),
    Column("sequence", Integer),
    Column("entry", LargeBinary, nullable=False),
    Index(None, "deliberation_id", "sequence"),
)

# Hashes of the perfect subtrees of 256, 65,536 ... entries: tile level 1, 2 ... of C2SP tlog-tiles.
witness_nodes = Table(
    "witness_nodes",
    metadata,
    Column("tile_level", Integer, primary_key=True, autoincrement=False),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

witness_checkpoints = Table(
    "witness_checkpoints",
    metadata,
    Column("tree_size", BigInteger, primary_key=True, autoincrement=False),
    Column("note", Text, nullable=False),
    sqlite_with_rowid=False,
)

# Texts of entries that are no part of a deliberation's work: the reasons of erasures and the like.
disclosures = Table(
    "disclosures",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("deliberation_id", String(36)),
    Column("salt", LargeBinary, nullable=False),
    Column("text", Text, nullable=False),
    Index(None, "deliberation_id"),
)

# Deliberations whose texts may be removed, because an entry says so.
erasures = Table(
    "erasures",
    metadata,
    Column("deliberation_id", String(36), ForeignKey("deliberations.id"), primary_key=True),
    Column("idx", BigInteger, nullable=False),
)

# The entries that say how a question turned out, of which the last stands: what learned weights are made of. The truth is in them.
resolutions = Table(
    "resolutions",
    metadata,
    Column("idx", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("deliberation_id", String(36), ForeignKey("deliberations.id"), nullable=False),
    Index(None, "deliberation_id", "idx"),
)

# Where the topic of a deliberation came from, where that was said: what lists are filtered by. The position is that of the deliberation.
topics = Table(
    "topics",
    metadata,
    Column("deliberation_id", String(36), ForeignKey("deliberations.id"), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("origin", Text, nullable=False),
    Index(None, "origin", "position"),
)

# What deliberations are searched by, apart from them, so that a search reads little. The position is that of the deliberation.
catalogue = Table(
    "catalogue",
    metadata,
    Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("deliberation_id", String(36), ForeignKey("deliberations.id"), nullable=False),
    # Kinds of answer, protocol and rule.
    Column("answer", String(16), nullable=False),
    Column("protocol", String(16), nullable=False),
    Column("rule", String(16), nullable=False),
    # Decided, tied or no majority; null until there is an outcome.
    Column("outcome", String(16)),
    # Question, context, options and, once there is one, the decision, folded; empty once they are erased.
    Column("search_text", Text, nullable=False),
    Index(None, "deliberation_id", unique=True),
)

# The ledger: each call that was intended, once. Whoever goes on with a deliberation reads here which were.
calls = Table(
    "calls",
    metadata,
    Column("deliberation_id", String(36), ForeignKey("deliberations.id"), primary_key=True),
    Column("round_number", Integer, primary_key=True, autoincrement=False),
    Column("agent_id", Text, primary_key=True),
    Column("purpose", String(16), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    # The commitment (hex) to the prompt as the entry has it; null where the orchestrator does not say what it will ask.
    Column("prompt_sha256", String(64)),
    Column("leaf_index", BigInteger, nullable=False),
    # Which model is asked, on which day (UTC, YYYY-MM-DD), and what that takes at most: tokens, and picodollars, null where its
    # model has no known price.
    Column("model", Text),
    Column("day", String(10), nullable=False),
    Column("held_tokens", BigInteger, nullable=False),
    Column("held_cost", BigInteger),
    sqlite_with_rowid=False,
)

# What each call of the ledger took, once it is over. Where nobody knows, it is not certain, and what it held stays spent.
charges = Table(
    "charges",
    metadata,
    Column("deliberation_id", String(36), ForeignKey("deliberations.id"), primary_key=True),
    Column("round_number", Integer, primary_key=True, autoincrement=False),
    Column("agent_id", Text, primary_key=True),
    Column("purpose", String(16), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    # Who answered.
    Column("model", Text),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    # Picodollars; null where the model has no known price.
    Column("cost", BigInteger),
    Column("is_certain", Boolean, nullable=False),
    sqlite_with_rowid=False,
)

# What the calls of each API key ('' without one) have taken or still hold, in picodollars, by the day (UTC) of their intent. A sum over
# the two tables above, kept because a budget is compared with it before each call.
spending = Table(
    "spending",
    metadata,
    Column("key_name", Text, primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# One row: whether the system is halted, as far as the database is asked.
halt_state = Table(
    "halt_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("halted", Boolean, nullable=False),
    Column("reason", Text),
    Column("since", Moment),
)

# Which deliberation an Idempotency-Key stands for, by the name of the caller's key ('' where there are no keys).
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("idempotency_key", Text, primary_key=True),
    # SHA-256 (hex) of the body that came with it.
    Column("body_sha256", String(64), nullable=False),
    Column("deliberation_id", String(36), ForeignKey("deliberations.id"), nullable=False),
    Column("created_at", Moment, nullable=False),
    Index(None, "created_at"),
)

# Up to which end each receiver of webhooks was gathered for: the index of that entry.
webhook_cursors = Table(
    "webhook_cursors",
    metadata,
    Column("receiver", Text, primary_key=True),
    Column("last_index", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What each of them is to be told, or was: no text and no address, both of which are looked up when it is posted.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("receiver", Text, nullable=False),
    Column("deliberation_id", String(36), ForeignKey("deliberations.id"), nullable=False),
    Column("event", String(32), nullable=False),
    Column("ended_at", Moment, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("first_attempt_at", Moment),
    Column("next_at", Moment, nullable=False),
    Column("settled_at", Moment),
    Column("status", Integer),
    Column("problem", Text),
    Column("lease_owner", Text),
    Column("lease_until", Moment),
    Index(None, "receiver", "state", "next_at"),
    Index(None, "state", "settled_at"),
)

guard(metadata)
# Postgres would compress these while the end of the log is locked; a roster takes it longer to compress than all the rest to write.
for _column in ("specifications ALTER COLUMN roster", "witness_entries ALTER COLUMN entry"):
    event.listen(
        metadata,
        "after_create",
        DDL(f"ALTER TABLE {_column} SET STORAGE EXTERNAL").execute_if(dialect="postgresql"),  # type: ignore[no-untyped-call]
    )
