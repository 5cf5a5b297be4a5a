"""The witnessed record: who signs it, what checks it, what keeps watch on it, and who cosigns it for others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from api.bootstrap.storage import make_data_folder
from domain.errors.conclave_error import ConclaveError
from domain.errors.configuration import ConfigurationError

if TYPE_CHECKING:
    from application.ports.witness_log import WitnessLog
    from application.services.verification import VerificationTools
    from application.services.witness_service import WitnessService
    from domain.witness.checkpoint import VerifierKey
    from infrastructure.halt.dual_channel_halt_checker import DualChannelHaltChecker
    from infrastructure.persistence.database import Database
    from infrastructure.settings import Settings
    from infrastructure.stubs.crash_points import CrashPlan
    from infrastructure.witness.cosigning_witness import CosigningWitness

__all__ = ["RECORD_HALTS", "kept_record", "open_cosigner", "open_witness", "publish_last", "verification_tools"]

_logger = logging.getLogger(__name__)
_DEFAULT_ORIGIN = "conclave.local/witness"
_RECORD_WATCH_S = 0.25
# Where exactly it does not verify may name anchors, whose addresses are not for everybody who may ask why it is halted.
RECORD_HALTS = "the witness log does not verify; `conclave witness fsck` says where"


def open_witness(
    settings: Settings, database: Database, *, signs: bool, crash: CrashPlan | None = None
) -> WitnessService:
    """With `signs` it has the log's key; without, it compares with what others signed, and anchors nothing.

    Raises `ConfigurationError`.
    """
    from application.services.witness_service import WitnessService
    from infrastructure.persistence.sql_witness_log import SqlWitnessLog
    from infrastructure.witness.anchors import open_anchor, parse_anchors
    from infrastructure.witness.ed25519 import SigningKey
    from infrastructure.witness.key_file import open_signing_key
    from infrastructure.witness.signer import CheckpointSigner

    origin = settings.witness_origin or _DEFAULT_ORIGIN
    if not signs:
        nobody = CheckpointSigner(SigningKey.generate(), origin)
        return WitnessService(log=SqlWitnessLog(database), signer=nobody, tools=verification_tools())
    key_file = settings.witness_key_file or settings.data_dir / "witness.key"
    anchors = [open_anchor(spec) for spec in parse_anchors(",".join(settings.witness_anchors))]
    signer = CheckpointSigner(open_signing_key(key_file, create=True, name=origin), origin)
    log: WitnessLog = SqlWitnessLog(database)
    if crash is not None:
        log = crash.witness_log(log)
    return WitnessService(log=log, signer=signer, anchors=anchors, tools=verification_tools())


@asynccontextmanager
async def kept_record(witness: WitnessService, halt: DualChannelHaltChecker, *, signs: bool) -> AsyncIterator[None]:
    """Within it the log is signed and published as it grows, and everything stands still while it does not verify."""

    async def watch() -> None:
        halted_here = witness.problem is not None
        while True:
            await asyncio.sleep(_RECORD_WATCH_S)
            if witness.problem is not None and not halted_here:
                halted_here = True
                halt.hold(RECORD_HALTS)
            elif witness.problem is None and halted_here:
                halted_here = False
                halt.let_go()

    keep = witness.publish_for_ever if signs else witness.watch_for_ever
    tasks = [asyncio.create_task(watch()), asyncio.create_task(keep())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def publish_last(witness: WitnessService) -> None:
    """Sign what was added last, so that the next start compares with all of it."""
    try:
        await witness.publish()
    except ConclaveError as error:
        _logger.warning("the last checkpoint was not published: %s", error)


def verification_tools() -> VerificationTools:
    """What checks a bundle or an export offline: signatures and canonical JSON. Needs no settings and no database."""
    from application.services.verification import VerificationTools
    from infrastructure.witness.canonical_json import parse_canonical
    from infrastructure.witness.ed25519 import verify_signature

    return VerificationTools(check_signature=verify_signature, parse_canonical=parse_canonical)


def open_cosigner(settings: Settings, *, name: str, logs: Mapping[str, VerifierKey]) -> CosigningWitness:
    """A witness for the logs of these origins, with a key and a store of its own in the data folder.

    Raises `ConfigurationError` and `DependencyUnavailableError`.
    """
    from infrastructure.witness.cosigning_witness import CosigningWitness
    from infrastructure.witness.key_file import open_signing_key

    make_data_folder(settings)
    key_file, store = settings.data_dir / "cosigner.key", settings.data_dir / "cosigned.db"
    if key_file.exists() and not store.exists():
        raise ConfigurationError(
            variable="CONCLAVE_DATA_DIR",
            problem=f"there is the key {str(key_file)!r}, but no longer the record of what it has cosigned",
            remedy="Bring cosigned.db back, or move the key away and have the logs take the new one.",
        )
    try:
        # Before the key, so that no key is ever older than its record.
        store.touch(mode=0o600)
    except OSError as error:
        raise ConfigurationError(
            variable="CONCLAVE_DATA_DIR",
            problem=f"{str(store)!r} cannot be made ({error.strerror})",
            remedy="Name a folder that this user may write to.",
        ) from error
    try:
        return CosigningWitness(store, key=open_signing_key(key_file, create=True, name=name), name=name, logs=logs)
    except ValueError as error:
        raise ConfigurationError(
            variable="--name",
            problem=f"{name!r} cannot name a witness",
            remedy="Give a name without blanks and plus signs.",
        ) from error
