"""What an error of the operating system means for a file, and what to do about it."""

import errno
import os
import pathlib

_ELSEWHERE = "choose another --workdir"
_WRITING = {
    errno.ENOSPC: f"the disk is full; free disk space, or {_ELSEWHERE}",
    errno.EDQUOT: f"the disk quota is used up; free disk space, or {_ELSEWHERE}",
    errno.EFBIG: f"the file is too large for the file system; {_ELSEWHERE}",
    errno.EROFS: f"the file system is read-only; {_ELSEWHERE}",
    errno.EACCES: f"no permission to write there; change the permissions, or {_ELSEWHERE}",
    errno.EPERM: f"no permission to write there; change the permissions, or {_ELSEWHERE}",
    errno.ENAMETOOLONG: "the name is too long for the file system; shorten the name of the domain, task or folder",
    errno.ENOENT: f"its folder cannot be created, or another process removed it; run again, or {_ELSEWHERE}",
    errno.EISDIR: f"a folder has this name; remove it, or {_ELSEWHERE}",
}
_ANY = {
    errno.EMFILE: "too many open files; raise the limit with `ulimit -n`",
    errno.ENFILE: "too many open files on this machine; close some",
    errno.EIO: "the disk or the network mount reports an error; check it, and run again",
    errno.ESTALE: "the network mount has changed; mount it again, and run again",
    errno.ELOOP: "its links form a cycle; remove one of them",
}
_READING = {
    errno.ENOENT: "no such file",
    errno.EACCES: "no permission to read it; change the permissions",
    errno.EPERM: "no permission to read it; change the permissions",
    errno.EISDIR: "it is a folder; give a file",
    errno.ENOTDIR: "a part of its path is a file; correct the path",
    errno.ENAMETOOLONG: "the name is too long for the file system; correct the path",
}


def writing(error: OSError, path: str | os.PathLike) -> str:
    """Return why a file or folder cannot be written, and what to do."""
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        place = pathlib.Path(path)
        for blocker in (place, *place.parents):
            if blocker.is_symlink() and not blocker.exists():
                return f"{blocker} is a link to a place that does not exist; remove it, or {_ELSEWHERE}"
            if blocker.exists():
                kind = "a folder" if blocker.is_dir() else "a file, not a folder"
                return f"{blocker} is {kind}; remove it, or {_ELSEWHERE}"
    return (_WRITING | _ANY).get(error.errno or 0) or f"{error.strerror or error}; {_ELSEWHERE}"


def reading(error: OSError) -> str:
    """Return why a file cannot be read, and what to do."""
    return (_READING | _ANY).get(error.errno or 0) or str(error.strerror or error)
