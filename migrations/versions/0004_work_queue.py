"""The work queue of many workers: on Postgres the tables of procrastinate, in a schema of their own; SQLite needs none."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this revision."""
    if op.get_bind().dialect.name == "postgresql":
        # Not frozen here: the tables belong to the procrastinate that is installed, which the schema itself writes down.
        from infrastructure.queues.procrastinate_schema import make_schema

        make_schema(op.get_bind())


def downgrade() -> None:
    """Take the tables back to the revision before; what waited is found in the deliberations themselves."""
    if op.get_bind().dialect.name == "postgresql":
        from infrastructure.queues.procrastinate_schema import drop_schema

        drop_schema(op.get_bind())
