"""How the text of messages and responses is put into files: as it is, compressed, encrypted, or both."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Envelope", "envelope_of"]

_COMPRESSED = b"CSZ1"
_MOST_BYTES = 1_048_576


class Envelope:
    """Packs and unpacks; `unpack` raises `ValueError` for what was not packed so, with this key and for a file of this name."""

    def __init__(self, *, compresses: bool, key: "bytes | None") -> None:
        self._compresses = compresses
        self._seal: Any = None
        if key is not None:
            from infrastructure.soak.sealing import Seal

            self._seal = Seal(key)
        if compresses:
            import zlib

            self._zlib = zlib

    def pack(self, text: bytes, name: str) -> bytes:
        """What is to lie in the file of that name."""
        if self._compresses:
            text = _COMPRESSED + self._zlib.compress(text, 1)
        if self._seal is not None:
            text = self._seal.close(text, name)
        return text

    def unpack(self, text: bytes, name: str) -> bytes:
        """What was packed."""
        if self._seal is not None:
            text = self._seal.open(text, name)
        if self._compresses:
            if not text.startswith(_COMPRESSED):
                raise ValueError("is not compressed")
            unpacker = self._zlib.decompressobj()
            try:
                text = unpacker.decompress(text[len(_COMPRESSED) :], _MOST_BYTES)
            except self._zlib.error as error:
                raise ValueError("is not compressed as it should be") from error
            if unpacker.unconsumed_tail or not unpacker.eof:
                raise ValueError("is longer than a message may be, or cut off")
        return text


def envelope_of(configuration: "dict[str, Any]") -> "Envelope | None":
    """The envelope that `compress` and `key` (hex) of the configuration ask for, None for none."""
    compresses, key = bool(configuration.get("compress")), configuration.get("key")
    if not compresses and not key:
        return None
    return Envelope(compresses=compresses, key=bytes.fromhex(key) if key else None)
