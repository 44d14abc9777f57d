"""Which git commit a directory stands at, read from files: git itself would run what a foreign directory's settings name."""

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 64 * 2**20  # of packed-refs, a line per branch and tag; the others hold a line


def read_commit(directory: Path) -> dict[str, str | None] | None:
    """Return {"commit", "branch"} of the git working tree that `directory` lies in, or None if it lies in none.

    A branch is None where none is checked out, a commit where the branch has none or keeps it in another way than in files.
    """
    with suppress(OSError, ValueError, RuntimeError):
        directory = directory.resolve()
        for parent in (directory, *directory.parents):
            if os.path.lexists(parent / ".git"):
                return _read(_git_directory(parent / ".git"))
    return None


def _git_directory(path: Path) -> Path:
    """Return where the data are: in `.git`, or where that file of a worktree or submodule says."""
    if path.is_dir():
        return path
    found = re.match(r"gitdir: (.+)", _text(path))
    return path.parent / (found[1].strip() if found else "nowhere")


def _read(git: Path) -> dict[str, str | None] | None:
    head = _text(git / "HEAD").strip()
    if not head:
        return None
    common = git / (_text(git / "commondir").strip() or ".")  # a worktree has its branches where its repository has them
    name = _target(head)
    return {"commit": _follow(head, git, common), "branch": name.removeprefix("refs/heads/") if name else None}


def _follow(value: str, git: Path, common: Path) -> str | None:
    """Return the commit that the text of HEAD or of a branch comes to."""
    for _ in range(5):
        if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", value):
            return value
        name = _target(value)
        if name is None:
            return None
        value = _text(git / name).strip() or _text(common / name).strip() or _packed(common, name)
    return None


def _target(value: str) -> str | None:
    """Return the name that `ref: refs/heads/main` refers to; none that leads elsewhere."""
    found = re.fullmatch(r"ref: (refs/[^\x00-\x20\x7f:~^?*\[\\]+)", value)
    return found[1] if found and ".." not in found[1] else None


def _packed(common: Path, name: str) -> str:
    for line in _text(common / "packed-refs", MAX_BYTES).splitlines():
        if line.endswith(f" {name}") and not line.startswith(("#", "^")):
            return line.split(" ")[0]
    return ""


def _text(path: Path, limit: int = 4096) -> str:
    """Return a regular file's text, nothing if it isn't there, is of another kind, or is too long."""
    with suppress(OSError):
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_size <= limit:
            return path.read_text(encoding="utf-8", errors="replace")
    return ""
