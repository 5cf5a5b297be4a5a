"""What a stop and a continuation need: the ledger of calls, the halt's row in the database, and the idempotency keys."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_MOMENT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")

# Frozen here as they were at this revision; those of the present tables stand in infrastructure/persistence/append_only.py.
_GUARDS = {
    "sqlite": (
        "CREATE TRIGGER calls_no_update BEFORE UPDATE ON calls BEGIN SELECT RAISE(ABORT, 'conclave: calls only grows'); END",
        "CREATE TRIGGER calls_no_delete BEFORE DELETE ON calls BEGIN SELECT RAISE(ABORT, 'conclave: calls only grows'); END",
        "CREATE TRIGGER calls_no_replace BEFORE INSERT ON calls WHEN EXISTS (SELECT 1 FROM calls WHERE "
        "deliberation_id = NEW.deliberation_id AND round_number = NEW.round_number AND agent_id = NEW.agent_id "
        "AND purpose = NEW.purpose AND attempt = NEW.attempt) "
        "BEGIN SELECT RAISE(ABORT, 'conclave: calls only grows'); END",
    ),
    "postgresql": (
        "CREATE TRIGGER calls_only_grows BEFORE UPDATE OR DELETE ON calls FOR EACH ROW EXECUTE FUNCTION conclave_refuse()",
        "CREATE TRIGGER calls_no_truncate BEFORE TRUNCATE ON calls FOR EACH STATEMENT EXECUTE FUNCTION conclave_refuse()",
        "ALTER TABLE calls ENABLE ALWAYS TRIGGER calls_only_grows",
        "ALTER TABLE calls ENABLE ALWAYS TRIGGER calls_no_truncate",
    ),
}


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_table(
        "calls",
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.Column("round_number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("prompt_sha256", sa.String(64)),
        sa.Column("leaf_index", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "deliberation_id", "round_number", "agent_id", "purpose", "attempt", name=op.f("pk_calls")
        ),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_calls_deliberation_id_deliberations")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "halt_state",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("halted", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("since", _MOMENT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_halt_state")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text, nullable=False),
        sa.Column("body_sha256", sa.String(64), nullable=False),
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("scope", "idempotency_key", name=op.f("pk_idempotency_keys")),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_idempotency_keys_deliberation_id_deliberations")
        ),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"])
    _enter_calls()
    for statement in _GUARDS[op.get_bind().dialect.name]:
        op.execute(sa.text(statement))
    op.execute(sa.text("INSERT INTO halt_state (id, halted) VALUES (1, false)"))
    _store("EXTERNAL")


def _enter_calls() -> None:
    """Fill the ledger with the calls that were recorded before there was one."""
    connection = op.get_bind()
    page = sa.text("SELECT idx, deliberation_id, entry FROM witness_entries WHERE idx > :after ORDER BY idx LIMIT 5000")
    insert = sa.text("INSERT INTO calls VALUES (:own, :round, :agent, :purpose, :attempt, :prompt, :leaf)")
    after = -1
    while rows := connection.execute(page, {"after": after}).all():
        after = rows[-1][0]
        for index, own, entry in rows:
            told = json.loads(bytes(entry))
            if told["type"] == "call.intended":
                prompt = None if told["prompt"] is None else told["prompt"]["sha256"]
                call = {"own": own, "round": told["round"], "agent": told["agent_id"]}
                more = {"purpose": told["purpose"], "attempt": told["attempt"], "prompt": prompt, "leaf": index}
                connection.execute(insert, call | more)


def _store(kind: str) -> None:
    """Have Postgres compress rosters and entries (EXTENDED) or not (EXTERNAL), which takes long while the end of the log is locked."""
    if op.get_bind().dialect.name == "postgresql":
        for column in ("specifications ALTER COLUMN roster", "witness_entries ALTER COLUMN entry"):
            op.execute(sa.text(f"ALTER TABLE {column} SET STORAGE {kind}"))


def downgrade() -> None:
    """Take the tables back to the revision before; which calls were made before stays in the log."""
    _store("EXTENDED")
    for table in ("idempotency_keys", "halt_state", "calls"):
        op.drop_table(table)
