"""The directory for the pid file and the control socket: where it is, and whether it is safe.

`find` decides and touches nothing; `prepare` creates and checks. Refuses to know what is put
into it.
"""

import os
import stat
from collections.abc import Mapping

from epolld.errors import PathError

# Root's: its group may enter, so that operators can be let in by chgrp; nobody else, because
# the control socket inside commands the daemon. A user's: nobody else at all.
SYSTEM_MODE = 0o750
USER_MODE = 0o700
ENTER = 0o010  # what a group needs to reach the control socket, and no more


def find(configured: str | None, environ: Mapping[str, str], uid: int) -> str:
    """The directory to use, the first of: configured, systemd's, XDG's, root's, one in temp."""
    if configured:
        return configured
    from_systemd = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]  # several: colon-separated
    if from_systemd:
        return from_systemd
    # "must be absolute; if not, ignore": XDG Base Directory Specification
    from_xdg = environ.get("XDG_RUNTIME_DIR", "")
    if from_xdg.startswith("/"):
        return os.path.join(from_xdg, "epolld")
    if uid == 0:
        return "/run/epolld"
    temp = environ.get("TMPDIR", "")
    return os.path.join(temp if temp.startswith("/") else "/tmp", f"epolld-{uid}")


def prepare(path: str, group: int | None = None) -> None:
    """Create `path` if it is missing; its parent must exist. `group` may enter a new one.

    Raises PathError for one that another user made, owns, or could put files into: such a
    user could have our pid file point anywhere.
    """
    uid = os.geteuid()
    before = os.umask(0o027)  # never wider than this, not even for a moment
    try:
        os.mkdir(path, (SYSTEM_MODE if uid == 0 else USER_MODE) | (ENTER if group else 0))
        if group is not None:
            os.lchown(path, -1, group)
    except FileExistsError:
        pass
    except OSError as error:
        raise PathError(
            f"{path}: cannot create the runtime directory: {error.strerror}; "
            f"create {os.path.dirname(path) or '.'} first or set master.runtime_directory"
        ) from error
    finally:
        os.umask(before)
    try:
        found = os.lstat(path)
    except OSError as error:
        raise PathError(
            f"{path}: cannot look at the runtime directory: {error.strerror}"
        ) from error
    trouble = distrust(found, uid)
    if trouble:
        raise PathError(f"{path}: {trouble}, or set master.runtime_directory to another place")


def distrust(found: os.stat_result, uid: int) -> str:
    """Why user `uid` must not keep files in a directory like `found`, with a remedy; "" if safe."""
    if stat.S_ISLNK(found.st_mode):
        return "the runtime directory is a symbolic link; name the real one"
    if not stat.S_ISDIR(found.st_mode):
        return "the runtime directory is not a directory; remove it"
    if found.st_uid != uid:
        return f"the runtime directory belongs to user {found.st_uid}, not to {uid}; chown it"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        return f"others may write to the runtime directory (mode {mode:04o}); chmod go-w it"
    return ""
