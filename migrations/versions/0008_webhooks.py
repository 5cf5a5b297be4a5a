"""What webhooks are to be told, and up to which end each receiver was gathered for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_MOMENT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_index(op.f("ix_deliberations_last_index"), "deliberations", ["last_index"])
    op.create_table(
        "webhook_cursors",
        sa.Column("receiver", sa.Text, nullable=False),
        sa.Column("last_index", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("receiver", name=op.f("pk_webhook_cursors")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("receiver", sa.Text, nullable=False),
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("ended_at", _MOMENT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("first_attempt_at", _MOMENT),
        sa.Column("next_at", _MOMENT, nullable=False),
        sa.Column("settled_at", _MOMENT),
        sa.Column("status", sa.Integer),
        sa.Column("problem", sa.Text),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", _MOMENT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_webhook_deliveries_deliberation_id_deliberations")
        ),
    )
    op.create_index(
        op.f("ix_webhook_deliveries_receiver_state_next_at"), "webhook_deliveries", ["receiver", "state", "next_at"]
    )
    op.create_index(op.f("ix_webhook_deliveries_state_settled_at"), "webhook_deliveries", ["state", "settled_at"])


def downgrade() -> None:
    """Take the tables back to the revision before; what was not told yet never is."""
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_cursors")
    op.drop_index(op.f("ix_deliberations_last_index"), table_name="deliberations")
