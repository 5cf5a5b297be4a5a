"""What money needs: which model each call asked and what it held, what it took, and what each key has spent in a day."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_MOMENT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")

# Frozen here as they were at this revision; those of the present tables stand in infrastructure/persistence/append_only.py.
_ONLY_GROWS = "BEGIN SELECT RAISE(ABORT, 'conclave: {table} only grows'); END"
_SAME_CALL = (
    "deliberation_id = NEW.deliberation_id AND round_number = NEW.round_number AND agent_id = NEW.agent_id "
    "AND purpose = NEW.purpose AND attempt = NEW.attempt"
)
_SAME_RECORD = "deliberation_id = NEW.deliberation_id AND round_number = NEW.round_number AND agent_id = NEW.agent_id"
_ERASED = "NEW.content IS NULL AND NEW.reasoning IS NULL AND NEW.failure_message IS NULL AND NEW.salts IS NULL"
_KEPT_BEFORE = [
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
]
_ADDED = ("uncertain_tokens", "uncertain_usd", "fell_back")
_KEPT = (*_KEPT_BEFORE, *_ADDED)
_COLUMNS_BEFORE = [
    "deliberation_id",
    "round_number",
    "agent_id",
    "ordinal",
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
]
_CALL_BEFORE = ["deliberation_id", "round_number", "agent_id", "purpose", "attempt", "prompt_sha256", "leaf_index"]


def _grows(table: str, same: str) -> list[str]:
    refuse = _ONLY_GROWS.format(table=table)
    return [
        f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refuse}",
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refuse}",
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN EXISTS (SELECT 1 FROM {table} WHERE {same}) {refuse}",  # noqa: S608 - names of our own tables
    ]


def _guards_of_records(kept: tuple[str, ...] | list[str]) -> list[str]:
    refuse = _ONLY_GROWS.format(table="agent_records")
    same = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in kept)
    answer = "(NEW.answer IS NULL OR NEW.answer IS OLD.answer)"
    is_erased = "EXISTS (SELECT 1 FROM erasures WHERE deliberation_id = OLD.deliberation_id)"
    return [
        f"CREATE TRIGGER agent_records_no_replace BEFORE INSERT ON agent_records WHEN EXISTS (SELECT 1 FROM agent_records "  # noqa: S608 - names of our own tables
        f"WHERE {_SAME_RECORD}) {refuse}",
        "CREATE TRIGGER agent_records_no_replace_by_rowid BEFORE INSERT ON agent_records WHEN NEW.rowid >= 0 "  # noqa: S608 - as above
        f"AND EXISTS (SELECT 1 FROM agent_records WHERE rowid = NEW.rowid) {refuse}",
        f"CREATE TRIGGER agent_records_no_delete BEFORE DELETE ON agent_records {refuse}",
        "CREATE TRIGGER agent_records_no_update BEFORE UPDATE ON agent_records "
        f"WHEN NOT ({_ERASED} AND NEW.rowid = OLD.rowid AND {same} AND {answer} AND {is_erased}) {refuse}",
    ]


def _erased_only(kept: tuple[str, ...] | list[str]) -> str:
    same = " AND ".join(f"NEW.{name} IS NOT DISTINCT FROM OLD.{name}" for name in kept)
    answer = "(NEW.answer IS NULL OR NEW.answer IS NOT DISTINCT FROM OLD.answer)"
    return (
        "CREATE OR REPLACE FUNCTION conclave_erased_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp "  # noqa: S608 - names of our own tables
        "AS $$ DECLARE is_erased boolean; BEGIN "
        "EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I.erasures WHERE deliberation_id = $1)', TG_TABLE_SCHEMA) "
        "INTO is_erased USING OLD.deliberation_id; "
        f"IF NOT ({_ERASED} AND {same} AND {answer} AND is_erased) THEN "
        "RAISE WARNING 'conclave: % of % was refused for %', TG_OP, TG_TABLE_NAME, session_user; "
        "RAISE EXCEPTION 'conclave: % only grows', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege'; "
        "END IF; RETURN NEW; END $$"
    )


_GUARDS_OF_CHARGES = (
    "CREATE TRIGGER charges_only_grows BEFORE UPDATE OR DELETE ON charges FOR EACH ROW EXECUTE FUNCTION conclave_refuse()",
    "CREATE TRIGGER charges_no_truncate BEFORE TRUNCATE ON charges FOR EACH STATEMENT EXECUTE FUNCTION conclave_refuse()",
    "ALTER TABLE charges ENABLE ALWAYS TRIGGER charges_only_grows",
    "ALTER TABLE charges ENABLE ALWAYS TRIGGER charges_no_truncate",
)


def upgrade() -> None:
    """Bring the tables to this revision."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if is_sqlite:
        _make_anew("agent_records", _record_columns(added=True), _COLUMNS_BEFORE, {"0": _ADDED})
        for statement in _guards_of_records(_KEPT):
            op.execute(sa.text(statement))
        _make_anew("calls", _call_columns(added=True), _CALL_BEFORE, {"''": ["day"], "0": ["held_tokens", "held_cost"]})
        _enter_models()
        for statement in _grows("calls", _SAME_CALL):
            op.execute(sa.text(statement))
    else:
        _add_columns()
        op.execute(sa.text(_erased_only(_KEPT).replace(":", "\\:")))
        op.execute(sa.text("ALTER TABLE calls DISABLE TRIGGER calls_only_grows"))
        _enter_models()
        op.execute(sa.text("ALTER TABLE calls ENABLE ALWAYS TRIGGER calls_only_grows"))
    op.create_table(
        "charges",
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.Column("round_number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("model", sa.Text),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger),
        sa.Column("is_certain", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint(
            "deliberation_id", "round_number", "agent_id", "purpose", "attempt", name=op.f("pk_charges")
        ),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_charges_deliberation_id_deliberations")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "spending",
        sa.Column("key_name", sa.Text, nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key_name", "day", name=op.f("pk_spending")),
        sqlite_with_rowid=False,
    )
    # What earlier calls took is known by agent only: the last attempt stands for all of them.
    op.execute(
        sa.text(
            "INSERT INTO charges SELECT deliberation_id, round_number, agent_id, 'answer', attempts, model, input_tokens, "
            "output_tokens, CAST(cost_usd * 1000000000000.0 AS BIGINT), true FROM agent_records WHERE attempts > 0"
        )
    )
    for statement in _grows("charges", _SAME_CALL) if is_sqlite else _GUARDS_OF_CHARGES:
        op.execute(sa.text(statement))


def _record_columns(*, added: bool) -> list[Any]:
    more = [
        sa.Column("uncertain_tokens", sa.BigInteger, nullable=False),
        sa.Column("uncertain_usd", sa.Double, nullable=False),
        sa.Column("fell_back", sa.Boolean, nullable=False),
    ]
    return [
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.Column("round_number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("started_at", _MOMENT),
        sa.Column("finished_at", _MOMENT, nullable=False),
        sa.Column("content", sa.Text),
        sa.Column("answer", sa.Text),
        sa.Column("confidence", sa.Double),
        sa.Column("reasoning", sa.Text),
        sa.Column("failure_kind", sa.Text),
        sa.Column("failure_message", sa.Text),
        sa.Column("model_asked", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("calls", sa.Integer, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.Double, nullable=False),
        sa.Column("truncated", sa.Boolean, nullable=False),
        sa.Column("duration_seconds", sa.Double, nullable=False),
        sa.Column("leaf_index", sa.BigInteger, nullable=False),
        sa.Column("salts", sa.LargeBinary),
        *(more if added else ()),
        sa.PrimaryKeyConstraint("deliberation_id", "round_number", "agent_id", name=op.f("pk_agent_records")),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_agent_records_deliberation_id_deliberations")
        ),
    ]


def _call_columns(*, added: bool) -> list[Any]:
    more = [
        sa.Column("model", sa.Text),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("held_tokens", sa.BigInteger, nullable=False),
        sa.Column("held_cost", sa.BigInteger),
    ]
    return [
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.Column("round_number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("prompt_sha256", sa.String(64)),
        sa.Column("leaf_index", sa.BigInteger, nullable=False),
        *(more if added else ()),
        sa.PrimaryKeyConstraint(
            "deliberation_id", "round_number", "agent_id", "purpose", "attempt", name=op.f("pk_calls")
        ),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_calls_deliberation_id_deliberations")
        ),
    ]


def _make_anew(table: str, columns: list[Any], kept: list[str], filled: dict[str, Any] | None = None) -> None:
    """SQLite adds no column in the middle of a table and none without a default: the rows move to a new table; its triggers go."""
    old = f"{table}_before"
    op.rename_table(table, old)
    op.create_table(table, *columns, **({"sqlite_with_rowid": False} if table == "calls" else {}))
    names, values = list(kept), list(kept)
    for value, new in (filled or {}).items():
        names += new
        values += [value] * len(new)
    op.execute(sa.text(f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {old}"))  # noqa: S608 - names of our own tables
    op.drop_table(old)


def _add_columns() -> None:
    nothing: dict[str, Any] = {"nullable": False, "server_default": sa.text("0")}
    for table, column in (
        ("agent_records", sa.Column("uncertain_tokens", sa.BigInteger, **nothing)),
        ("agent_records", sa.Column("uncertain_usd", sa.Double, **nothing)),
        ("agent_records", sa.Column("fell_back", sa.Boolean, nullable=False, server_default=sa.false())),
        ("calls", sa.Column("model", sa.Text)),
        ("calls", sa.Column("day", sa.String(10), nullable=False, server_default="")),
        ("calls", sa.Column("held_tokens", sa.BigInteger, **nothing)),
        ("calls", sa.Column("held_cost", sa.BigInteger, server_default=sa.text("0"))),
    ):
        op.add_column(table, column)
        if column.server_default is not None:
            op.alter_column(table, column.name, server_default=None)


def _enter_models() -> None:
    """Fill in which model was to be asked, and on which day, from the log."""
    connection = op.get_bind()
    page = sa.text("SELECT idx, entry FROM witness_entries WHERE idx > :after ORDER BY idx LIMIT 5000")
    change = sa.text("UPDATE calls SET model = :model, day = :day WHERE leaf_index = :leaf")
    after = -1
    while rows := connection.execute(page, {"after": after}).all():
        after = rows[-1][0]
        told = [(index, json.loads(bytes(entry))) for index, entry in rows if b'"type":"call.intended"' in bytes(entry)]
        if told:
            values = [{"model": each["model"], "day": each["at"][:10], "leaf": index} for index, each in told]
            connection.execute(change, values)


def downgrade() -> None:
    """Take the tables back to the revision before; what calls took stays in the log."""
    for table in ("spending", "charges"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "sqlite":
        _make_anew("agent_records", _record_columns(added=False), _COLUMNS_BEFORE)
        for statement in _guards_of_records(_KEPT_BEFORE):
            op.execute(sa.text(statement))
        _make_anew("calls", _call_columns(added=False), _CALL_BEFORE)
        for statement in _grows("calls", _SAME_CALL):
            op.execute(sa.text(statement))
        return
    op.execute(sa.text(_erased_only(_KEPT_BEFORE).replace(":", "\\:")))
    for name in _ADDED:
        op.drop_column("agent_records", name)
    for name in ("held_cost", "held_tokens", "day", "model"):
        op.drop_column("calls", name)
