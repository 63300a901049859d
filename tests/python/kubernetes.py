"""Checks manifests as an API server does that knows their kinds, and refuses fields that none has.

kubernetes.py CRDS MANIFEST...: CRDS is a folder with CustomResourceDefinitions."""

import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml


def strict(schema):
    """A field that a structural schema does not have would be dropped in silence."""
    schema = dict(schema)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            schema[name] = strict(schema[name])
    if fields := schema.get("properties"):
        schema["properties"] = {name: strict(field) for name, field in fields.items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    return schema


def definitions(folder):
    known = {}
    for path in pathlib.Path(folder).rglob("*.yaml"):
        for document in yaml.load_all(path.read_text(), yaml.CSafeLoader):
            if not document or document.get("kind") != "CustomResourceDefinition":
                continue
            spec = document["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
                known[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return known


def main():
    known = definitions(sys.argv[1])
    assert len(known) > 20, f"{len(known)} definitions in {sys.argv[1]}"
    for path in sys.argv[2:]:
        for document in yaml.safe_load_all(pathlib.Path(path).read_text()):
            name = document["apiVersion"], document["kind"]
            if name in known:
                errors = jsonschema.Draft202012Validator(known[name]).iter_errors(document)
                for error in errors:
                    sys.exit(f"{path}: {document['kind']}: {error.json_path}: {error.message}")
            else:
                kubernetes_validate.validate(document, "1.37", strict=True)
            print(path, *name)


main()
