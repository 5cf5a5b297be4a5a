"""Statements that would change what is recorded, as a stranger, the application and the owner may try them."""
# ruff: noqa: S608 - statements put together from strings are what is tested

from collections.abc import Iterator

from tests.integration.recorded_databases import ERASED, KEPT

__all__ = ["KEYS", "application_statements", "owner_statements", "sqlite_statements"]

KEYS = {
    "witness_entries": "idx",
    "witness_nodes": "tile_level, place",
    "witness_checkpoints": "tree_size",
    "erasures": "deliberation_id",
    "agent_records": "deliberation_id, round_number, agent_id",
    "disclosures": "sha256",
    "calls": "deliberation_id, round_number, agent_id, purpose, attempt",
    "charges": "deliberation_id, round_number, agent_id, purpose, attempt",
    "witness_head": "id",
}
# A column of each table that somebody who forges the record would change.
_FORGED = {
    "witness_entries": "entry = ''",
    "witness_nodes": "hash = ''",
    "witness_checkpoints": "note = 'forged'",
    "erasures": "idx = 7",
    "agent_records": "content = 'forged'",
    "disclosures": "text = 'forged'",
    "calls": "prompt_sha256 = 'forged'",
    "charges": "cost = 0",
    "witness_head": "tree_size = 1",
}
# Every column of a row that is there, with a changed one.
_AGAIN = {
    "witness_entries": "(0, ''::bytea, NULL, 1, ''::bytea)",
    "witness_nodes": "(1, 0, ''::bytea)",
    "witness_checkpoints": "(1, 'forged')",
    "erasures": f"('{ERASED}', 7)",
    "agent_records": f"('{KEPT}', 1, 'archon-1', 1, 'completed', 1, NULL, '2026-11-20', 'forged', '1', NULL, NULL, NULL, "
    "NULL, NULL, NULL, 1, 10, 5, 0.0, false, 0.5, 1, NULL, 0, 0.0, false)",
    "disclosures": f"('{'0' * 64}', NULL, ''::bytea, 'forged')",
    "calls": f"('{KEPT}', 1, 'archon-1', 'answer', 1, 'forged', 1, NULL, '2026-11-20', 0, 0)",
    "charges": f"('{KEPT}', 1, 'archon-1', 'answer', 1, 'forged', 0, 0, 0, true)",
    "witness_head": "(1, 9, ''::bytea)",
}


