"""Statements that make the database itself refuse to change or remove what is recorded, on SQLite and on Postgres.

On SQLite an `INSERT OR REPLACE` deletes without telling triggers of deletion, so a guard before the insertion looks for the row
that would be replaced, by its key and by its rowid. On Postgres a row trigger does not see TRUNCATE, a session that replicates
skips all but those that fire ALWAYS, and names are looked up among the session's own temporary tables first, so the functions name
their schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import DDL, MetaData, event
from sqlalchemy.schema import ExecutableDDLElement

__all__ = ["GUARDS", "guard"]

_KEYS: Mapping[str, str] = {
    "witness_entries": "idx = NEW.idx",
    "witness_nodes": "tile_level = NEW.tile_level AND place = NEW.place",
    "witness_checkpoints": "tree_size = NEW.tree_size",
    "erasures": "deliberation_id = NEW.deliberation_id",
    "agent_records": "deliberation_id = NEW.deliberation_id AND round_number = NEW.round_number AND agent_id = NEW.agent_id",
    "disclosures": "sha256 = NEW.sha256",
    "calls": "deliberation_id = NEW.deliberation_id AND round_number = NEW.round_number AND agent_id = NEW.agent_id "
    "AND purpose = NEW.purpose AND attempt = NEW.attempt",
    "charges": "deliberation_id = NEW.deliberation_id AND round_number = NEW.round_number AND agent_id = NEW.agent_id "
    "AND purpose = NEW.purpose AND attempt = NEW.attempt",
    # Has one row, and takes no other.
    "witness_head": "id IS NOT NULL",
}
_LOG = ("witness_entries", "witness_nodes", "witness_checkpoints", "erasures", "calls", "charges")
# Tables of SQLite whose rows have a number beside their key, by which they can be replaced too. Where a statement gives none the
# guard sees -1.
_NUMBERED = ("erasures", "agent_records", "disclosures")

# How the entry of an erasure reads, which says whose texts go and why. Entries are canonical JSON, and texts do not stand in them.
_ERASURE = '"type":"erased"'
# What an erasure makes null in an agent's record, and what it may not touch.
_ERASED = "NEW.content IS NULL AND NEW.reasoning IS NULL AND NEW.failure_message IS NULL AND NEW.salts IS NULL"
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
    "uncertain_tokens",
    "uncertain_usd",
    "fell_back",
)


def _kept(same: str) -> str:
    # An answer may be a text, which goes, or a vote, which stays.
    columns = " AND ".join(f"NEW.{name} {same} OLD.{name}" for name in _KEPT)
    return f"{columns} AND (NEW.answer IS NULL OR NEW.answer {same} OLD.answer)"


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
    statements += [
        f"CREATE TRIGGER {table}_no_replace_by_rowid BEFORE INSERT ON {table} WHEN NEW.rowid >= 0 "  # noqa: S608 - names of our own tables
        f"AND EXISTS (SELECT 1 FROM {table} WHERE rowid = NEW.rowid) "
        f"BEGIN SELECT RAISE(ABORT, 'conclave: {table} only grows'); END"
        for table in _NUMBERED
    ]
    is_erased = "EXISTS (SELECT 1 FROM erasures WHERE deliberation_id = OLD.deliberation_id)"
    # The texts of the erasure itself say why, and stay.
    may_go = (
        "EXISTS (SELECT 1 FROM erasures JOIN witness_entries ON witness_entries.idx = erasures.idx "
        "WHERE erasures.deliberation_id = OLD.deliberation_id AND instr(CAST(entry AS TEXT), OLD.sha256) = 0)"
    )
    is_witnessed = (
        "EXISTS (SELECT 1 FROM witness_entries WHERE idx = NEW.idx AND deliberation_id = NEW.deliberation_id "  # noqa: S608 - names of our own tables
        f"AND instr(CAST(entry AS TEXT), '{_ERASURE}') > 0)"
    )
    statements += [
        f"CREATE TRIGGER erasures_witnessed BEFORE INSERT ON erasures WHEN NOT {is_witnessed} "
        "BEGIN SELECT RAISE(ABORT, 'conclave: erasures takes only what an entry says'); END",
        "CREATE TRIGGER disclosures_no_update BEFORE UPDATE ON disclosures "
        "BEGIN SELECT RAISE(ABORT, 'conclave: disclosures only grows'); END",
        f"CREATE TRIGGER disclosures_no_delete BEFORE DELETE ON disclosures WHEN NOT {may_go} "
        "BEGIN SELECT RAISE(ABORT, 'conclave: disclosures only grows'); END",
        "CREATE TRIGGER witness_head_no_delete BEFORE DELETE ON witness_head "
        "BEGIN SELECT RAISE(ABORT, 'conclave: witness_head only grows'); END",
        "CREATE TRIGGER witness_head_grows BEFORE UPDATE ON witness_head "
        "WHEN NEW.id <> OLD.id OR NEW.tree_size <= OLD.tree_size OR typeof(NEW.tree_size) <> 'integer' "
        "BEGIN SELECT RAISE(ABORT, 'conclave: witness_head only grows'); END",
        "CREATE TRIGGER agent_records_no_delete BEFORE DELETE ON agent_records "
        "BEGIN SELECT RAISE(ABORT, 'conclave: agent_records only grows'); END",
        f"CREATE TRIGGER agent_records_no_update BEFORE UPDATE ON agent_records "
        f"WHEN NOT ({_ERASED} AND NEW.rowid = OLD.rowid AND {_kept('IS')} AND {is_erased}) "
        "BEGIN SELECT RAISE(ABORT, 'conclave: agent_records only grows'); END",
    ]
    return statements


# Of Postgres: the table, the end of the trigger's name, what it comes before, for each what, and the function.
_TRIGGERS = (
    *((table, "only_grows", "UPDATE OR DELETE", "ROW", "conclave_refuse") for table in _LOG),
    *((table, "no_truncate", "TRUNCATE", "STATEMENT", "conclave_refuse") for table in _KEYS),
    ("erasures", "witnessed", "INSERT", "ROW", "conclave_witnessed"),
    ("agent_records", "only_grows", "DELETE", "ROW", "conclave_refuse"),
    ("agent_records", "guard", "UPDATE", "ROW", "conclave_erased_only"),
    ("disclosures", "only_grows", "UPDATE", "ROW", "conclave_refuse"),
    ("disclosures", "guard", "DELETE", "ROW", "conclave_gone_if_erased"),
    ("witness_head", "only_grows", "DELETE", "ROW", "conclave_refuse"),
    ("witness_head", "guard", "UPDATE", "ROW", "conclave_head_grows"),
)


def _postgres() -> list[str]:
    begin = "RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$"
    refuse = (
        "RAISE WARNING 'conclave: % of % was refused for %', TG_OP, TG_TABLE_NAME, session_user; "
        "RAISE EXCEPTION 'conclave: % only grows', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';"
    )
    is_erased = (
        "EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I.erasures WHERE deliberation_id = $1)', TG_TABLE_SCHEMA) "
        "INTO is_erased USING OLD.deliberation_id;"
    )
    # The texts of the erasure itself say why, and stay.
    may_go = (
        "EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I.erasures AS gone JOIN %I.witness_entries AS told ON told.idx = gone.idx "
        "WHERE gone.deliberation_id = $1 AND position($2 IN told.entry) = 0)', TG_TABLE_SCHEMA, TG_TABLE_SCHEMA) "
        "INTO may_go USING OLD.deliberation_id, convert_to(OLD.sha256, 'UTF8');"
    )
    is_witnessed = (
        "EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I.witness_entries WHERE idx = $1 AND deliberation_id = $2 "  # noqa: S608 - names of our own tables
        "AND position($3 IN entry) > 0)', TG_TABLE_SCHEMA) "
        f"INTO is_witnessed USING NEW.idx, NEW.deliberation_id, convert_to('{_ERASURE}', 'UTF8');"
    )
    statements = [
        f"CREATE FUNCTION conclave_refuse() {begin} BEGIN {refuse} END $$",
        f"CREATE FUNCTION conclave_head_grows() {begin} BEGIN "
        f"IF NEW.id <> OLD.id OR NEW.tree_size <= OLD.tree_size THEN {refuse} END IF; RETURN NEW; END $$",
        f"CREATE FUNCTION conclave_erased_only() {begin} DECLARE is_erased boolean; BEGIN {is_erased} "
        f"IF NOT ({_ERASED} AND {_kept('IS NOT DISTINCT FROM')} AND is_erased) THEN {refuse} END IF; RETURN NEW; END $$",
        f"CREATE FUNCTION conclave_gone_if_erased() {begin} DECLARE may_go boolean; BEGIN {may_go} "
        f"IF NOT may_go THEN {refuse} END IF; RETURN OLD; END $$",
        f"CREATE FUNCTION conclave_witnessed() {begin} DECLARE is_witnessed boolean; BEGIN {is_witnessed} "
        "IF NOT is_witnessed THEN RAISE WARNING 'conclave: % of % was refused for %', TG_OP, TG_TABLE_NAME, session_user; "
        "RAISE EXCEPTION 'conclave: erasures takes only what an entry says' USING ERRCODE = 'insufficient_privilege'; "
        "END IF; RETURN NEW; END $$",
    ]
    statements += [
        f"CREATE TRIGGER {table}_{name} BEFORE {verbs} ON {table} FOR EACH {each} EXECUTE FUNCTION {function}()"
        for table, name, verbs, each, function in _TRIGGERS
    ]
    statements += [f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_{name}" for table, name, *_ in _TRIGGERS]
    return statements


_FIRST_HEAD = {
    "sqlite": "INSERT INTO witness_head (id, tree_size, frontier) VALUES (1, 0, x'')",
    "postgresql": "INSERT INTO witness_head (id, tree_size, frontier) VALUES (1, 0, '')",
}
_NOT_HALTED = "INSERT INTO halt_state (id, halted) VALUES (1, false)"
GUARDS: Mapping[str, Sequence[str]] = {
    "sqlite": (*_sqlite(), _FIRST_HEAD["sqlite"], _NOT_HALTED),
    "postgresql": (*_postgres(), _FIRST_HEAD["postgresql"], _NOT_HALTED),
}
"""By dialect, in the order in which they are run once the tables are there; the last make the head of an empty log and the halt's row."""

_FUNCTIONS = (
    "conclave_refuse",
    "conclave_head_grows",
    "conclave_erased_only",
    "conclave_gone_if_erased",
    "conclave_witnessed",
)


def guard(metadata: MetaData) -> None:
    """Have the guards made with the tables of `metadata`, and the functions dropped after them."""
    for dialect, statements in GUARDS.items():
        for statement in statements:
            event.listen(metadata, "after_create", _only_on(dialect, statement))
    for function in _FUNCTIONS:
        event.listen(metadata, "after_drop", _only_on("postgresql", f"DROP FUNCTION IF EXISTS {function}()"))


def _only_on(dialect: str, statement: str) -> ExecutableDDLElement:
    ddl: ExecutableDDLElement = DDL(statement.replace("%", "%%"))  # type: ignore[no-untyped-call]
    return ddl.execute_if(dialect=dialect)
