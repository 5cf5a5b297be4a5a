"""What alembic runs: the migrations of Conclave on the database that CONCLAVE_DATABASE_URL names."""

from __future__ import annotations

import os

from alembic import context

from infrastructure.persistence.migrate import run_in_environment

run_in_environment(context, os.environ.get("CONCLAVE_DATABASE_URL"))
