"""Puts the room together: its files, its pages, and refusals that a person can read."""

from __future__ import annotations

from fastapi import FastAPI

from api.dashboard.archive import add_archive
from api.dashboard.ask import add_ask
from api.dashboard.chamber import add_chamber
from api.dashboard.halt_banner import add_halt_banner
from api.dashboard.operations import add_operations
from api.dashboard.problem_pages import answer_problems_as_pages
from api.dashboard.record import add_record
from api.dashboard.reference import add_reference
from api.dashboard.rendering import open_templates
from api.dashboard.signing_in import add_signing_in
from api.dashboard.static_files import add_static_files

__all__ = ["add_dashboard"]


def add_dashboard(app: FastAPI) -> None:
    """Put every page into `app`, whose state holds the open Conclave and the sessions; the handlers of problems stand already."""
    open_templates(app)
    answer_problems_as_pages(app)
    add_static_files(app)
    add_signing_in(app)
    add_halt_banner(app)
    add_chamber(app)
    add_ask(app)
    add_archive(app)
    add_record(app)
    add_operations(app)
    add_reference(app)
