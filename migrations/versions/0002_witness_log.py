"""The witness log: entries, tree and checkpoints, which only grow; the events are read from the entries from now on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from domain.errors.configuration import ConfigurationError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_MOMENT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
_LOG = ("witness_entries", "witness_nodes", "witness_checkpoints", "erasures")

# Frozen here as they were at this revision; those of the present tables stand in infrastructure/persistence/append_only.py.
_GUARDS = {
    "sqlite": (
        "CREATE TRIGGER witness_entries_no_update BEFORE UPDATE ON witness_entries BEGIN SELECT RAISE(ABORT, "
        "'conclave: witness_entries only grows'); END",
        "CREATE TRIGGER witness_entries_no_delete BEFORE DELETE ON witness_entries BEGIN SELECT RAISE(ABORT, "
        "'conclave: witness_entries only grows'); END",
        "CREATE TRIGGER witness_nodes_no_update BEFORE UPDATE ON witness_nodes BEGIN SELECT RAISE(ABORT, "
        "'conclave: witness_nodes only grows'); END",
        "CREATE TRIGGER witness_nodes_no_delete BEFORE DELETE ON witness_nodes BEGIN SELECT RAISE(ABORT, "
        "'conclave: witness_nodes only grows'); END",
        "CREATE TRIGGER witness_checkpoints_no_update BEFORE UPDATE ON witness_checkpoints BEGIN SELECT "
        "RAISE(ABORT, 'conclave: witness_checkpoints only grows'); END",
        "CREATE TRIGGER witness_checkpoints_no_delete BEFORE DELETE ON witness_checkpoints BEGIN SELECT "
        "RAISE(ABORT, 'conclave: witness_checkpoints only grows'); END",
        "CREATE TRIGGER erasures_no_update BEFORE UPDATE ON erasures BEGIN SELECT RAISE(ABORT, 'conclave: "
        "erasures only grows'); END",
        "CREATE TRIGGER erasures_no_delete BEFORE DELETE ON erasures BEGIN SELECT RAISE(ABORT, 'conclave: "
        "erasures only grows'); END",
        "CREATE TRIGGER witness_entries_no_replace BEFORE INSERT ON witness_entries WHEN EXISTS (SELECT 1 FROM "
        "witness_entries WHERE idx = NEW.idx) BEGIN SELECT RAISE(ABORT, 'conclave: witness_entries only "
        "grows'); END",
        "CREATE TRIGGER witness_nodes_no_replace BEFORE INSERT ON witness_nodes WHEN EXISTS (SELECT 1 FROM "
        "witness_nodes WHERE tile_level = NEW.tile_level AND place = NEW.place) BEGIN SELECT RAISE(ABORT, "
        "'conclave: witness_nodes only grows'); END",
        "CREATE TRIGGER witness_checkpoints_no_replace BEFORE INSERT ON witness_checkpoints WHEN EXISTS "
        "(SELECT 1 FROM witness_checkpoints WHERE tree_size = NEW.tree_size) BEGIN SELECT RAISE(ABORT, "
        "'conclave: witness_checkpoints only grows'); END",
        "CREATE TRIGGER erasures_no_replace BEFORE INSERT ON erasures WHEN EXISTS (SELECT 1 FROM erasures "
        "WHERE deliberation_id = NEW.deliberation_id) BEGIN SELECT RAISE(ABORT, 'conclave: erasures only "
        "grows'); END",
        "CREATE TRIGGER agent_records_no_replace BEFORE INSERT ON agent_records WHEN EXISTS (SELECT 1 FROM "
        "agent_records WHERE deliberation_id = NEW.deliberation_id AND round_number = NEW.round_number AND "
        "agent_id = NEW.agent_id) BEGIN SELECT RAISE(ABORT, 'conclave: agent_records only grows'); END",
        "CREATE TRIGGER disclosures_no_replace BEFORE INSERT ON disclosures WHEN EXISTS (SELECT 1 FROM "
        "disclosures WHERE sha256 = NEW.sha256) BEGIN SELECT RAISE(ABORT, 'conclave: disclosures only grows'); "
        "END",
        "CREATE TRIGGER witness_head_no_replace BEFORE INSERT ON witness_head WHEN EXISTS (SELECT 1 FROM "
        "witness_head WHERE id IS NOT NULL) BEGIN SELECT RAISE(ABORT, 'conclave: witness_head only grows'); "
        "END",
        "CREATE TRIGGER erasures_no_replace_by_rowid BEFORE INSERT ON erasures WHEN NEW.rowid >= 0 AND EXISTS "
        "(SELECT 1 FROM erasures WHERE rowid = NEW.rowid) BEGIN SELECT RAISE(ABORT, 'conclave: erasures only "
        "grows'); END",
        "CREATE TRIGGER agent_records_no_replace_by_rowid BEFORE INSERT ON agent_records WHEN NEW.rowid >= 0 "
        "AND EXISTS (SELECT 1 FROM agent_records WHERE rowid = NEW.rowid) BEGIN SELECT RAISE(ABORT, 'conclave: "
        "agent_records only grows'); END",
        "CREATE TRIGGER disclosures_no_replace_by_rowid BEFORE INSERT ON disclosures WHEN NEW.rowid >= 0 AND "
        "EXISTS (SELECT 1 FROM disclosures WHERE rowid = NEW.rowid) BEGIN SELECT RAISE(ABORT, 'conclave: "
        "disclosures only grows'); END",
        "CREATE TRIGGER erasures_witnessed BEFORE INSERT ON erasures WHEN NOT EXISTS (SELECT 1 FROM "
        "witness_entries WHERE idx = NEW.idx AND deliberation_id = NEW.deliberation_id AND instr(CAST(entry AS "
        'TEXT), \'"type":"erased"\') > 0) BEGIN SELECT RAISE(ABORT, \'conclave: erasures takes only what an entry '
        "says'); END",
        "CREATE TRIGGER disclosures_no_update BEFORE UPDATE ON disclosures BEGIN SELECT RAISE(ABORT, "
        "'conclave: disclosures only grows'); END",
        "CREATE TRIGGER disclosures_no_delete BEFORE DELETE ON disclosures WHEN NOT EXISTS (SELECT 1 FROM "
        "erasures JOIN witness_entries ON witness_entries.idx = erasures.idx WHERE erasures.deliberation_id = "
        "OLD.deliberation_id AND instr(CAST(entry AS TEXT), OLD.sha256) = 0) BEGIN SELECT RAISE(ABORT, "
        "'conclave: disclosures only grows'); END",
        "CREATE TRIGGER witness_head_no_delete BEFORE DELETE ON witness_head BEGIN SELECT RAISE(ABORT, "
        "'conclave: witness_head only grows'); END",
        "CREATE TRIGGER witness_head_grows BEFORE UPDATE ON witness_head WHEN NEW.id <> OLD.id OR "
        "NEW.tree_size <= OLD.tree_size OR typeof(NEW.tree_size) <> 'integer' BEGIN SELECT RAISE(ABORT, "
        "'conclave: witness_head only grows'); END",
        "CREATE TRIGGER agent_records_no_delete BEFORE DELETE ON agent_records BEGIN SELECT RAISE(ABORT, "
        "'conclave: agent_records only grows'); END",
        "CREATE TRIGGER agent_records_no_update BEFORE UPDATE ON agent_records WHEN NOT (NEW.content IS NULL "
        "AND NEW.reasoning IS NULL AND NEW.failure_message IS NULL AND NEW.salts IS NULL AND NEW.rowid = "
        "OLD.rowid AND NEW.deliberation_id IS OLD.deliberation_id AND NEW.round_number IS OLD.round_number AND "
        "NEW.agent_id IS OLD.agent_id AND NEW.ordinal IS OLD.ordinal AND NEW.state IS OLD.state AND "
        "NEW.attempts IS OLD.attempts AND NEW.started_at IS OLD.started_at AND NEW.finished_at IS "
        "OLD.finished_at AND NEW.confidence IS OLD.confidence AND NEW.failure_kind IS OLD.failure_kind AND "
        "NEW.model_asked IS OLD.model_asked AND NEW.model IS OLD.model AND NEW.calls IS OLD.calls AND "
        "NEW.input_tokens IS OLD.input_tokens AND NEW.output_tokens IS OLD.output_tokens AND NEW.cost_usd IS "
        "OLD.cost_usd AND NEW.truncated IS OLD.truncated AND NEW.duration_seconds IS OLD.duration_seconds AND "
        "NEW.leaf_index IS OLD.leaf_index AND (NEW.answer IS NULL OR NEW.answer IS OLD.answer) AND EXISTS "
        "(SELECT 1 FROM erasures WHERE deliberation_id = OLD.deliberation_id)) BEGIN SELECT RAISE(ABORT, "
        "'conclave: agent_records only grows'); END",
        "INSERT INTO witness_head (id, tree_size, frontier) VALUES (1, 0, x'')",
    ),
    "postgresql": (
        "CREATE FUNCTION conclave_refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, "
        "pg_temp AS $$ BEGIN RAISE WARNING 'conclave: % of % was refused for %', TG_OP, TG_TABLE_NAME, "
        "session_user; RAISE EXCEPTION 'conclave: % only grows', TG_TABLE_NAME USING ERRCODE = "
        "'insufficient_privilege'; END $$",
        "CREATE FUNCTION conclave_head_grows() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, "
        "pg_temp AS $$ BEGIN IF NEW.id <> OLD.id OR NEW.tree_size <= OLD.tree_size THEN RAISE WARNING "
        "'conclave: % of % was refused for %', TG_OP, TG_TABLE_NAME, session_user; RAISE EXCEPTION 'conclave: "
        "% only grows', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege'; END IF; RETURN NEW; END $$",
        "CREATE FUNCTION conclave_erased_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, "
        "pg_temp AS $$ DECLARE is_erased boolean; BEGIN EXECUTE format('SELECT EXISTS (SELECT 1 FROM "
        "%I.erasures WHERE deliberation_id = $1)', TG_TABLE_SCHEMA) INTO is_erased USING OLD.deliberation_id; "
        "IF NOT (NEW.content IS NULL AND NEW.reasoning IS NULL AND NEW.failure_message IS NULL AND NEW.salts "
        "IS NULL AND NEW.deliberation_id IS NOT DISTINCT FROM OLD.deliberation_id AND NEW.round_number IS NOT "
        "DISTINCT FROM OLD.round_number AND NEW.agent_id IS NOT DISTINCT FROM OLD.agent_id AND NEW.ordinal IS "
        "NOT DISTINCT FROM OLD.ordinal AND NEW.state IS NOT DISTINCT FROM OLD.state AND NEW.attempts IS NOT "
        "DISTINCT FROM OLD.attempts AND NEW.started_at IS NOT DISTINCT FROM OLD.started_at AND NEW.finished_at "
        "IS NOT DISTINCT FROM OLD.finished_at AND NEW.confidence IS NOT DISTINCT FROM OLD.confidence AND "
        "NEW.failure_kind IS NOT DISTINCT FROM OLD.failure_kind AND NEW.model_asked IS NOT DISTINCT FROM "
        "OLD.model_asked AND NEW.model IS NOT DISTINCT FROM OLD.model AND NEW.calls IS NOT DISTINCT FROM "
        "OLD.calls AND NEW.input_tokens IS NOT DISTINCT FROM OLD.input_tokens AND NEW.output_tokens IS NOT "
        "DISTINCT FROM OLD.output_tokens AND NEW.cost_usd IS NOT DISTINCT FROM OLD.cost_usd AND NEW.truncated "
        "IS NOT DISTINCT FROM OLD.truncated AND NEW.duration_seconds IS NOT DISTINCT FROM OLD.duration_seconds "
        "AND NEW.leaf_index IS NOT DISTINCT FROM OLD.leaf_index AND (NEW.answer IS NULL OR NEW.answer IS NOT "
        "DISTINCT FROM OLD.answer) AND is_erased) THEN RAISE WARNING 'conclave: % of % was refused for %', "
        "TG_OP, TG_TABLE_NAME, session_user; RAISE EXCEPTION 'conclave: % only grows', TG_TABLE_NAME USING "
        "ERRCODE = 'insufficient_privilege'; END IF; RETURN NEW; END $$",
        "CREATE FUNCTION conclave_gone_if_erased() RETURNS trigger LANGUAGE plpgsql SET search_path = "
        "pg_catalog, pg_temp AS $$ DECLARE may_go boolean; BEGIN EXECUTE format('SELECT EXISTS (SELECT 1 FROM "
        "%I.erasures AS gone JOIN %I.witness_entries AS told ON told.idx = gone.idx WHERE gone.deliberation_id "
        "= $1 AND position($2 IN told.entry) = 0)', TG_TABLE_SCHEMA, TG_TABLE_SCHEMA) INTO may_go USING "
        "OLD.deliberation_id, convert_to(OLD.sha256, 'UTF8'); IF NOT may_go THEN RAISE WARNING 'conclave: % of "
        "% was refused for %', TG_OP, TG_TABLE_NAME, session_user; RAISE EXCEPTION 'conclave: % only grows', TG_TABLE_NAME USING ERRCODE = "
        "'insufficient_privilege'; END IF; RETURN OLD; END $$",
        "CREATE FUNCTION conclave_witnessed() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, "
        "pg_temp AS $$ DECLARE is_witnessed boolean; BEGIN EXECUTE format('SELECT EXISTS (SELECT 1 FROM "
        "%I.witness_entries WHERE idx = $1 AND deliberation_id = $2 AND position($3 IN entry) > 0)', "
        'TG_TABLE_SCHEMA) INTO is_witnessed USING NEW.idx, NEW.deliberation_id, convert_to(\'"type":"erased"\', '
        "'UTF8'); IF NOT is_witnessed THEN RAISE WARNING 'conclave: % of % was refused for %', TG_OP, "
        "TG_TABLE_NAME, session_user; RAISE EXCEPTION 'conclave: erasures takes only what an entry says' USING "
        "ERRCODE = 'insufficient_privilege'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER witness_entries_only_grows BEFORE UPDATE OR DELETE ON witness_entries FOR EACH ROW "
        "EXECUTE FUNCTION conclave_refuse()",
        "CREATE TRIGGER witness_nodes_only_grows BEFORE UPDATE OR DELETE ON witness_nodes FOR EACH ROW EXECUTE "
        "FUNCTION conclave_refuse()",
        "CREATE TRIGGER witness_checkpoints_only_grows BEFORE UPDATE OR DELETE ON witness_checkpoints FOR EACH "
        "ROW EXECUTE FUNCTION conclave_refuse()",
        "CREATE TRIGGER erasures_only_grows BEFORE UPDATE OR DELETE ON erasures FOR EACH ROW EXECUTE FUNCTION "
        "conclave_refuse()",
        "CREATE TRIGGER witness_entries_no_truncate BEFORE TRUNCATE ON witness_entries FOR EACH STATEMENT "
        "EXECUTE FUNCTION conclave_refuse()",
        "CREATE TRIGGER witness_nodes_no_truncate BEFORE TRUNCATE ON witness_nodes FOR EACH STATEMENT EXECUTE "
        "FUNCTION conclave_refuse()",
        "CREATE TRIGGER witness_checkpoints_no_truncate BEFORE TRUNCATE ON witness_checkpoints FOR EACH "
        "STATEMENT EXECUTE FUNCTION conclave_refuse()",
        "CREATE TRIGGER erasures_no_truncate BEFORE TRUNCATE ON erasures FOR EACH STATEMENT EXECUTE FUNCTION "
        "conclave_refuse()",
        "CREATE TRIGGER agent_records_no_truncate BEFORE TRUNCATE ON agent_records FOR EACH STATEMENT EXECUTE "
        "FUNCTION conclave_refuse()",
        "CREATE TRIGGER disclosures_no_truncate BEFORE TRUNCATE ON disclosures FOR EACH STATEMENT EXECUTE "
        "FUNCTION conclave_refuse()",
        "CREATE TRIGGER witness_head_no_truncate BEFORE TRUNCATE ON witness_head FOR EACH STATEMENT EXECUTE "
        "FUNCTION conclave_refuse()",
        "CREATE TRIGGER erasures_witnessed BEFORE INSERT ON erasures FOR EACH ROW EXECUTE FUNCTION "
        "conclave_witnessed()",
        "CREATE TRIGGER agent_records_only_grows BEFORE DELETE ON agent_records FOR EACH ROW EXECUTE FUNCTION "
        "conclave_refuse()",
        "CREATE TRIGGER agent_records_guard BEFORE UPDATE ON agent_records FOR EACH ROW EXECUTE FUNCTION "
        "conclave_erased_only()",
        "CREATE TRIGGER disclosures_only_grows BEFORE UPDATE ON disclosures FOR EACH ROW EXECUTE FUNCTION "
        "conclave_refuse()",
        "CREATE TRIGGER disclosures_guard BEFORE DELETE ON disclosures FOR EACH ROW EXECUTE FUNCTION "
        "conclave_gone_if_erased()",
        "CREATE TRIGGER witness_head_only_grows BEFORE DELETE ON witness_head FOR EACH ROW EXECUTE FUNCTION "
        "conclave_refuse()",
        "CREATE TRIGGER witness_head_guard BEFORE UPDATE ON witness_head FOR EACH ROW EXECUTE FUNCTION "
        "conclave_head_grows()",
        "ALTER TABLE witness_entries ENABLE ALWAYS TRIGGER witness_entries_only_grows",
        "ALTER TABLE witness_nodes ENABLE ALWAYS TRIGGER witness_nodes_only_grows",
        "ALTER TABLE witness_checkpoints ENABLE ALWAYS TRIGGER witness_checkpoints_only_grows",
        "ALTER TABLE erasures ENABLE ALWAYS TRIGGER erasures_only_grows",
        "ALTER TABLE witness_entries ENABLE ALWAYS TRIGGER witness_entries_no_truncate",
        "ALTER TABLE witness_nodes ENABLE ALWAYS TRIGGER witness_nodes_no_truncate",
        "ALTER TABLE witness_checkpoints ENABLE ALWAYS TRIGGER witness_checkpoints_no_truncate",
        "ALTER TABLE erasures ENABLE ALWAYS TRIGGER erasures_no_truncate",
        "ALTER TABLE agent_records ENABLE ALWAYS TRIGGER agent_records_no_truncate",
        "ALTER TABLE disclosures ENABLE ALWAYS TRIGGER disclosures_no_truncate",
        "ALTER TABLE witness_head ENABLE ALWAYS TRIGGER witness_head_no_truncate",
        "ALTER TABLE erasures ENABLE ALWAYS TRIGGER erasures_witnessed",
        "ALTER TABLE agent_records ENABLE ALWAYS TRIGGER agent_records_only_grows",
        "ALTER TABLE agent_records ENABLE ALWAYS TRIGGER agent_records_guard",
        "ALTER TABLE disclosures ENABLE ALWAYS TRIGGER disclosures_only_grows",
        "ALTER TABLE disclosures ENABLE ALWAYS TRIGGER disclosures_guard",
        "ALTER TABLE witness_head ENABLE ALWAYS TRIGGER witness_head_only_grows",
        "ALTER TABLE witness_head ENABLE ALWAYS TRIGGER witness_head_guard",
        "INSERT INTO witness_head (id, tree_size, frontier) VALUES (1, 0, '')",
    ),
}
_LATER_GONE = {
    "sqlite": (),
    "postgresql": tuple(
        f"DROP FUNCTION conclave_{name}()"
        for name in ("refuse", "head_grows", "erased_only", "gone_if_erased", "witnessed")
    ),
}


def upgrade() -> None:
    """Bring the tables to this revision."""
    _refuse_what_has_no_record("Deliberations were stored before there was a record, and none can be made afterwards")
    for table in ("events", "agent_records", "specifications", "deliberations"):
        op.drop_table(table)
    _create_deliberations()
    _create_log()
    for statement in _GUARDS[op.get_bind().dialect.name]:
        op.get_bind().exec_driver_sql(
            statement.replace("%", "%%") if op.get_bind().dialect.name == "postgresql" else statement
        )


def _create_deliberations() -> None:
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
        sa.Column("first_index", sa.BigInteger),
        sa.Column("last_index", sa.BigInteger),
        sa.Column("tree_size", sa.BigInteger),
        sa.Column("root_hash", sa.String(64)),
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
        sa.Column("salts", sa.LargeBinary),
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
        sa.PrimaryKeyConstraint("deliberation_id", "round_number", "agent_id", name=op.f("pk_agent_records")),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_agent_records_deliberation_id_deliberations")
        ),
    )


def _create_log() -> None:
    op.create_table(
        "witness_head",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("tree_size", sa.BigInteger, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_witness_head")),
    )
    op.create_table(
        "witness_entries",
        sa.Column("idx", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=False),
        sa.Column("leaf_hash", sa.LargeBinary, nullable=False),
        sa.Column("deliberation_id", sa.String(36)),
        sa.Column("sequence", sa.Integer),
        sa.Column("entry", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("idx", name=op.f("pk_witness_entries")),
    )
    op.create_index(
        op.f("ix_witness_entries_deliberation_id_sequence"), "witness_entries", ["deliberation_id", "sequence"]
    )
    op.create_table(
        "witness_nodes",
        sa.Column("tile_level", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("place", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tile_level", "place", name=op.f("pk_witness_nodes")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "witness_checkpoints",
        sa.Column("tree_size", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tree_size", name=op.f("pk_witness_checkpoints")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "disclosures",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("deliberation_id", sa.String(36)),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_disclosures")),
    )
    op.create_index(op.f("ix_disclosures_deliberation_id"), "disclosures", ["deliberation_id"])
    op.create_table(
        "erasures",
        sa.Column("deliberation_id", sa.String(36), nullable=False),
        sa.Column("idx", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("deliberation_id", name=op.f("pk_erasures")),
        sa.ForeignKeyConstraint(
            ["deliberation_id"], ["deliberations.id"], name=op.f("fk_erasures_deliberation_id_deliberations")
        ),
    )


def _refuse_what_has_no_record(problem: str) -> None:
    if op.get_bind().execute(sa.text("SELECT count(*) FROM deliberations")).scalar():
        raise ConfigurationError(
            variable="CONCLAVE_DATABASE_URL", problem=problem, remedy="Keep that database, and begin with a new one."
        )


def downgrade() -> None:
    """Take the tables back to the revision before."""
    _refuse_what_has_no_record("The deliberations in it are recorded, and going back would take their record away")
    for table in (*_LOG, "disclosures", "witness_head", "agent_records", "specifications", "deliberations"):
        op.drop_table(table)
    for statement in _LATER_GONE[op.get_bind().dialect.name]:
        op.execute(sa.text(statement))
    _create_revision_0001()


def _create_revision_0001() -> None:
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
