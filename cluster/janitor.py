"""Takes away what local Rays of this package left on this machine: of those sessions only whose driver has ended.

Ray's processes end by themselves when a driver is killed, within seconds; now and then one that was just starting does
not. The folder of a session stays for ever, and so do objects that were spilled elsewhere. So each session has a claim,
a file beside its folder that names its driver and its folders, and the next start looks at the claims.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from gristmill.shards import owner

MARK = "GRISTMILL_SESSION"  # environment variable of all processes of a local Ray: its driver
SPILLED = "ray_spilled_objects_"  # start of the name of a folder of spilled objects
_CLAIMS = "gristmill-{user}"  # the folder of claims, beside those of sessions
_NAMED = "session_%Y-%m-%d_%H-%M-%S_%f"  # how Ray names a session, before the id of the driver's process
_BEGINS_WITHIN = timedelta(minutes=1)  # from the claim to the session


@dataclass
class Claim:
    """The claim of a driver on the session that it starts, kept in a file."""

    path: Path | None  # None if it could not be written: then nothing is taken away later
    driver: str
    machine: str
    since: str  # as in the name of a session
    folders: list[str] = field(default_factory=list)  # of the session; empty until it has started

    def began(self, folders: Sequence[str]) -> None:
        """Keep the folders of the session, now that they are known."""
        self.folders = list(folders)
        self.write()

    def write(self) -> None:
        """Write the file, if there can be one."""
        if self.path is None:
            return
        kept = {name: value for name, value in vars(self).items() if name != "path"}
        with contextlib.suppress(OSError):
            new = self.path.with_suffix(".new")
            new.write_text(json.dumps(kept))
            new.replace(self.path)


def claim(temp: Path) -> Claim:
    """Claim the session that this process is about to start below Ray's folder for temporary files."""
    since = datetime.today().strftime(_NAMED)
    made = Claim(None, owner.process(), owner.machine(), since)
    claims = temp / _CLAIMS.format(user=_user())
    with contextlib.suppress(OSError):
        claims.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_own(claims):
            made.path = claims / f"{since}_{os.getpid()}.json"
            made.write()
    return made


def clean(temp: Path) -> None:
    """End the processes and remove the folders of sessions whose drivers have ended; other sessions are not touched."""
    claims = temp / _CLAIMS.format(user=_user())
    if not _is_own(claims):  # others may write into a shared folder for temporary files
        return
    dead = [found for path in sorted(claims.glob("*.json")) if (found := _read(path)) is not None and _ended(found)]
    if dead:
        end_processes({one.driver for one in dead})
    for one in dead:
        for folder in [Path(name) for name in one.folders] or _begun(temp, one):
            if _is_own(folder) and (folder.parent == temp or folder.name.startswith(SPILLED)):
                shutil.rmtree(folder, ignore_errors=True)
        if one.path is not None:
            one.path.unlink(missing_ok=True)
    latest = temp / "session_latest"
    if dead and latest.is_symlink() and not latest.exists():
        with contextlib.suppress(OSError):
            latest.unlink()


def _read(path: Path) -> Claim | None:
    try:
        return Claim(path, **json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # removed by another start, or torn
        return None


def _ended(one: Claim) -> bool:
    try:
        return owner.ended(one.machine, one.driver)
    except (ValueError, AttributeError):
        return False


def _begun(temp: Path, one: Claim) -> list[Path]:
    """Return the session's folder if its driver was killed before it had kept its name: found by process and time."""
    process = one.driver.partition("@")[0]
    first = datetime.strptime(one.since, _NAMED)
    last = (first + _BEGINS_WITHIN).strftime(_NAMED)
    return [path for path in temp.glob(f"session_*_{process}") if one.since <= path.name < last]


def end_processes(drivers: set[str]) -> None:
    """Kill the processes of the local Rays of these drivers."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) in drivers:
                found.append(process)
    # All at once: when its raylet has died, a driver is soon ended by Ray.
    for process in found:
        with contextlib.suppress(psutil.Error, OSError):
            process.kill()


def _is_own(folder: Path) -> bool:
    """Return whether this is a folder, no link, of this user."""
    try:
        return folder.is_dir() and not folder.is_symlink() and folder.lstat().st_uid == os.getuid()
    except (OSError, AttributeError):  # not of a POSIX system
        return False


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "user"
