"""Submission: a recipe run as a Ray job, on a copy of the package and the user's own code, uploaded for it.

The job uses the cluster's own credentials: the dashboard shows everything submitted with a job, so secrets are never
submitted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gristmill
from gristmill.cluster import session
from gristmill.cluster.packing import packed_modules
from gristmill.shards.errors import UserError, one_line
from gristmill.shards.names import own_modules

ANSWER_WITHIN = 10.0  # seconds until a cluster must have answered
_NO_AGENT = "try again later"  # in the answer of a dashboard that knows of no agent yet; it has no class
LOST_AFTER = 60.0  # seconds without an answer, after which a job is no longer followed
STOP_WITHIN = "60"  # seconds for a job's orderly end, before Ray kills it
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
STOPPED = 130  # exit code of interrupted commands

_ADDRESSES = (session.ADDRESS, session.DASHBOARD)  # take precedence in Ray over a given address
_LOUD = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
_SECRET = ("TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "KEY")


@contextlib.contextmanager
def packed(config: str, text: bytes) -> Iterator[tuple[Path, str]]:
    """Yield a folder with the package, the user's own modules and a recipe file, and the recipe file's path in it.

    Raises:
        UserError: the folder is too large to upload.
    """
    package = Path(gristmill.__file__).parent
    place = f"submitted/{config.rstrip('/').rpartition('/')[2]}"
    with packed_modules({package.name: package, **own_modules()}) as folder:
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_bytes(text)
        yield folder, place


def check_variables(variables: Mapping[str, str]) -> None:
    """Check that no variable looks like a secret."""
    for name in variables:
        if any(part in name.upper() for part in _SECRET):
            raise UserError(
                f"--env {name}: the dashboard shows submitted variables, and this one looks like a secret; expected "
                "the nodes of the cluster to have their own credentials"
            )


class JobServer:
    """A cluster's job server, at the address of its dashboard, such as ``http://127.0.0.1:8265``.

    Raises:
        UserError: it does not answer, it needs no token, or the token is missing or wrong.
    """

    def __init__(self, address: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise UserError(f"--address {address}: expected the address of a dashboard, such as http://127.0.0.1:8265")
        self.address = address.rstrip("/")
        session.authenticate(joins=True)
        self._greet()
        try:
            from ray.exceptions import AuthenticationError
            from ray.job_submission import JobSubmissionClient
        except ImportError:
            raise UserError("Ray is not installed: run `pip install 'ray[default]>=2.60,<2.61'`") from None
        for name in _LOUD:
            logging.getLogger(name).setLevel(logging.ERROR)
        self._refused = AuthenticationError
        self._log_passed = 0  # characters
        with self._user_errors(), _without(_ADDRESSES):
            self.client = JobSubmissionClient(self.address)

    def submit(self, folder: Path, arguments: Sequence[str], variables: Mapping[str, str], name: str | None) -> str:
        """Submit ``gristmill`` with arguments and a folder of code, and return the job's id."""
        command = ["python", "-m", "gristmill", *arguments]
        given = session.WORKER | {"RAY_JOB_STOP_WAIT_TIME_S": STOP_WITHIN, "PYTHONUNBUFFERED": "1"} | dict(variables)
        begun = time.monotonic()
        with self._user_errors(name):
            while True:
                try:
                    return self.client.submit_job(
                        entrypoint=shlex.join(command),
                        submission_id=name,
                        runtime_env={"working_dir": str(folder), "env_vars": given},
                    )
                except RuntimeError as error:
                    # The dashboard answers before the agents do that start jobs, on a busy machine for some time.
                    if _NO_AGENT not in str(error) or time.monotonic() - begun > LOST_AFTER:
                        raise
                    time.sleep(0.5)

    def follow(self, job: str, write: Callable[[str], object]) -> int:
        """Pass on a job's log until it ends, and return its exit code.

        Raises:
            UserError: the cluster no longer answers.
        """
        from aiohttp import ClientError

        self._log_passed = 0
        answered = time.monotonic()
        while True:
            try:
                asyncio.run(self._hand_on(job, write))
                self._greet()
                info: Any = self.client.get_job_info(job)
            except self._refused:
                raise self._no_token() from None
            except (OSError, RuntimeError, ClientError, UserError):
                if time.monotonic() - answered > LOST_AFTER:
                    raise UserError(
                        f"{self.address}: no answer for {LOST_AFTER:g} s; job {job} may still run, and the same "
                        "submission resumes from its commits"
                    ) from None
                time.sleep(0.5)
                continue
            answered = time.monotonic()
            if info.status == "STOPPED":
                return STOPPED
            if info.status in ENDED:
                if info.driver_exit_code is None and info.status == "FAILED":
                    write(f"{info.message}\n")  # it ended before it had a log
                return _exit_code(info)
            time.sleep(0.5)

    async def _hand_on(self, job: str, write: Callable[[str], object]) -> None:
        """Pass on the rest of a log until it ends, breaks off, or the cluster no longer answers."""
        tail = asyncio.create_task(self._tail(job, write))
        try:
            while not tail.done():
                await asyncio.wait([tail], timeout=2 * ANSWER_WITHIN)
                if not tail.done():
                    self._greet()  # a connection to a dead machine may stay open for ever
            await tail
        finally:
            tail.cancel()

    async def _tail(self, job: str, write: Callable[[str], object]) -> None:
        seen = 0  # each connection starts at the beginning of the log
        async for text in self.client.tail_job_logs(job):
            seen += len(text)
            if seen > self._log_passed:
                write(text[len(text) - (seen - self._log_passed) :])
                self._log_passed = seen

    def stop(self, job: str) -> str:
        """End a job, orderly if possible, and return its final status."""
        with self._user_errors(job):
            self.client.stop_job(job)
            deadline = time.monotonic() + 2 * float(STOP_WITHIN)
            while (status := str(self.client.get_job_status(job).value)) not in ENDED:
                if time.monotonic() > deadline:
                    raise UserError(f"{self.address}: job {job} is still {status.lower()}; look at the dashboard")
                time.sleep(0.5)
        return status.lower()

    def _greet(self) -> None:
        """Check that the server answers and requires a token; none is sent yet."""
        try:
            with urllib.request.urlopen(f"{self.address}/api/version", timeout=ANSWER_WITHIN):
                pass
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                return
            raise UserError(f"{self.address}: not a Ray dashboard (status {error.code})") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", error)
            raise UserError(
                f"{self.address}: no answer ({why}); is the cluster up, and is this its dashboard?"
            ) from None
        raise UserError(
            f"{self.address}: anyone who reaches this cluster can use it; expected token authentication "
            "(RAY_AUTH_MODE=token and RAY_AUTH_TOKEN on all of its nodes)"
        )

    def _no_token(self) -> UserError:
        return UserError(
            f"{self.address}: the token is missing or wrong; expected it in RAY_AUTH_TOKEN, or its file in "
            "RAY_AUTH_TOKEN_PATH"
        )

    @contextlib.contextmanager
    def _user_errors(self, job: str | None = None) -> Iterator[None]:
        try:
            yield
        except self._refused:
            raise self._no_token() from None
        except (OSError, RuntimeError) as error:
            text = one_line(error)
            if "does not exist" in text:
                raise UserError(f"{self.address}: there is no job {job}") from None
            if "already exists" in text:
                raise UserError(
                    f"--submission-id {job}: the name was used before; expected a new name, or none"
                ) from None
            raise UserError(f"{self.address}: rejected: {text[:300]}") from None


def _exit_code(info: Any) -> int:
    code = info.driver_exit_code
    if code is None:
        return 0 if info.status == "SUCCEEDED" else 1
    return 128 - code if code < 0 else code  # as a shell reports a signal


@contextlib.contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ |= kept
