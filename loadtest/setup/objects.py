"""Checks the objects that a chart makes against their schemas: those of Kubernetes, and custom ones in a folder.

usage: objects.py KUBERNETES_VERSION FOLDER_OF_CRDS FILE
"""
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml


def strict(schema):
    """The schema without room for fields that it does not name."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            strict(part)
    elif isinstance(schema, list):
        for part in schema:
            strict(part)
    return schema


def custom(folder):
    """The schemas of the custom objects, by apiVersion and kind."""
    schemas = {}
    for path in pathlib.Path(folder).glob("*.yaml"):
        crd = yaml.safe_load(path.read_text())["spec"]
        for version in crd["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            schemas[f"{crd['group']}/{version['name']}", crd["names"]["kind"]] = schema
    return schemas


def main():
    version, folder, path = sys.argv[1:]
    schemas, count = custom(folder), 0
    for thing in yaml.safe_load_all(pathlib.Path(path).read_text()):
        if not thing:
            continue
        known = schemas.get((thing["apiVersion"], thing["kind"]))
        try:
            if known:
                # jsonschema.validate would check the schema first, and refuse Go's regular expressions in it, also
                # those of absent fields.
                jsonschema.Draft202012Validator(known).validate(thing)
            else:
                kubernetes_validate.validate(thing, version, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            where = "/".join(map(str, error.path))
            sys.exit(f"error: {thing['kind']} {thing['metadata']['name']}: {where}: {error.message}")
        count += 1
    print(f"{count} objects are as their schemas say")


main()
