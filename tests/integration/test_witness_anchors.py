"""Anchors over HTTP against a far end on loopback: what counts as kept, and how each way of not being kept is told."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from application.ports.anchor import AnchorConflictError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import COSIGNATURE_V1, VerifierKey, open_checkpoint
from domain.witness.merkle import leaf_hash, root_hash
from domain.witness.proof import consistency_proof
from infrastructure.witness.anchor_http import CosignerAnchor, WebhookAnchor
from infrastructure.witness.cosigning_witness import SIZE_CONTENT_TYPE, CosigningWitness
from infrastructure.witness.ed25519 import SigningKey, verify_signature
from infrastructure.witness.signer import CheckpointSigner

_SIGNER = CheckpointSigner(SigningKey.from_seed(b"\x01" * 32), "log.example")
_WITNESS_KEY = SigningKey.from_seed(b"\x09" * 32)
_VKEY = VerifierKey("witness.example/w1", COSIGNATURE_V1, _WITNESS_KEY.public_key)
_LEAVES = [leaf_hash(f"entry {index}".encode()) for index in range(20)]

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _FarEnd:
    """A server that keeps what it is sent, with its path, and answers as it was told."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, bytes]] = []
        self.answer: Answer = _status(200)
        self.url = ""

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.received.append((request.path_qs, request.headers["Content-Type"], await request.read()))
        return await self.answer(request)


def _status(status: int, body: bytes = b"", **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return answer


@pytest.fixture
async def far_end() -> AsyncIterator[_FarEnd]:
    far_end = _FarEnd()
    application = web.Application()
    application.router.add_post("/{path:.*}", far_end.take)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    far_end.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield far_end
    await runner.cleanup()


def _note(size: int, *, root: bytes | None = None) -> str:
    return _SIGNER.sign(size, root_hash(_LEAVES[:size]) if root is None else root)


def _proof(first: int, second: int) -> list[bytes]:
    def node(height: int, index: int) -> bytes:
        return root_hash(_LEAVES[index << height : (index + 1) << height])

    return [] if first in (0, second) else list(consistency_proof(first, second, node))


def _witnessed_by(witness: CosigningWitness) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        status, body = await asyncio.to_thread(witness.add_checkpoint, await request.read())
        return web.Response(status=status, body=body, content_type=SIZE_CONTENT_TYPE if status == 409 else "text/plain")

    return answer


@pytest.fixture
def witness(tmp_path: Path) -> CosigningWitness:
    return CosigningWitness(
        tmp_path / "witness.sqlite", key=_WITNESS_KEY, name=_VKEY.name, logs={"log.example": _SIGNER.verifier_key}
    )


async def test_a_webhook_is_posted_the_note_as_plain_text(far_end: _FarEnd) -> None:
    anchor = WebhookAnchor(f"{far_end.url}/s3kr3t?x=1")
    far_end.answer = _status(204)
    await anchor.publish(_note(7), old_size=0, consistency=())
    assert far_end.received == [("/s3kr3t?x=1", "text/plain; charset=utf-8", _note(7).encode())]
    assert await anchor.latest() is None


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_of_a_webhook_is_not_followed(far_end: _FarEnd, status: int) -> None:
    far_end.answer = _status(status, Location=f"{far_end.url}/elsewhere")
    with pytest.raises(DependencyUnavailableError, match=f"status {status}"):
        await WebhookAnchor(f"{far_end.url}/s3kr3t").publish(_note(7))
    assert [path for path, _, _ in far_end.received] == ["/s3kr3t"]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 429, 500, 503])
async def test_a_webhook_that_does_not_take_it_is_told_without_its_address(far_end: _FarEnd, status: int) -> None:
    far_end.answer = _status(status, b"s3kr3t")
    with pytest.raises(DependencyUnavailableError, match=f"status {status}") as caught:
        await WebhookAnchor(f"{far_end.url}/s3kr3t").publish(_note(7))
    assert "s3kr3t" not in str(caught.value)


async def test_a_far_end_that_is_away_is_told_without_its_address(unused_tcp_port: int) -> None:
    for anchor in (
        WebhookAnchor(f"http://127.0.0.1:{unused_tcp_port}/s3kr3t"),
        CosignerAnchor(f"http://127.0.0.1:{unused_tcp_port}/s3kr3t", _VKEY),
    ):
        with pytest.raises(DependencyUnavailableError, match="cannot be reached") as caught:
            await anchor.publish(_note(7), old_size=0, consistency=())
        assert "s3kr3t" not in str(caught.value)


async def test_a_far_end_that_hangs_is_given_up(far_end: _FarEnd) -> None:
    released = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    far_end.answer = hang
    with pytest.raises(DependencyUnavailableError, match=r"within 0\.2 s"):
        await WebhookAnchor(far_end.url, timeout_s=0.2).publish(_note(7))
    released.set()


async def test_an_endless_answer_is_not_read_to_its_end(far_end: _FarEnd) -> None:
    far_end.answer = _status(200, b"x" * 1_000_000)
    with pytest.raises(DependencyUnavailableError, match="longer than"):
        await WebhookAnchor(far_end.url).publish(_note(7))


async def test_a_growing_log_is_cosigned_step_by_step(far_end: _FarEnd, witness: CosigningWitness) -> None:
    far_end.answer = _witnessed_by(witness)
    anchor = CosignerAnchor(f"{far_end.url}/w", _VKEY)
    assert await anchor.latest() is None
    for old, size in itertools.pairwise([0, 1, 7, 7, 16, 20]):
        await anchor.publish(_note(size), old_size=old, consistency=_proof(old, size))
        cosigned = await anchor.latest()
        assert cosigned is not None
        for key in (_VKEY, _SIGNER.verifier_key):
            assert open_checkpoint(cosigned, key, verify_signature, origin="log.example")[0].tree_size == size


