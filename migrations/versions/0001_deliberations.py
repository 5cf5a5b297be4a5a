"""Deliberations, their specifications, the records of their agents, and their events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MOMENT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_table(
        "deliberations",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("key_name", sa.Text),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("started_at", _MOMENT),
        sa.Column("finished_at", _MOMENT),
        sa.Column("orchestrator", sa.Text, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", _MOMENT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliberations")),
    )
    op.create_index(op.f("ix_deliberations_position"), "deliberations", ["position"], unique=True)
    op.create_index(op.f("ix_deliberations_status_position"), "deliberations", ["status", "position"])
    op.create_index(op.f("ix_deliberations_key_name_position"), "deliberations", ["key_name", "position"])
    op.create_table(
        "specifications",
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.Column("specification", sa.Text, nullable=False),
        sa.Column("roster", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("deliberation_id", name=op.f("pk_specifications")),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_specifications_deliberation_id_deliberations")
        ),
    )
    op.create_table(
        "agent_records",
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.Column("round_number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("started_at", _MOMENT),
        sa.Column("finished_at", _MOMENT, nullable=False),
        sa.Column("content", sa.Text),
        sa.Column("content_sha256", sa.String(64)),
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
        sa.PrimaryKeyConstraint("deliberation_id", "round_number", "agent_id", name=op.f("pk_agent_records")),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_agent_records_deliberation_id_deliberations")
        ),
    )
    op.create_table(
        "events",
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("deliberation_id", "sequence", name=op.f("pk_events")),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_events_deliberation_id_deliberations")
        ),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Take the tables back to the revision before."""
    for table in ("events", "agent_records", "specifications", "deliberations"):
        op.drop_table(table)
