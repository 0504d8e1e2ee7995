"""Runs KServe's own storage initializer, one case per line of JSON, each in a process of its own.

A case is {"env": {...}, "pairs": [[source, destination], ...]}; the answer is {"ok": bool, "error": "..."}. The package
is imported once; what it changes in its environment ends with the process of the case. Only loading boto3's description
of S3 is shared between cases, because it takes longer than a case.
"""

import json
import logging
import os
import sys

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


def main():
    # Whatever a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warm_up()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            answers.write(json.dumps(run(json.loads(line))) + "\n")
            answers.flush()
            os._exit(0)
        os.waitpid(child, 0)


main()