def sqlite_statements() -> Iterator[str]:
    for table, key in KEYS.items():
        again = _AGAIN[table].replace("''::bytea", "x'00'")
        yield f"UPDATE {table} SET {_FORGED[table]}"
        for resolution in ("IGNORE", "REPLACE", "FAIL", "ROLLBACK", "ABORT"):
            yield f"UPDATE OR {resolution} {table} SET {_FORGED[table]}"
            yield f"INSERT OR {resolution} INTO {table} VALUES {again}"
        yield f"REPLACE INTO {table} VALUES {again}"
        yield f"INSERT INTO {table} VALUES {again} ON CONFLICT DO UPDATE SET {_FORGED[table]}"
        yield f"INSERT INTO {table} VALUES {again} ON CONFLICT ({key}) DO UPDATE SET {_FORGED[table]}"
        yield f"DELETE FROM {table}"
        yield f"DELETE FROM {table} WHERE true RETURNING *"
    for name in ("idx", "rowid", "_rowid_", "oid"):
        for value in ("0", "'0'", "0.0"):
            yield f"REPLACE INTO witness_entries ({name}, leaf_hash, entry) VALUES ({value}, x'', x'')"
    yield "UPDATE OR REPLACE witness_entries SET idx = 1 WHERE idx = 0"
    yield "UPDATE OR REPLACE witness_entries SET rowid = 1 WHERE idx = 0"
    yield "REPLACE INTO witness_nodes VALUES ('1', 0.0, x'')"
    yield "REPLACE INTO witness_checkpoints VALUES ('1', 'forged')"
    yield "REPLACE INTO erasures (rowid, deliberation_id, idx) VALUES (1, 'another', 7)"
    columns = "deliberation_id, round_number, agent_id, ordinal, state, attempts, finished_at, calls, input_tokens, "
    columns += (
        "output_tokens, cost_usd, truncated, duration_seconds, leaf_index, uncertain_tokens, uncertain_usd, fell_back"
    )
    yield f"REPLACE INTO agent_records (rowid, {columns}) VALUES (1, 'x', 1, 'x', 1, 'x', 1, 'x', 1, 1, 1, 0, 0, 0, 1, 0, 0, 0)"
    yield f"REPLACE INTO agent_records (rowid, {columns}) VALUES ('1', 'x', 1, 'x', 1, 'x', 1, 'x', 1, 1, 1, 0, 0, 0, 1, 0, 0, 0)"
    nothing = "content = NULL, reasoning = NULL, failure_message = NULL, salts = NULL"
    erased = f"WHERE deliberation_id = '{ERASED}'"
    yield f"UPDATE agent_records SET {nothing}"
    yield f"UPDATE OR REPLACE agent_records SET rowid = 1, {nothing} {erased}"
    yield f"UPDATE agent_records SET answer = '1', {nothing} {erased}"
    yield f"UPDATE agent_records SET state = 'failed', {nothing} {erased}"
    yield f"UPDATE agent_records SET reasoning = NULL, salts = NULL {erased}"
    yield f"UPDATE agent_records SET content = 'forged' {erased}"
    yield f"UPDATE agent_records SET deliberation_id = '{ERASED}', agent_id = 'x', {nothing}"
    yield f"CREATE TEMP TABLE erasures AS SELECT '{KEPT}' AS deliberation_id; UPDATE agent_records SET {nothing}"
    yield "DELETE FROM disclosures WHERE deliberation_id IS NULL"
    yield f"DELETE FROM disclosures WHERE deliberation_id = '{KEPT}'"
    yield f"UPDATE disclosures SET deliberation_id = '{ERASED}'"
    yield "REPLACE INTO disclosures (rowid, sha256, salt, text) VALUES (1, 'x', x'', 'x')"
    yield "UPDATE OR REPLACE calls SET attempt = 2 WHERE attempt = 1"
    yield f"UPDATE calls SET deliberation_id = '{ERASED}', attempt = 9"
    yield f"REPLACE INTO calls VALUES ('{KEPT}', '1', 'archon-1', 'answer', 1.0, NULL, 1, NULL, '', 0, 0)"
    yield "UPDATE OR REPLACE charges SET attempt = 2 WHERE attempt = 1"
    yield f"REPLACE INTO charges VALUES ('{KEPT}', '1', 'archon-1', 'answer', 1.0, NULL, 0, 0, 0, 0)"
    yield f"DELETE FROM charges WHERE deliberation_id = '{ERASED}'"
    yield f"DELETE FROM calls WHERE deliberation_id = '{ERASED}'"
    yield "UPDATE witness_head SET frontier = x''"
    yield "UPDATE witness_head SET tree_size = 2"
    yield "UPDATE witness_head SET tree_size = 'many'"
    yield "UPDATE witness_head SET tree_size = x'ff'"
    yield "UPDATE witness_head SET tree_size = 1e300"
    yield "UPDATE witness_head SET id = 2, tree_size = 9"
    yield "INSERT INTO witness_head VALUES (2, 0, x'')"
    yield "REPLACE INTO witness_head VALUES (2, 0, x'')"
    yield "INSERT INTO witness_head (tree_size, frontier) VALUES (0, x'')"


