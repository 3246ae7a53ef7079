"""Checks the Prometheus rules without Prometheus: shape, expressions, and that each alert says what to do.

    alerts.py RULES_FILE

One line a fault; exit status 1 if there is any.
"""

import pathlib
import re
import sys

import promql_parser
import yaml

RULE_KEYS = {"alert", "expr", "for", "labels", "annotations"}
DURATION = re.compile(r"([0-9]+(ms|[smhdwy]))+")


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    groups = yaml.safe_load(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    faults = [f"{rule.get('alert')}: {fault}" for rule in rules for fault in rule_faults(rule)]
    names = [rule.get("alert") for rule in rules]
    faults += [f"{name}: stands there twice" for name in sorted(set(names)) if names.count(name) > 1]
    for fault in faults:
        print(fault)
    print(f"alerts: {len(rules)} rules, {len(faults)} faults")
    return 1 if faults or not rules else 0


def rule_faults(rule: dict) -> list[str]:
    faults = [f"unknown key {key}" for key in sorted(set(rule) - RULE_KEYS)]
    try:
        promql_parser.parse(rule["expr"])
    except (KeyError, ValueError) as error:
        faults.append(f"expr: {error}")
    if not DURATION.fullmatch(rule.get("for", "0s")):
        faults.append(f"for: expected a duration like 15m, found {rule['for']}")
    faults += [f"annotations.{key}: missing" for key in ("summary", "description") if not rule.get("annotations", {}).get(key)]
    if rule.get("labels", {}).get("severity") not in ("warning", "critical"):
        faults.append("labels.severity: expected warning or critical")
    return faults


if __name__ == "__main__":
    sys.exit(main())