async def test_the_request_has_the_form_of_the_protocol(far_end: _FarEnd, witness: CosigningWitness) -> None:
    far_end.answer = _witnessed_by(witness)
    anchor = CosignerAnchor(f"{far_end.url}/w", _VKEY)
    await anchor.publish(_note(7), old_size=0, consistency=())
    await anchor.publish(_note(9), old_size=7, consistency=_proof(7, 9))
    (_, _, first), (path, _, second) = far_end.received
    hashes = "".join(base64.b64encode(each).decode() + "\n" for each in _proof(7, 9))
    assert path == "/w/add-checkpoint"
    assert first.decode() == f"old 0\n\n{_note(7)}"
    assert second.decode() == f"old 7\n{hashes}\n{_note(9)}"


async def test_a_conflict_says_from_which_size_to_publish_again(far_end: _FarEnd, witness: CosigningWitness) -> None:
    far_end.answer = _witnessed_by(witness)
    anchor = CosignerAnchor(far_end.url, _VKEY)
    await anchor.publish(_note(7), old_size=0, consistency=())
    with pytest.raises(AnchorConflictError) as caught:
        await anchor.publish(_note(9), old_size=0, consistency=())
    held = caught.value.conflict_size
    assert held == 7
    await anchor.publish(_note(9), old_size=held, consistency=_proof(held, 9))


async def test_another_root_for_the_size_that_was_cosigned_is_refused(
    far_end: _FarEnd, witness: CosigningWitness
) -> None:
    far_end.answer = _witnessed_by(witness)
    anchor = CosignerAnchor(far_end.url, _VKEY)
    await anchor.publish(_note(7), old_size=0, consistency=())
    with pytest.raises(VerificationRefusedError, match="another root for the same size, 7"):
        await anchor.publish(_note(7, root=bytes(32)), old_size=7, consistency=())


async def test_a_log_that_does_not_extend_what_was_cosigned_is_refused(
    far_end: _FarEnd, witness: CosigningWitness
) -> None:
    far_end.answer = _witnessed_by(witness)
    anchor = CosignerAnchor(far_end.url, _VKEY)
    await anchor.publish(_note(7), old_size=0, consistency=())
    with pytest.raises(VerificationRefusedError, match="refuses the proof"):
        await anchor.publish(_note(9, root=bytes(32)), old_size=7, consistency=_proof(7, 9))
    assert "\n7\n" in (await anchor.latest() or "")


@pytest.mark.parametrize("body", [b"", b"7", b"07\n", b"-1\n", b"7\n\n", b"99999999999999999999\n", b"seven\n"])
async def test_a_conflict_without_a_size_is_no_conflict(far_end: _FarEnd, body: bytes) -> None:
    far_end.answer = _status(409, body)
    with pytest.raises(DependencyUnavailableError, match="no size") as caught:
        await CosignerAnchor(far_end.url, _VKEY).publish(_note(7), old_size=0, consistency=())
    assert not isinstance(caught.value, AnchorConflictError)


@pytest.mark.parametrize(
    ("status", "what"), [(403, "does not know this log"), (404, "does not know this log"), (500, "500")]
)
async def test_a_witness_that_does_not_cosign_is_unavailable(far_end: _FarEnd, status: int, what: str) -> None:
    far_end.answer = _status(status)
    with pytest.raises(DependencyUnavailableError, match=what):
        await CosignerAnchor(far_end.url, _VKEY).publish(_note(7), old_size=0, consistency=())


def _cosigned_by(key: SigningKey, *, name: str = _VKEY.name, size: int = 7, tmp_path: Path) -> bytes:
    logs = {"log.example": _SIGNER.verifier_key}
    witness = CosigningWitness(tmp_path / f"{name.replace('/', '-')}-{size}", key=key, name=name, logs=logs)
    return witness.add_checkpoint(f"old 0\n\n{_note(size)}".encode())[1]


async def test_an_answer_that_is_no_cosignature_of_this_witness_is_refused(far_end: _FarEnd, tmp_path: Path) -> None:
    good = _cosigned_by(_WITNESS_KEY, tmp_path=tmp_path)
    spoilt = good[:-9] + (b"A" if good[-9:-8] != b"A" else b"B") + good[-8:]
    answers = [
        b"",
        b"ok\n",
        b"\xff\n",
        good.rstrip(b"\n"),
        spoilt,
        good + spoilt,
        b"\n" + good,
        _cosigned_by(SigningKey.generate(), name="stranger", tmp_path=tmp_path),
        _cosigned_by(_WITNESS_KEY, size=8, tmp_path=tmp_path),
    ]
    anchor = CosignerAnchor(far_end.url, _VKEY)
    for answer in answers:
        far_end.answer = _status(200, answer)
        with pytest.raises(VerificationRefusedError):
            await anchor.publish(_note(7), old_size=0, consistency=())
    assert await anchor.latest() is None


async def test_cosignatures_of_strangers_are_left_out(far_end: _FarEnd, tmp_path: Path) -> None:
    stranger = _cosigned_by(SigningKey.generate(), name="stranger", tmp_path=tmp_path)
    far_end.answer = _status(200, stranger + _cosigned_by(_WITNESS_KEY, tmp_path=tmp_path))
    anchor = CosignerAnchor(far_end.url, _VKEY)
    await anchor.publish(_note(7), old_size=0, consistency=())
    cosigned = await anchor.latest()
    assert cosigned is not None
    assert "stranger" not in cosigned
    assert cosigned.startswith(_note(7))
