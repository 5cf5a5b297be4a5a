"""Changes of the stored log itself: its entries, nodes, checkpoints and head."""

import random
from collections.abc import Sequence

from domain.witness.merkle import CompactRange, leaf_hash
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.signer import CheckpointSigner
from tests.integration.stored_logs import ORIGIN, SIGNED, Mutation, Stored

__all__ = [
    "OF_ENTRIES",
    "OF_NODES_AND_CHECKPOINTS",
    "OF_THE_HEAD",
    "OF_THE_WHOLE",
    "OF_THE_WHOLE_WITH_CHECKPOINTS",
    "flipped",
]


def flipped(data: bytes, draw: random.Random) -> bytes:
    """One bit of it turned over."""
    changed = bytearray(data)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _other_bytes(data: bytes, draw: random.Random) -> bytes:
    return draw.choice((flipped(data, draw), data[:-1], data + b"\x00", b"", bytes(len(data)), data[::-1], data * 2))


def _edit_entry(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_entries)
    row[4] = draw.choice((_other_bytes(row[4], draw), row[4].replace(b":", b": ", 1)))


def _edit_entry_and_leaf(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_entries)
    row[4] = _other_bytes(row[4], draw)
    row[1] = leaf_hash(row[4])


def _edit_leaf(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_entries)
    row[1] = _other_bytes(row[1], draw)


def _swap_leaves(log: Stored, draw: random.Random) -> None:
    one, other = draw.sample(log.witness_entries, 2)
    one[1], other[1] = other[1], one[1]


def _swap_entries(log: Stored, draw: random.Random) -> None:
    one, other = draw.sample(log.witness_entries, 2)
    one[0], other[0] = other[0], one[0]


def _reorder(log: Stored, draw: random.Random) -> None:
    start = draw.randrange(log.size - 1)
    moved = log.witness_entries[start : start + draw.randrange(2, 40)]
    for row, place in zip(moved, [moved[-1][0], *(each[0] for each in moved[:-1])], strict=True):
        row[0] = place


def _repeat_entry(log: Stored, draw: random.Random) -> None:
    one, other = draw.sample(log.witness_entries, 2)
    one[1:] = other[1:]


def _delete_entries(log: Stored, draw: random.Random) -> None:
    start = draw.randrange(log.size)
    del log.witness_entries[start : start + draw.choice((1, 1, 2, 50))]


def _shift_entries(log: Stored, draw: random.Random) -> None:
    for row in log.witness_entries[draw.randrange(log.size) :]:
        row[0] += 1


def _truncate(log: Stored, draw: random.Random) -> None:
    del log.witness_entries[draw.randrange(log.size) :]


def _insert_entry(log: Stored, draw: random.Random) -> None:
    copied = list(draw.choice(log.witness_entries))
    copied[0] = draw.choice((log.size, log.size + 1, log.size + 100, 10_000_000, 2**40, -1, -(2**40)))
    log.witness_entries.append(copied)


def _refile_entry(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_entries)
    row[2] = draw.choice([None, "another"]) if row[2] is not None else "another"


def _edit_sequence(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_entries)
    row[3] = draw.choice([each for each in (None, 0, 1, 2, 7, 1_000, -1) if each != row[3]])


def _swap_sequences(log: Stored, draw: random.Random) -> None:
    own = draw.choice(log.deliberations)[0]
    rows = [row for row in log.witness_entries if row[2] == own]
    pairs = [(one, other) for one in rows for other in rows if one[3] < other[3]]
    if pairs:
        one, other = draw.choice(pairs)
        one[3], other[3] = other[3], one[3]
    else:
        rows[0][3] += 1


def _keep_checkpoint_elsewhere(log: Stored, draw: random.Random) -> None:
    draw.choice(log.witness_checkpoints)[0] += draw.choice([-1, 1, 3, 1_000])


def _edit_node(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_nodes)
    row[2] = _other_bytes(row[2], draw)


def _swap_nodes(log: Stored, draw: random.Random) -> None:
    one, other = draw.sample(log.witness_nodes, 2)
    one[2], other[2] = other[2], one[2]


def _delete_node(log: Stored, draw: random.Random) -> None:
    del log.witness_nodes[draw.randrange(len(log.witness_nodes))]


