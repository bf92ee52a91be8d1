"""A file becomes a new object in S3 by one conditional PUT, or by parts and a conditional completion.

s3fs can do this as well, but holds ten parts of 50 MB in memory, and an upload that is interrupted would leave its
parts in the bucket, invisible and paid for.
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from exaone_prep.faults import patiently

PART_BYTES: Final = 32 << 20
"""Of a larger file; S3 takes 10,000 parts, so files up to 320 GB."""

ANSWERS_WITHIN_S: Final = 20.0
SLOWEST_BYTES_PER_S: Final = 256 << 10
_PARTS_AT_ONCE: Final = 4
_IF_NEW: Final = {"IfNoneMatch": "*"}


def upload_new(files: Any, bucket: str, key: str, file: Path) -> None:
    """Make the bytes of a file an object, if there is none of that name.

    Args:
        files: An `s3fs.S3FileSystem`.
        bucket: Its name.
        key: Of the object.
        file: What to upload.

    Raises:
        FileExistsError: There is one; perhaps this one, where an answer was lost.
        Exception: As `patiently` does.
    """
    at = {"Bucket": bucket, "Key": key}
    if file.stat().st_size <= PART_BYTES:
        data = file.read_bytes()
        patiently(lambda: files.call_s3("put_object", timeout=within_s(len(data)), **at, **_IF_NEW, Body=data))
        return
    at["UploadId"] = patiently(lambda: files.call_s3("create_multipart_upload", **at))["UploadId"]
    try:
        parts = _upload_parts(files, at, file)
        patiently(lambda: files.call_s3("complete_multipart_upload", **at, **_IF_NEW, MultipartUpload={"Parts": parts}))
    except FileNotFoundError as error:
        # No such upload: it was completed, and the answer that said so was lost. If not, the name will be missing.
        raise FileExistsError(f"{bucket}/{key}") from error
    except BaseException:
        with contextlib.suppress(Exception):  # the bucket's rule for abandoned uploads takes what is left
            files.call_s3("abort_multipart_upload", **at)
        raise


def within_s(size_bytes: int) -> float:
    """How long one request that stores so many bytes may take.

    The client below has no limit of its own while it waits for leave to send a body, and none is given on a connection
    that has lost an answer.
    """
    return ANSWERS_WITHIN_S + size_bytes / SLOWEST_BYTES_PER_S


def requests_of(size_bytes: int) -> int:
    """How many requests that store something an upload takes."""
    return 1 if size_bytes <= PART_BYTES else -(-size_bytes // PART_BYTES) + 2


def _upload_parts(files: Any, at: dict[str, str], file: Path) -> list[dict[str, Any]]:
    with file.open("rb") as stream:
        descriptor, size_bytes = stream.fileno(), file.stat().st_size

        def upload(number: int) -> dict[str, Any]:
            data = os.pread(descriptor, PART_BYTES, (number - 1) * PART_BYTES)
            sent = {**at, "PartNumber": number, "Body": data}
            answer = patiently(lambda: files.call_s3("upload_part", timeout=within_s(len(data)), **sent))
            return {"PartNumber": number, "ETag": answer["ETag"]}

        threads = ThreadPoolExecutor(max_workers=_PARTS_AT_ONCE)
        try:
            return list(threads.map(upload, range(1, -(-size_bytes // PART_BYTES) + 1)))
        finally:
            threads.shutdown(cancel_futures=True)
