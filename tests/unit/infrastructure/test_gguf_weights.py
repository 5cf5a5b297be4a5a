"""A model is rewritten with the same numbers in another form, or refused; the rest of its file stays as it is."""

from __future__ import annotations

import struct

import pytest

from infrastructure.orchestrators.gguf_weights import Q4_1, Q8_0, UnreadableModelError, converted_bytes, rewrite

F32 = 0
UINT32, STRING, ARRAY = 4, 8, 9


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


PAIRS = [
    pair("general.name", STRING, text("specimen")),
    pair("words", ARRAY, struct.pack("<IQ", STRING, 2) + text("yes") + text("no")),
    pair("numbers", ARRAY, struct.pack("<IQ3I", UINT32, 3, 1, 2, 3)),
]
# Two rows of one block: 0 to 3.75 in quarters with a least number of -1, in ggml's order of low and high halves.
BLOCK = struct.pack("<2e", 0.25, -1.0) + bytes(range(16))
PLAIN = struct.pack("<4f", 1.0, 2.0, 3.0, 4.0)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 32)


def model(tensors: list[tuple[str, int, tuple[int, ...], bytes]], pairs: list[bytes] = PAIRS) -> bytes:
    infos, data = b"", b""
    for name, kind, shape, content in tensors:
        infos += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += padded(content)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs) + infos
    return padded(head) + data


def numbers_of_q4_1(block: bytes) -> list[float]:
    scale, least = struct.unpack_from("<2e", block)
    return [scale * (byte & 15) + least for byte in block[4:]] + [scale * (byte >> 4) + least for byte in block[4:]]


def convert(tensor: memoryview, row: int, rows: int) -> bytes:
    written = b""
    for at in range(0, row * rows // 32 * 20, 20):
        numbers = numbers_of_q4_1(bytes(tensor[at : at + 20]))
        scale = max(map(abs, numbers)) / 127
        written += struct.pack("<e32b", scale, *(round(number / scale) for number in numbers))
    return written


def rewritten(original: bytes) -> bytes:
    return b"".join(rewrite(memoryview(original), convert))


SPECIMEN = model([("plain", F32, (4,), PLAIN), ("blocks", Q4_1, (32, 2), 2 * BLOCK), ("last", F32, (4,), PLAIN)])


def test_the_numbers_of_a_tensor_stay_the_same_within_half_a_step() -> None:
    found = rewritten(SPECIMEN)
    scale, *steps = struct.unpack("<e32b", found[-32 - 96 :][:34])
    assert [scale * step for step in steps] == pytest.approx(numbers_of_q4_1(BLOCK), abs=0.02)


def test_everything_but_the_converted_tensors_stays_as_it_is() -> None:
    blocks = convert(memoryview(2 * BLOCK), 32, 2)
    expected = model([("plain", F32, (4,), PLAIN), ("blocks", Q8_0, (32, 2), blocks), ("last", F32, (4,), PLAIN)])
    assert rewritten(SPECIMEN) == expected


def test_the_size_is_known_before_anything_is_written() -> None:
    assert converted_bytes(memoryview(SPECIMEN)) == 32 + 2 * 34 + 32


def test_a_model_without_such_tensors_has_nothing_to_gain() -> None:
    assert converted_bytes(memoryview(model([("plain", F32, (4,), PLAIN)]))) == 0


def test_an_alignment_of_its_own_is_kept() -> None:
    pairs = [pair("general.alignment", UINT32, struct.pack("<I", 64))]
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + pairs[0]
    head += text("blocks") + struct.pack("<I1QIQ", 1, 32, Q4_1, 0)
    found = rewritten(head + bytes(-len(head) % 64) + BLOCK)
    assert len(found) == 2 * 64 + 64
    assert found[128:162] == convert(memoryview(BLOCK), 32, 1)


@pytest.mark.parametrize("length", [3, 20, 60, 150, len(SPECIMEN) - 33 - 64])
def test_a_model_that_ends_too_early_is_refused(length: int) -> None:
    with pytest.raises(UnreadableModelError, match="ends too early"):
        rewritten(SPECIMEN[:length])


@pytest.mark.parametrize(
    ("spoilt", "problem"),
    [
        (b"GGML" + SPECIMEN[4:], "no little-endian GGUF"),
        (model([("blocks", Q4_1, (33, 1), 2 * BLOCK)]), "a row of 33 numbers"),
        (model([("plain", F32, (), PLAIN)]), "0 dimensions"),
        (model([], [pair("odd", 99, b"")]), "type 99"),
        (model([], [pair("general.alignment", UINT32, struct.pack("<I", 24))]), "alignment of 24"),
    ],
)
def test_what_is_no_such_model_is_refused_by_name(spoilt: bytes, problem: str) -> None:
    with pytest.raises(UnreadableModelError, match=problem):
        rewritten(spoilt)


@pytest.mark.parametrize("answer", [b"", bytes(2 * 34), struct.pack("<e32b", 1.0, *range(32)) * 2])
def test_a_converter_that_went_wrong_is_not_believed(answer: bytes) -> None:
    with pytest.raises(UnreadableModelError, match="a tensor"):
        list(rewrite(memoryview(SPECIMEN), lambda tensor, row, rows: answer))
