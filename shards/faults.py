"""Errors of storages: which may disappear with a retry, which mean that there is no such file, and what is said."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from typing import Any

from gristmill.shards.errors import UserError, one_line

_TRANSIENT = {  # error classes of client libraries, by name: this package imports none of them
    "botocore": {
        "ConnectionError",
        "HTTPClientError",
        "IncompleteReadError",
        "ResponseStreamingError",
        "ResponseParserError",
    },
    "aiohttp": {"ClientConnectionError", "ClientPayloadError"},
    "fsspec": {"FSTimeoutError"},
}
# SlowDown and InternalError come as 5xx; the last three mean an incomplete upload.
_BUSY = {"ConditionalRequestConflict", "RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"}

# Keys that expired or are not valid; a request without a body is answered with the bare status.
_CREDENTIALS = {"400", "401", "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
_CREDENTIALS |= {"CredentialsNotSupported", "AuthorizationHeaderMalformed", "UnrecognizedClientException"}

# Names that a file system cannot hold, or that lead nowhere: to a reader, a file that is not there.
_NO_SUCH = {errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ}
_SIGNALS = (FileNotFoundError, FileExistsError, IsADirectoryError)  # which callers handle
# Errors of the device, and not of one file: every further request would fail as well.
_DEVICE = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up; expected a larger one, or another place",
    errno.EROFS: "the file system is read-only (mounted so, or turned so by a failing disk); expected a writable one",
    errno.EMFILE: "too many open files; raise the limit with `ulimit -n`",
    errno.ENFILE: "too many open files on this machine",
    errno.ENODEV: "the device is gone; mount it again",
    errno.ENXIO: "the device is gone; mount it again",
    errno.ENOTCONN: "the file system is gone (its server or process ended); mount it again",
    errno.EHOSTDOWN: "the file system's server is down",
    errno.ESTALE: "the file system's server no longer knows this file (stale handle); mount it again",
}
_OTHER = {
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.ELOOP: "its links lead in a circle",
    errno.EILSEQ: "this file system does not take the characters of the name",
    errno.EINVAL: "this file system refuses it; does the name hold characters that it does not take?",
    errno.EFBIG: "the file is larger than this file system or the limit of the process (`ulimit -f`) allows",
    errno.EIO: "the device reports an input/output error",
    errno.EEXIST: "a file is in the place of its folder; expected a folder, or an unused path",
    errno.ENOTDIR: "a part of the path is a file; expected folders",
    errno.EISDIR: "it is a folder; expected a file, or an unused path",
    errno.ENOENT: "its folder is gone, or the file system does not take the name",
}


def is_transient(error: BaseException) -> bool:
    """Return whether an error of a remote storage may disappear with a retry."""
    for kind in type(error).__mro__:
        if kind.__name__ in _TRANSIENT.get(kind.__module__.split(".")[0], ()):
            return True
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode") or getattr(error, "status", 0)
    if isinstance(status, int) and (status == 429 or status >= 500):
        return True
    if isinstance(error, OSError) and error.errno == errno.ESTALE:  # opened anew, the file is found again
        return True
    return isinstance(error, ConnectionError | TimeoutError) or error_code(error) in _BUSY


def _response(error: BaseException) -> Mapping[str, Any]:
    """Return an object store's response; s3fs keeps the client's error as the cause."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    return response if isinstance(response, Mapping) else {}


def error_code(error: BaseException) -> str:
    """Return an object store's error code; "" if the error is none of its."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def in_short(error: BaseException) -> str:
    """Return an error's message, or its class, on one short line."""
    return (one_line(error) or type(error).__name__)[:300]


def is_of_name(error: ValueError) -> bool:
    """Return whether an error says that no file can have a name."""
    return "null byte" in str(error) or isinstance(error, UnicodeEncodeError)


def not_written(url: str, error: OSError) -> UserError:
    """Return the sentence for a file or folder of this machine that cannot be written."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return _refused(url, error)
    number = error.errno or 0
    why = _DEVICE.get(number) or f"cannot be written: {_OTHER.get(number) or os.strerror(number)}"
    return UserError(f"{url}: {why}")


def _refused(url: str, error: BaseException) -> UserError:
    return UserError(
        f"{url}: access refused ({error}); check the credentials, which may have expired, or the permissions"
    )


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn errors of unreachable storage, refused access and failing devices into a :class:`UserError`.

    A name that no file can have is a :class:`FileNotFoundError`. Errors of one file stay what they are.
    """
    try:
        yield
    except (*_SIGNALS, UserError) as error:
        if error_code(error) == "NoSuchBucket":
            raise _no_bucket(url) from None
        raise
    except PermissionError as error:
        raise _refused(url, error) from None
    except OSError as error:
        if error_code(error) == "NoSuchBucket":
            raise _no_bucket(url) from None
        if error_code(error) in _CREDENTIALS:
            raise _refused(url, error) from None
        if error.errno in _NO_SUCH:
            raise FileNotFoundError(errno.ENOENT, os.strerror(error.errno), url) from None
        if error.errno in _DEVICE:
            raise UserError(f"{url}: {_DEVICE[error.errno]}") from None
        if error.errno and error.filename is None:
            error.filename = url
        raise
    except ValueError as error:
        if is_of_name(error):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from None
        raise
    except Exception as error:
        # Client libraries raise their own classes when an endpoint cannot be reached.
        if "Credentials" in type(error).__name__:
            raise _refused(url, error) from None
        if type(error).__module__.split(".")[0] in {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google"}:
            raise UserError(f"{url}: the storage cannot be reached: {error}") from None
        raise


def _no_bucket(url: str) -> UserError:
    scheme, sign, rest = url.partition("://")
    return UserError(f"{url}: the bucket {scheme}{sign}{rest.partition('/')[0]} does not exist (any more)")
