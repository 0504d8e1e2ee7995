"""Runs KServe's own storage initializer, one case per line of JSON, each in a process of its own.

A case is {"env": {...}, "pairs": [[source, destination], ...]}; the answer is {"ok": bool, "error": "..."}. The package
is imported once; what it changes in its environment ends with the process of the case. Only loading boto3's description
of S3 is shared between cases, because it takes longer than a case.

{"pack": "tar.gz", "entries": [...]} is answered with an archive as Python packs it: {"bytes": "BASE64"}.
"""

import base64
import gzip
import io
import json
import logging
import os
import sys
import tarfile
import zipfile

import botocore.loaders

_loader = botocore.loaders.create_loader()
botocore.loaders.create_loader = lambda search_path_string=None: _loader

import boto3  # noqa: E402
from kserve_storage import Storage, kserve_storage  # noqa: E402

logging.disable(logging.CRITICAL)


def warm_up():
    """Reads what every client of S3 reads, so that no case has to."""
    boto3.Session(aws_access_key_id="x", aws_secret_access_key="x").resource("s3", region_name="us-east-1")


def run(case):
    """What the entry point of KServe's image does with its arguments."""
    os.environ.clear()
    os.environ.update(case["env"])
    try:
        # Read where the module is imported, which is before the case is known.
        kserve_storage._S3_MAX_FILE_CONCURRENCY = int(os.getenv("S3_MAX_FILE_CONCURRENCY", "4"))
        sources = [pair[0] for pair in case["pairs"]]
        destinations = [pair[1] for pair in case["pairs"]]
        Storage.download_files(sources, destinations)
    except BaseException as error:  # noqa: BLE001
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}
    return {"ok": True, "error": ""}


TAR_KINDS = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "pipe": tarfile.FIFOTYPE,
}


def pack_tar(entries, compression):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{compression}") as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry["name"])
            info.type = TAR_KINDS[entry["kind"]]
            is_link = entry["kind"] in ("symlink", "link")
            info.linkname = entry["content"] if is_link else ""
            content = entry["content"].encode() if entry["kind"] == "file" else b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def pack_zip(entries, method):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for entry in entries:
            is_directory = entry["kind"] == "directory"
            info = zipfile.ZipInfo(entry["name"] + ("/" if is_directory else ""))
            info.compress_type = method
            mode = {"symlink": 0o120777, "directory": 0o040755}.get(entry["kind"], 0o100644)
            info.create_system = 3
            info.external_attr = mode << 16
            archive.writestr(info, "" if is_directory else entry["content"])
    return packed.getvalue()


def zstd(content):
    """One frame of blocks that are not compressed: Python has no zstd yet."""
    frame = b"\x28\xb5\x2f\xfd\x00\x58"
    size = 64 << 10
    blocks = [content[at : at + size] for at in range(0, len(content), size)]
    for block in blocks:
        is_last = block is blocks[-1]
        frame += (len(block) << 3 | is_last).to_bytes(3, "little") + block
    return frame


def pack(form, entries):
    if form == "zip":
        return pack_zip(entries, zipfile.ZIP_DEFLATED)
    if form == "zip-bzip2":
        return pack_zip(entries, zipfile.ZIP_BZIP2)
    if form == "tar.zst":
        return zstd(pack_tar(entries, ""))
    if form == "tar.gz":
        # The same bytes each time: gzip has a place for the date.
        return gzip.compress(pack_tar(entries, ""), mtime=0)
    return pack_tar(entries, form.partition(".")[2])


def main():
    # Whatever a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warm_up()
    for line in sys.stdin:
        case = json.loads(line)
        if "pack" in case:
            packed = pack(case["pack"], case["entries"])
            answers.write(json.dumps({"bytes": base64.b64encode(packed).decode()}) + "\n")
            answers.flush()
            continue
        child = os.fork()
        if child == 0:
            answers.write(json.dumps(run(case)) + "\n")
            answers.flush()
            os._exit(0)
        os.waitpid(child, 0)


main()
