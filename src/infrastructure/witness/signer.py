"""Signs the checkpoints of this service's own log."""

from __future__ import annotations

from domain.errors.configuration import ConfigurationError
from domain.witness.checkpoint import ED25519, Checkpoint, NoteSignature, SignedNote, VerifierKey
from infrastructure.witness.ed25519 import SigningKey

__all__ = ["CheckpointSigner"]


class CheckpointSigner:
    """Says with one key and under one origin how large the log is and what its root is."""

    def __init__(self, key: SigningKey, origin: str) -> None:
        """`origin` is the log's name in its checkpoints, like example.com/conclave. Raises `ConfigurationError` for one that is no name."""
        try:
            self.verifier_key = VerifierKey(origin, ED25519, key.public_key)
        except ValueError as error:
            raise ConfigurationError(
                variable="CONCLAVE_WITNESS_ORIGIN",
                problem=f"{origin!r} cannot name a log",
                remedy="Give a name without blanks and plus signs, like example.com/conclave.",
            ) from error
        self._key = key

    @property
    def origin(self) -> str:
        """The first line of every checkpoint."""
        return self.verifier_key.name

    def sign(self, tree_size: int, root_hash: bytes) -> str:
        """The signed note (C2SP tlog-checkpoint) for that many entries under that root (32 bytes). The same input gives the same note."""
        text = Checkpoint(self.origin, tree_size, root_hash).body()
        signature = NoteSignature(self.origin, self.verifier_key.key_id, self._key.sign(text.encode()))
        return str(SignedNote(text, (signature,)))
