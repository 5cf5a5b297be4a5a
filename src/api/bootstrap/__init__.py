"""Settings in, open service and its closer out: the only package of the doors that sees the infrastructure."""

from __future__ import annotations

from api.bootstrap.audit import audit_log
from api.bootstrap.examination import examine
from api.bootstrap.opening import open_conclave, open_halt
from api.bootstrap.process import Purpose, configure_logging, load_settings, run
from api.bootstrap.providers import examine_providers, has_providers
from api.bootstrap.record import open_cosigner, verification_tools
from api.bootstrap.replaying import replay_bundle
from api.bootstrap.storage import upgrade_database
from api.bootstrap.webhooks import list_webhook_deliveries, rotate_webhook_key, show_webhook_keys

__all__ = [
    "Purpose",
    "audit_log",
    "configure_logging",
    "examine",
    "examine_providers",
    "has_providers",
    "list_webhook_deliveries",
    "load_settings",
    "open_conclave",
    "open_cosigner",
    "open_halt",
    "replay_bundle",
    "rotate_webhook_key",
    "run",
    "show_webhook_keys",
    "upgrade_database",
    "verification_tools",
]
