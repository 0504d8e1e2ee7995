#!/usr/bin/env python3
"""The manifests against the schemas that others publish, from PyPI: Kubernetes' JSON schemas of several versions
(kubernetes-validate, strict: unknown fields are errors), and the fields of KServe's SDK from 0.12 to 0.21.

    python3 -m venv venv && venv/bin/pip install kubernetes-validate==1.37.0 && venv/bin/python integration/schemas.py

Exit code 1 where a manifest has a field that the newest KServe or any of the Kubernetes versions does not know. For older
versions of KServe the unknown fields are listed: that list is the table in docs/KUBERNETES.md.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

import kubernetes_validate
import yaml

KUBERNETES = ["1.25", "1.29", "1.33", "1.37"]
KSERVE = ["0.12.1", "0.13.1", "0.14.1", "0.15.2", "0.16.0", "0.17.1", "0.18.1", "0.19.0", "0.20.0", "0.21.0"]
MANIFESTS = pathlib.Path(__file__).parent / "kubernetes"


def documents():
    for path in sorted(MANIFESTS.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def snake(name):
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).replace("V1Beta", "V1beta").lower()


class Models:
    """The models of one version of KServe's SDK: for each, its fields and their types, read without importing them."""

    def __init__(self, wheel):
        self.wheel = zipfile.ZipFile(wheel)
        self.names = set(self.wheel.namelist())

    def fields(self, model):
        path = f"kserve/models/{snake(model)}.py"
        if path not in self.names:
            return None
        text = self.wheel.read(path).decode()
        types, names = (
            dict(re.findall(r"'(\w+)': '([^']*)'", re.search(rf"{table} = {{(.*?)}}", text, re.S).group(1)))
            for table in ("openapi_types", "attribute_map")
        )
        return {names[attribute]: types[attribute] for attribute in names}

    def unknown(self, value, model, path=""):
        """The paths of the fields that this version does not know; Kubernetes' own types are not looked into."""
        inner = re.fullmatch(r"list\[(.*)\]", model)
        if inner:
            return [found for item in value for found in self.unknown(item, inner.group(1), path)]
        fields = self.fields(model) if isinstance(value, dict) else None
        if fields is None:
            return []
        found = []
        for name, item in value.items():
            if name in fields:
                found += self.unknown(item, fields[name], f"{path}.{name}")
            else:
                found.append(f"{path}.{name}".lstrip("."))
        return found


def check_kubernetes():
    failed = 0
    for version in KUBERNETES:
        for name, document in documents():
            if "kserve.io" in document["apiVersion"]:
                continue
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                failed += 1
                print(f"{name}, {document['kind']}: Kubernetes {version}: {error.message}")
    return failed


def check_kserve(directory):
    failed = 0
    for version in KSERVE:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"]
            + ["--disable-pip-version-check", "--dest", directory, f"kserve=={version}"],
            check=True,
        )
        models = Models(next(pathlib.Path(directory).glob(f"kserve-{version}-*.whl")))
        for name, document in documents():
            if "kserve.io" not in document["apiVersion"]:
                continue
            model = document["apiVersion"].split("/")[1].capitalize() + document["kind"]
            unknown = models.unknown(document, model) if models.fields(model) else ["the kind"]
            for field in unknown:
                print(f"{name}, {document['kind']}: KServe {version} does not know {field}")
            failed += bool(unknown) and version == KSERVE[-1]
    return failed


def main():
    with tempfile.TemporaryDirectory() as directory:
        failed = check_kubernetes() + check_kserve(directory)
    print(f"{len(list(documents()))} manifests, Kubernetes {', '.join(KUBERNETES)}, KServe {KSERVE[0]} to {KSERVE[-1]}: {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
