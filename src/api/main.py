"""The ASGI application of Conclave and its server, both over a Conclave that is already open."""

from __future__ import annotations

from api.rest.application import create_app
from api.rest.cosigning import Cosigner, serve_cosigner
from api.rest.server import Front, RestServer, serve
from api.rest.workplace import work

__all__ = ["Cosigner", "Front", "RestServer", "create_app", "serve", "serve_cosigner", "work"]
