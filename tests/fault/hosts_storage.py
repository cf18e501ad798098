"""Waits, on the host where it runs, for the storage server: it takes writes once a bucket can be made."""

from __future__ import annotations

import time

import s3fs


def wait(endpoint: str, bucket: str) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            fs = s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True)
            if not fs.exists(bucket):
                fs.mkdir(bucket)
            fs.pipe_file(f"{bucket}/probe", b"1")
            return
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
