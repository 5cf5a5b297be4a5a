"""What deliberations are searched by: kinds, outcome and folded texts."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_AT_A_TIME = 200
# Frozen here as the texts were folded at this revision; how they are now stands in domain/models/search.py.
_OTHER_SCRIPTS = re.compile(r"[^\x00-\x7f]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]+")
_LEFT_OUT = frozenset({"Mn", "Me", "Cf", "Cc", "Cs"})


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_table(
        "catalogue",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=False),
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.Column("answer", sa.String(16), nullable=False),
        sa.Column("protocol", sa.String(16), nullable=False),
        sa.Column("rule", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("search_text", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_catalogue")),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_catalogue_deliberation_id_deliberations")
        ),
    )
    op.create_index(op.f("ix_catalogue_deliberation_id"), "catalogue", ["deliberation_id"], unique=True)
    _enter_all()


def downgrade() -> None:
    """Take the tables back to the revision before; all of it is made of what the other tables hold."""
    op.drop_table("catalogue")


def _enter_all() -> None:
    connection = op.get_bind()
    page = sa.text(
        "SELECT d.id, d.position, d.result, s.specification, s.salts FROM deliberations d JOIN specifications s "
        "ON s.deliberation_id = d.id WHERE d.position > :after ORDER BY d.position LIMIT :most"
    )
    enter = sa.text(
        "INSERT INTO catalogue (position, deliberation_id, answer, protocol, rule, outcome, search_text) "
        "VALUES (:position, :own, :answer, :protocol, :rule, :outcome, :text)"
    )
    after = -1
    while rows := connection.execute(page, {"after": after, "most": _AT_A_TIME}).all():
        after = rows[-1].position
        connection.execute(enter, [_entered(row) for row in rows])


def _entered(row: Any) -> dict[str, Any]:
    specification: Any = json.loads(row.specification)
    outcome: Any = None if row.result is None else json.loads(row.result).get("outcome")
    answer = specification["question"].get("answer") or {}
    return {
        "position": row.position,
        "own": row.id,
        # What an earlier version left out had its default.
        "answer": answer.get("kind", "verdict"),
        "protocol": (specification.get("protocol") or {}).get("kind", "poll"),
        "rule": specification["rule"]["kind"],
        "outcome": None if outcome is None else outcome["status"],
        "text": "" if row.salts is None else _text_of(specification["question"], outcome),
    }


def _text_of(question: Any, outcome: Any) -> str:
    options = (question.get("answer") or {}).get("options") or ()
    texts = [_folded(each) for each in (question["text"], question.get("context") or "", *options) if each]
    decision = None if outcome is None else outcome.get("decision")
    if decision is not None and decision not in options:
        texts.append(_folded(decision if isinstance(decision, str) else f"{decision:.10g}"))
    return "\n".join(texts)


def _folded(text: str) -> str:
    bare = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return " ".join(_OTHER_SCRIPTS.sub(_seen, _CONTROLS.sub("", bare)).split())


def _seen(run: re.Match[str]) -> str:
    return "".join(each for each in run[0] if each.isspace() or unicodedata.category(each) not in _LEFT_OUT)
