"""Statements that make the database itself refuse to change or remove what is recorded, on SQLite and on Postgres.

On SQLite an `INSERT OR REPLACE` deletes without telling triggers of deletion, so a guard before the insertion looks for the row
that would be replaced. On Postgres a row trigger does not see TRUNCATE, and a session that replicates skips all but those that
fire ALWAYS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import DDL, MetaData, event

__all__ = ["GUARDS", "guard"]

_KEYS: Mapping[str, str] = {
    "witness_entries": "idx = NEW.idx",
    "witness_nodes": "tile_level = NEW.tile_level AND place = NEW.place",
    "witness_checkpoints": "tree_size = NEW.tree_size",
    "erasures": "deliberation_id = NEW.deliberation_id",
    "agent_records": "deliberation_id = NEW.deliberation_id AND round_number = NEW.round_number AND agent_id = NEW.agent_id",
    "witness_head": "id = NEW.id",
}
_LOG = ("witness_entries", "witness_nodes", "witness_checkpoints", "erasures")

# What an erasure makes null in an agent's record, and what it may not touch.
_ERASED = "NEW.content IS NULL AND NEW.reasoning IS NULL AND NEW.failure_message IS NULL AND NEW.salts IS NULL"
_IS_ERASED = "EXISTS (SELECT 1 FROM erasures WHERE deliberation_id = OLD.deliberation_id)"
_KEPT = (
    "deliberation_id",
    "round_number",
    "agent_id",
    "ordinal",
    "state",
    "attempts",
    "started_at",
    "finished_at",
    "confidence",
    "failure_kind",
    "model_asked",
    "model",
    "calls",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "truncated",
    "duration_seconds",
    "leaf_index",
)


def _sqlite() -> list[str]:
    statements = [
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'conclave: {table} only grows'); END"
        for table in _LOG
        for verb in ("UPDATE", "DELETE")
    ]
    statements += [
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN EXISTS (SELECT 1 FROM {table} WHERE {key}) "  # noqa: S608 - names of our own tables
        f"BEGIN SELECT RAISE(ABORT, 'conclave: {table} only grows'); END"
        for table, key in _KEYS.items()
    ]
    kept = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in _KEPT)
    statements += [
        "CREATE TRIGGER witness_head_no_delete BEFORE DELETE ON witness_head "
        "BEGIN SELECT RAISE(ABORT, 'conclave: witness_head only grows'); END",
        "CREATE TRIGGER witness_head_grows BEFORE UPDATE ON witness_head "
        "WHEN NEW.id <> OLD.id OR NEW.tree_size <= OLD.tree_size "
        "BEGIN SELECT RAISE(ABORT, 'conclave: witness_head only grows'); END",
        "CREATE TRIGGER agent_records_no_delete BEFORE DELETE ON agent_records "
        "BEGIN SELECT RAISE(ABORT, 'conclave: agent_records only grows'); END",
        f"CREATE TRIGGER agent_records_no_update BEFORE UPDATE ON agent_records "
        f"WHEN NOT ({_ERASED} AND {kept} AND {_IS_ERASED}) "
        "BEGIN SELECT RAISE(ABORT, 'conclave: agent_records only grows'); END",
    ]
    return statements


def _postgres() -> list[str]:
    kept = " AND ".join(f"NEW.{name} IS NOT DISTINCT FROM OLD.{name}" for name in _KEPT)
    statements = [
        "CREATE FUNCTION conclave_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE WARNING 'conclave: % of % was refused for %', TG_OP, TG_TABLE_NAME, session_user; "
        "RAISE EXCEPTION 'conclave: % only grows', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege'; END $$",
        "CREATE FUNCTION conclave_head_grows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.id <> OLD.id OR NEW.tree_size <= OLD.tree_size THEN "
        "RAISE EXCEPTION 'conclave: witness_head only grows' USING ERRCODE = 'insufficient_privilege'; END IF; "
        "RETURN NEW; END $$",
        "CREATE FUNCTION conclave_erased_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF NOT ({_ERASED} AND {kept} AND {_IS_ERASED}) THEN "
        "RAISE WARNING 'conclave: % of % was refused for %', TG_OP, TG_TABLE_NAME, session_user; "
        "RAISE EXCEPTION 'conclave: agent_records only grows' USING ERRCODE = 'insufficient_privilege'; END IF; "
        "RETURN NEW; END $$",
    ]
    for table in _KEYS:
        verbs = "UPDATE OR DELETE" if table in _LOG else "DELETE"
        statements += [
            f"CREATE TRIGGER {table}_only_grows BEFORE {verbs} ON {table} FOR EACH ROW EXECUTE FUNCTION conclave_refuse()",
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT "
            "EXECUTE FUNCTION conclave_refuse()",
            f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_only_grows",
            f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_no_truncate",
        ]
    for table, function in (("witness_head", "conclave_head_grows"), ("agent_records", "conclave_erased_only")):
        statements += [
            f"CREATE TRIGGER {table}_guard BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()",
            f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_guard",
        ]
    return statements


_FIRST_HEAD = {
    "sqlite": "INSERT INTO witness_head (id, tree_size, frontier) VALUES (1, 0, x'')",
    "postgresql": "INSERT INTO witness_head (id, tree_size, frontier) VALUES (1, 0, '')",
}
GUARDS: Mapping[str, Sequence[str]] = {
    "sqlite": (*_sqlite(), _FIRST_HEAD["sqlite"]),
    "postgresql": (*_postgres(), _FIRST_HEAD["postgresql"]),
}
"""By dialect, in the order in which they are run once the tables are there; the last makes the head of an empty log."""

_FUNCTIONS = ("conclave_refuse", "conclave_head_grows", "conclave_erased_only")


def guard(metadata: MetaData) -> None:
    """Have the guards made with the tables of `metadata`, and the functions dropped after them."""
    for dialect, statements in GUARDS.items():
        for statement in statements:
            event.listen(metadata, "after_create", DDL(statement.replace("%", "%%")).execute_if(dialect=dialect))
    for function in _FUNCTIONS:
        dropped = DDL(f"DROP FUNCTION IF EXISTS {function}()").execute_if(dialect="postgresql")
        event.listen(metadata, "after_drop", dropped)
