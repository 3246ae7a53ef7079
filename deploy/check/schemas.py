"""Holds schemas/ and the example catalog together.

    schemas.py [REPOSITORY]

Every schema is a valid schema; every `examples` entry is valid by its own schema; `upsert` and `import` agree; every
document of deploy/local/example is valid as an event and by the schema of its kind; and every ref of the example but the
one that dangles on purpose names an entity of the example. One line a fault; exit status 1 if there is any.
"""

import json
import pathlib
import sys

import jsonschema
import yaml

# What two schemas of the same payload may differ in.
OWN_WORDS = ("$id", "title", "description", "examples")
DANGLES_ON_PURPOSE = {"resource:default/harbour-tide-tables"}
# Fields of spec that hold refs, and the kind that a ref without one has (none: it must say).
REFS = {
    "owner": "group", "system": "system", "domain": "domain", "subdomainOf": "domain", "subcomponentOf": "component",
    "providesApis": "api", "consumesApis": "api", "dependsOn": None, "dependencyOf": None,
    "parent": "group", "children": "group", "members": "user", "memberOf": "group",
}


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    faults: list[str] = []
    schemas = load_schemas(root, faults)
    documents = load_documents(root)
    faults += same_payload(schemas)
    faults += documents_valid(documents, schemas)
    faults += refs_resolve(documents)
    for fault in faults:
        print(fault)
    print(f"schemas: {len(schemas)} schemas, {len(documents)} example entities, {len(faults)} faults")
    return 1 if faults else 0


def load_schemas(root: pathlib.Path, faults: list[str]) -> dict[str, dict]:
    """Schemas by their path below schemas/, `event/upsert`; the invalid ones and their invalid examples are faults."""
    schemas = {}
    for path in sorted((root / "schemas").glob("*/*.schema.json")):
        name = f"{path.parent.name}/{path.name.removesuffix('.schema.json')}"
        try:
            schema = json.loads(path.read_text(encoding="utf-8"))
            validator_class = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
            validator_class.check_schema(schema)
        except (ValueError, jsonschema.SchemaError) as error:
            faults.append(f"{path}: no valid schema: {str(error).splitlines()[0]}")
            continue
        schemas[name] = schema
        examples = schema.get("examples", [])
        if path.parent.name == "event" and not examples:
            faults.append(f"{path}: has no examples")
        for index, example in enumerate(examples):
            faults += [f"{path}: examples[{index}]{error}" for error in errors(schema, example)]
    return schemas


def errors(schema: dict, instance: object) -> list[str]:
    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)(schema)
    return [f"{error.json_path[1:]}: {error.message}" for error in validator.iter_errors(instance)]


def same_payload(schemas: dict[str, dict]) -> list[str]:
    rules = [{key: value for key, value in schemas.get(name, {}).items() if key not in OWN_WORDS} for name in ("event/upsert", "event/import")]
    return [] if rules[0] and rules[0] == rules[1] else ["schemas/event: upsert and import must ask for the same payload, and they differ"]


def load_documents(root: pathlib.Path) -> list[tuple[str, dict]]:
    documents = []
    for path in sorted((root / "deploy/local/example").glob("**/*.yaml")):
        for index, document in enumerate(yaml.safe_load_all(path.read_text(encoding="utf-8"))):
            documents.append((f"{path} document {index + 1}", document))
    return documents


def documents_valid(documents: list[tuple[str, dict]], schemas: dict[str, dict]) -> list[str]:
    faults, unchecked = [], set()
    for where, document in documents:
        faults += [f"{where}{error}" for error in errors(schemas.get("event/upsert", {}), document)]
        kind = str(document.get("kind"))
        schema = schemas.get(f"entity/{kind}")
        if schema is None:
            unchecked.add(kind)
            continue
        faults += [f"{where} ({kind}){error}" for error in errors(schema, document)]
    for kind in sorted(unchecked):
        print(f"NOT CHECKED: kind {kind}: there is no schemas/entity/{kind}.schema.json")
    if unchecked and any(name.startswith("entity/") for name in schemas) and unchecked == {str(d.get("kind")) for _, d in documents}:
        faults.append("schemas/entity: has schemas, and none for a kind of the example")
    return faults


def refs_resolve(documents: list[tuple[str, dict]]) -> list[str]:
    known, faults = set(), []
    for where, document in documents:
        ref = full_ref(document["metadata"]["name"], document["kind"], document["metadata"].get("namespace", "default"))
        if ref in known:
            faults.append(f"{where}: {ref} stands in the example twice")
        known.add(ref)
    dangling = set()
    for where, document in documents:
        for field, kind in REFS.items():
            value = document["spec"].get(field, [])
            for target in [value] if isinstance(value, str) else value:
                ref = full_ref(target, kind, document["metadata"].get("namespace", "default"))
                if ref not in known:
                    dangling.add(ref)
                    faults += [] if ref in DANGLES_ON_PURPOSE else [f"{where}: spec.{field} names {ref}, which the example does not have"]
    faults += [f"deploy/local/example: {ref} was to dangle, and does not" for ref in DANGLES_ON_PURPOSE - dangling]
    return faults


def full_ref(ref: str, kind: str | None, namespace: str) -> str:
    if ":" in ref:
        kind, ref = ref.split(":", 1)
    if "/" in ref:
        namespace, ref = ref.split("/", 1)
    return f"{kind}:{namespace}/{ref}".lower()


if __name__ == "__main__":
    sys.exit(main())