def _insert_node(log: Stored, draw: random.Random) -> None:
    level, place = draw.choice(((1, 2), (1, 3), (1, 1_000_000), (2, 0), (2, 7), (3, 0), (7, 0)))
    log.witness_nodes.append([level, place, draw.randbytes(32)])


def _edit_checkpoint(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_checkpoints)
    note = row[1]
    place = draw.randrange(len(note))
    other = draw.choice([each for each in "0A=/ \nz" if each != note[place]])
    row[1] = draw.choice(
        (note[:place] + other + note[place + 1 :], note[:place] + other + note[place:], note[:place], note + "\n", "")
    )


def _swap_checkpoints(log: Stored, draw: random.Random) -> None:
    one, other = draw.sample(log.witness_checkpoints, 2)
    one[1], other[1] = other[1], one[1]


def _sign_with_another_key(log: Stored, draw: random.Random) -> None:
    signer = CheckpointSigner(SigningKey.from_seed(draw.randbytes(32)), draw.choice((ORIGIN, "other.test/log")))
    row = draw.choice(log.witness_checkpoints)
    tree = CompactRange()
    tree.extend([entry[1] for entry in log.witness_entries[: row[0]]])
    row[1] = signer.sign(row[0], tree.root())


def _insert_checkpoint(log: Stored, draw: random.Random) -> None:
    size = draw.choice([each for each in (0, 2, 255, 301, 519, 521, 2**40) if each not in SIGNED])
    log.witness_checkpoints.append([size, draw.choice((draw.choice(log.witness_checkpoints)[1], "", "forged\n"))])


def _edit_frontier(log: Stored, draw: random.Random) -> None:
    head = log.witness_head[0]
    head[2] = _other_bytes(head[2], draw)


def _edit_size(log: Stored, draw: random.Random) -> None:
    head = log.witness_head[0]
    head[1] = draw.choice([each for each in (0, 1, head[1] - 1, head[1] + 1, head[1] * 2, -1) if each != head[1]])


def _move_head_back(log: Stored, draw: random.Random) -> None:
    tree = CompactRange()
    tree.extend([entry[1] for entry in log.witness_entries[: draw.randrange(log.size)]])
    log.witness_head = [[1, tree.size, tree.to_bytes()]]


def _delete_head(log: Stored, _: random.Random) -> None:
    log.witness_head = []


def _roll_back(log: Stored, draw: random.Random) -> None:
    """Everything as it was at an older size, but for the checkpoints."""
    del log.witness_entries[draw.randrange(SIGNED[-1]) :]
    log.build_again()


def _fork(log: Stored, draw: random.Random) -> None:
    """An entry changed, and all that follows from it but the checkpoints."""
    row = log.witness_entries[draw.randrange(SIGNED[-1])]
    row[4] = flipped(row[4], draw)
    log.build_again()


def _roll_back_with_checkpoints(log: Stored, draw: random.Random) -> None:
    _roll_back(log, draw)
    log.witness_checkpoints = [row for row in log.witness_checkpoints if row[0] <= log.size]


def _fork_without_checkpoints(log: Stored, draw: random.Random) -> None:
    _fork(log, draw)
    log.witness_checkpoints = []


OF_ENTRIES: Sequence[Mutation] = (
    _edit_entry,
    _edit_entry_and_leaf,
    _edit_leaf,
    _swap_leaves,
    _swap_entries,
    _reorder,
    _repeat_entry,
    _delete_entries,
    _shift_entries,
    _truncate,
    _insert_entry,
    _refile_entry,
    _edit_sequence,
    _swap_sequences,
)
OF_NODES_AND_CHECKPOINTS: Sequence[Mutation] = (
    _keep_checkpoint_elsewhere,
    _edit_node,
    _swap_nodes,
    _delete_node,
    _insert_node,
    _edit_checkpoint,
    _swap_checkpoints,
    _sign_with_another_key,
    _insert_checkpoint,
)
OF_THE_HEAD: Sequence[Mutation] = (_edit_frontier, _edit_size, _move_head_back, _delete_head)
OF_THE_WHOLE: Sequence[Mutation] = (_roll_back, _fork)
# Whole and older, or whole and another: only what was signed elsewhere tells.
OF_THE_WHOLE_WITH_CHECKPOINTS: Sequence[Mutation] = (_roll_back_with_checkpoints, _fork_without_checkpoints)
