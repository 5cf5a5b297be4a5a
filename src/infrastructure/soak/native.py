"""What a soak needs of Linux and the standard library has no call for: inotify, titles, death with the parent, file system kinds.

Imported by the agents' own small processes, so it imports next to nothing itself.
"""

import ctypes
import os

__all__ = ["Inotify", "die_with_parent", "is_networked", "set_title"]

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_SIGKILL = 9
_ARG_START, _ARG_END = 47, 48
_IN_CLOSE_WRITE, _IN_MOVED_TO, _IN_DELETE, _IN_Q_OVERFLOW = 0x8, 0x80, 0x200, 0x4000
_IN_ONLYDIR, _IN_DONT_FOLLOW = 0x0100_0000, 0x0200_0000
_HEADER = 16
_BUFFER = 64 * 1024

# f_type of statfs(2) where another machine may write and inotify does not see it: NFS, CIFS, SMB2, 9p, FUSE, Ceph, AFS, Coda, Lustre, GPFS,
# OCFS2, GFS2, virtiofs is FUSE as well.
_NETWORKED = frozenset(
    {0x6969, 0xFF534D42, 0xFE534D42, 0x517B, 0x01021997, 0x65735546, 0x00C36400, 0x5346414F, 0x73757245, 0x0BD00BD0}
    | {0x47504653, 0x7461636F, 0x01161970}
)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; at once when `parent` is gone already."""
    _libc().prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def set_title(title: str) -> None:
    """Show this process under that name, in `ps` and `top`: 15 characters as its name, and all that fits as its command line.

    The command line is written over in place, where the kernel reads it (proc(5), `cmdline`); where it cannot be, it stays.
    """
    libc = _libc()
    libc.prctl(_PR_SET_NAME, ctypes.c_char_p(title.encode()[:15]), 0, 0, 0)
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - pathlib is not light
            # The name is in brackets and may hold blanks.
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[_ARG_START - 2]), int(fields[_ARG_END - 2])
    except (OSError, ValueError, IndexError):
        return
    room = end - start
    if room < 2:
        return
    text = title.encode()[: room - 2]
    # A last byte that is not NUL tells the kernel that the command line was written over and ends at the first NUL.
    ctypes.memmove(start, text + b"\0" * (room - len(text) - 1) + b" ", room)


def is_networked(path: str) -> bool:
    """Whether another machine may write there; False where it cannot be told."""
    answer = ctypes.create_string_buffer(512)
    if _libc().statfs(os.fsencode(path), answer) != 0:
        return False
    kind = int.from_bytes(answer.raw[: ctypes.sizeof(ctypes.c_long)], "little")
    return kind & 0xFFFFFFFF in _NETWORKED


class Inotify:
    """Tells which files of some folders were written, renamed into place or removed. Raises `OSError` where there is none to be had."""

    def __init__(self) -> None:
        self._libc = _libc()
        self.file = int(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self.file < 0:
            raise OSError(ctypes.get_errno(), "no inotify")

    def watch(self, path: str) -> int:
        """Watch a folder, never a link to one; the number that its events carry."""
        mask = _IN_CLOSE_WRITE | _IN_MOVED_TO | _IN_DELETE | _IN_ONLYDIR | _IN_DONT_FOLLOW
        found = int(self._libc.inotify_add_watch(self.file, os.fsencode(path), mask))
        if found < 0:
            raise OSError(ctypes.get_errno(), "cannot be watched", path)
        return found

    def read(self) -> "list[tuple[int, str, bool]]":
        """What happened: the watch, the name of the file, and whether it is there now. A watch of -1: events were lost."""
        found: list[tuple[int, str, bool]] = []
        try:
            text = os.read(self.file, _BUFFER)
        except BlockingIOError:
            return found
        place = 0
        while place + _HEADER <= len(text):
            watch = int.from_bytes(text[place : place + 4], "little", signed=True)
            mask = int.from_bytes(text[place + 4 : place + 8], "little")
            length = int.from_bytes(text[place + 12 : place + 16], "little")
            name = text[place + _HEADER : place + _HEADER + length].rstrip(b"\0")
            place += _HEADER + length
            if mask & _IN_Q_OVERFLOW:
                found.append((-1, "", True))
            elif name:
                found.append((watch, os.fsdecode(name), not mask & _IN_DELETE))
        return found

    def close(self) -> None:
        """Watch no more."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
