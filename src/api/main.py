"""The ASGI application of Conclave and its server, both over a Conclave that is already open."""

from __future__ import annotations

from api.rest.application import create_app
from api.rest.cosigning import Cosigner, serve_cosigner
from api.rest.server import RestServer, serve

__all__ = ["Cosigner", "RestServer", "create_app", "serve", "serve_cosigner"]
