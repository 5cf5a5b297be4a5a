"""Where topics came from, to list them by, and which entries say last how questions turned out."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_AT_A_TIME = 500


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_table(
        "topics",
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("deliberation_id", name=op.f("pk_topics")),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_topics_deliberation_id_deliberations")
        ),
    )
    op.create_index(op.f("ix_topics_origin_position"), "topics", ["origin", "position"])
    op.create_table(
        "resolutions",
        sa.Column("idx", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=False),
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("idx", name=op.f("pk_resolutions")),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_resolutions_deliberation_id_deliberations")
        ),
    )
    op.create_index(op.f("ix_resolutions_deliberation_id_idx"), "resolutions", ["deliberation_id", "idx"])
    _enter_origins()


def downgrade() -> None:
    """Take the tables back to the revision before; the entries still say all of it."""
    op.drop_table("resolutions")
    op.drop_table("topics")


def _enter_origins() -> None:
    connection = op.get_bind()
    after = -1
    while rows := connection.execute(
        sa.text(
            "SELECT d.id, d.position, s.specification FROM deliberations d JOIN specifications s "
            "ON s.deliberation_id = d.id WHERE d.position > :after ORDER BY d.position LIMIT :most"
        ),
        {"after": after, "most": _AT_A_TIME},
    ).all():
        after = rows[-1].position
        entered = [
            {"own": row.id, "position": row.position, "origin": origin}
            for row in rows
            if (origin := _origin_in(row.specification)) is not None
        ]
        if entered:
            connection.execute(
                sa.text("INSERT INTO topics (deliberation_id, position, origin) VALUES (:own, :position, :origin)"),
                entered,
            )


def _origin_in(specification: str) -> str | None:
    document: Any = json.loads(specification)
    origin = (document.get("metadata") or {}).get("origin")
    return origin if isinstance(origin, str) else None
