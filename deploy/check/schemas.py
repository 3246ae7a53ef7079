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


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    faults: list[str] = []
    schemas = load_schemas(root, faults)
    documents = load_documents(root)
    faults += same_payload(schemas)
    faults += documents_valid(documents, schemas)
    relations = json.loads((root / "schemas/entity/relations.json").read_text(encoding="utf-8"))
    faults += refs_resolve(documents, relations)
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
        if not examples:
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
    faults = []
    for where, document in documents:
        for name in ("event/upsert", "entity/Entity", f"entity/{document.get('kind')}"):
            if name not in schemas:
                faults.append(f"{where}: cannot be checked: there is no schemas/{name}.schema.json")
                continue
            faults += [f"{where} by {name}{error}" for error in errors(schemas[name], document)]
    return faults


def refs_resolve(documents: list[tuple[str, dict]], relations: list[dict]) -> list[str]:
    faults: list[str] = []
    known = {own_ref(document) for _, document in documents}
    if len(known) < len(documents):
        faults.append(f"deploy/local/example: {len(documents)} documents, and {len(known)} entities: some stand there twice")
    dangling = {(where, ref) for where, document in documents for ref in named_refs(document, relations) if ref not in known}
    faults += [f"{where}: names {ref}, which the example does not have" for where, ref in sorted(dangling) if ref not in DANGLES_ON_PURPOSE]
    faults += [f"deploy/local/example: {ref} was to dangle, and does not" for ref in DANGLES_ON_PURPOSE - {ref for _, ref in dangling}]
    return faults


def own_ref(document: dict) -> str:
    return full_ref(document["metadata"]["name"], document["kind"], namespace(document))


def named_refs(document: dict, relations: list[dict]) -> list[str]:
    refs = []
    for rule in relations:
        if document["kind"] in rule["kinds"]:
            value = document["spec"].get(rule["field"], [])
            refs += [full_ref(ref, rule.get("defaultKind"), namespace(document)) for ref in ([value] if isinstance(value, str) else value)]
    return refs


def namespace(document: dict) -> str:
    return document["metadata"].get("namespace", "default")


def full_ref(ref: str, kind: str | None, namespace: str) -> str:
    if ":" in ref:
        kind, ref = ref.split(":", 1)
    if "/" in ref:
        namespace, ref = ref.split("/", 1)
    return f"{kind}:{namespace}/{ref}".lower()


if __name__ == "__main__":
    sys.exit(main())