def application_statements() -> Iterator[str]:
    for table, key in KEYS.items():
        yield f"UPDATE {table} SET {_FORGED[table]}"
        yield f"DELETE FROM {table}"
        yield f"WITH gone AS (DELETE FROM {table} RETURNING *) SELECT * FROM gone"
        yield f"DO $$ BEGIN DELETE FROM {table}; END $$"
        yield f"TRUNCATE {table}"
        yield f"TRUNCATE {table} CASCADE"
        yield f"INSERT INTO {table} VALUES {_AGAIN[table]} ON CONFLICT ({key}) DO UPDATE SET {_FORGED[table]}"
        yield f"MERGE INTO {table} USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE"
        yield f"MERGE INTO {table} USING (SELECT 1) AS one ON true WHEN MATCHED THEN UPDATE SET {_FORGED[table]}"
        yield f"ALTER TABLE {table} DISABLE TRIGGER ALL"
        yield f"ALTER TABLE {table} DISABLE TRIGGER {table}_only_grows"
        yield f"ALTER TABLE {table} ENABLE REPLICA TRIGGER {table}_only_grows"
        yield f"DROP TRIGGER {table}_only_grows ON {table}"
        yield f"CREATE TRIGGER skip BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        yield f"DROP TABLE {table} CASCADE"
        yield f"ALTER TABLE {table} OWNER TO CURRENT_USER"
        yield f"ALTER TABLE {table} RENAME TO gone"
        yield f"ALTER TABLE {table} SET SCHEMA pg_temp"
        yield f"ALTER TABLE {table} DROP CONSTRAINT pk_{table} CASCADE"
        yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
        yield f"CREATE RULE quiet AS ON INSERT TO {table} DO INSTEAD NOTHING"
        yield f"CREATE TEMP TABLE child () INHERITS ({table})"
        yield f"GRANT ALL ON {table} TO CURRENT_USER; DELETE FROM {table}"
    for table in ("witness_entries", "witness_nodes", "witness_checkpoints", "erasures", "calls", "charges"):
        yield f"SELECT * FROM {table} FOR UPDATE"
        yield f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
        yield f"SET session_replication_role = replica; UPDATE {table} SET {_FORGED[table]}"
    yield "SET session_replication_role = replica"
    yield "SELECT set_config('session_replication_role', 'replica', false)"
    yield "ALTER ROLE CURRENT_USER SET session_replication_role = replica"
    yield "ALTER ROLE CURRENT_USER SUPERUSER"
    yield "ALTER SYSTEM SET session_replication_role = replica"
    yield "SET ROLE {owner}"
    yield "SET SESSION AUTHORIZATION {owner}"
    yield "GRANT {owner} TO CURRENT_USER"
    yield "GRANT pg_write_all_data TO CURRENT_USER"
    yield "DROP OWNED BY {owner}"
    yield "REASSIGN OWNED BY {owner} TO CURRENT_USER"
    yield "CREATE OR REPLACE FUNCTION conclave_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$"
    yield "DROP FUNCTION conclave_refuse() CASCADE"
    yield "ALTER FUNCTION conclave_erased_only() SET search_path = pg_temp"
    yield "DROP SCHEMA public CASCADE"
    yield "CREATE TABLE beside (id integer)"
    yield "CREATE SCHEMA beside"
    yield "UPDATE pg_trigger SET tgenabled = 'D'"
    yield "UPDATE pg_class SET relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)"
    yield "COPY witness_entries FROM PROGRAM 'true'"
    yield "COPY (SELECT * FROM witness_entries) TO '/nowhere'"
    yield "INSERT INTO witness_head VALUES (2, 0, '')"
    yield "UPDATE witness_head SET frontier = ''"
    yield "UPDATE witness_head SET tree_size = tree_size - 1"
    yield "UPDATE witness_head SET id = 2"
    nothing = "content = NULL, reasoning = NULL, failure_message = NULL, salts = NULL"
    erased = f"WHERE deliberation_id = '{ERASED}'"
    yield f"UPDATE agent_records SET {nothing}"
    yield f"UPDATE agent_records SET answer = '1', {nothing} {erased}"
    yield f"UPDATE agent_records SET state = 'failed', {nothing} {erased}"
    yield f"UPDATE agent_records SET reasoning = NULL, salts = NULL {erased}"
    yield f"UPDATE agent_records SET content = 'forged' {erased}"
    yield "DELETE FROM disclosures WHERE deliberation_id IS NULL"
    yield f"DELETE FROM disclosures WHERE deliberation_id = '{KEPT}'"
    yield f"UPDATE disclosures SET deliberation_id = '{ERASED}'"
    for index in (0, 1, 2, 7):
        yield f"INSERT INTO erasures VALUES ('{KEPT}', {index})"
    shadow = f"CREATE TEMP TABLE erasures AS SELECT '{KEPT}' AS deliberation_id"
    yield f"{shadow}; UPDATE agent_records SET {nothing}"
    yield f"{shadow}; SET search_path = pg_temp, public; UPDATE agent_records SET {nothing}"
    yield "TRUNCATE deliberations CASCADE"
    yield "DELETE FROM deliberations"
    yield "DELETE FROM specifications"
    # The halt's one row can be set and cleared, and nothing else; a key that was used is not bent to another deliberation.
    yield "DELETE FROM halt_state"
    yield "TRUNCATE halt_state"
    yield "UPDATE halt_state SET id = 2"
    yield "INSERT INTO halt_state VALUES (2, false)"
    yield "DROP TABLE halt_state"
    yield "TRUNCATE idempotency_keys"
    yield f"UPDATE idempotency_keys SET deliberation_id = '{ERASED}'"
    yield "DROP TABLE idempotency_keys"
    yield "UPDATE alembic_version SET version_num = '0001'"


def owner_statements() -> Iterator[str]:
    """What the triggers alone refuse, to whoever leaves them in force."""
    for table, key in KEYS.items():
        yield f"UPDATE {table} SET {_FORGED[table]}"
        yield f"DELETE FROM {table}"
        yield f"TRUNCATE {table}"
        yield f"TRUNCATE {table} CASCADE"
        yield f"MERGE INTO {table} USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE"
        again = _AGAIN[table].replace("(1, 9,", "(1, 1,")
        yield f"INSERT INTO {table} VALUES {again} ON CONFLICT ({key}) DO UPDATE SET {_FORGED[table]}"
    yield "TRUNCATE deliberations CASCADE"
    yield "UPDATE agent_records SET content = NULL, reasoning = NULL, failure_message = NULL, salts = NULL"
