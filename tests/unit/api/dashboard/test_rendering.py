"""What a server has ready before its first visitor."""

from __future__ import annotations

import jinja2
from fastapi import FastAPI
from jinja2.meta import find_referenced_templates

from api.dashboard.rendering import open_templates, prepare_templates


def reached_from(templates: jinja2.Environment, name: str) -> set[str]:
    assert templates.loader is not None
    source, _, _ = templates.loader.get_source(templates, name)
    named = {each for each in find_referenced_templates(templates.parse(source)) if each is not None}
    return {name}.union(*(reached_from(templates, each) for each in named))


def test_every_template_of_a_search_is_compiled_before_anybody_asks_for_one() -> None:
    app = FastAPI()
    open_templates(app)
    templates: jinja2.Environment = app.state.templates
    prepare_templates(app)
    assert templates.cache is not None
    assert {str(name) for _, name in templates.cache.keys()} == reached_from(templates, "archive.html")  # noqa: SIM118 - jinja2's cache is no dict
