#!/usr/bin/env python3
"""Checks dashboards against Grafana's schema, as grafana-foundation-sdk has it, and for what operators need of a panel.

    dashboards/check.py FILE…    a line for each problem, and exit status 1 if there is one

A field that the schema does not know, a value of another type or outside of its enumeration, a panel or query type that there
is not: each is a problem. So is a panel without a description, a unit that Grafana has not, or panels that overlap.
"""

import enum
import inspect
import json
import pathlib
import re
import sys
import types
import typing

from grafana_foundation_sdk.cog import plugins, runtime
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard, units

UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
UNITS |= {typing.get_args(hint)[0] for hint in vars(units).get("__annotations__", {}).values() if typing.get_args(hint)}

CHOSEN = {"type": "prometheus", "uid": "${datasource}"}


def problems(data):
    """What is wrong with a dashboard, in words."""
    try:
        read = dashboard.Dashboard.from_json(data)
    except Exception as error:  # the reader takes the shape for granted
        return [f"cannot be read: {type(error).__name__}: {error}"]
    again = json.loads(json.dumps(read, cls=JSONEncoder))
    wrong = [*unknown(data, again, "dashboard"), *mistyped(read, dashboard.Dashboard, "dashboard")]
    return wrong or list(unusable(data))


def unknown(data, again, where):
    """What the schema dropped, because it has no such field."""
    if isinstance(data, dict) and isinstance(again, dict):
        for key, value in data.items():
            if key not in again:
                yield f"{where}.{key}: the schema has no such field"
            else:
                yield from unknown(value, again[key], f"{where}.{key}")
    elif isinstance(data, list) and isinstance(again, list) and len(data) == len(again):
        for index, (one, other) in enumerate(zip(data, again)):
            yield from unknown(one, other, f"{where}[{index}]")
    elif data != again:
        yield f"{where}: {data!r} was read as {again!r}"


def mistyped(value, hint, where):
    """Values that are not of the type that the schema gives."""
    if not fits(value, hint):
        yield f"{where}: {value!r} is not {hint.__name__ if inspect.isclass(hint) else hint}"
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from mistyped(one, object, f"{where}[{index}]")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from mistyped(one, object, f"{where}.{key}")
    elif hasattr(value, "to_json"):
        if isinstance(value, runtime.UnknownDataquery):
            yield f"{where}: a query of an unknown type"
        for name, field in typing.get_type_hints(type(value)).items():
            yield from mistyped(getattr(value, name), field, f"{where}.{name}")


def fits(value, hint):
    """Whether a value is of that type, as far down as the type says."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (object, typing.Any):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(fits(one, arguments[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, arguments[1]) for one in value.values())
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return value in [one.value for one in hint]
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    if isinstance(value, dict) and hasattr(hint, "to_json"):
        return fits_unread(value, hint)
    return isinstance(value, hint)


def fits_unread(value, shape):
    """The same for an object that the reader leaves as it was (transformations)."""
    fields = typing.get_type_hints(shape).items()
    known = {re.sub("_(.)", lambda match: match[1].upper(), name.removesuffix("_val")): hint for name, hint in fields}
    return all(key in known and fits(one, known[key]) for key, one in value.items())


def unusable(data):
    """What the schema allows, and an operator has no use for."""
    panels = data.get("panels", [])
    seen = set()
    for panel in panels:
        name = f"panel {panel.get('title')!r}"
        if panel.get("id") in seen:
            yield f"{name}: its id is used twice"
        seen.add(panel.get("id"))
        if panel.get("type") == "row":
            continue
        if runtime.panelcfg_config(panel.get("type")) is None:
            yield f"{name}: there is no panel type {panel.get('type')!r}"
        if len(panel.get("description", "")) < 20:
            yield f"{name}: its description does not say what to do"
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit")
        if unit not in UNITS:
            yield f"{name}: there is no unit {unit!r}"
        targets = panel.get("targets", [])
        if not targets or any(not target.get("expr") for target in targets):
            yield f"{name}: a query without an expression"
        if len({target.get("refId") for target in targets}) != len(targets):
            yield f"{name}: two queries of one name"
        if any(one.get("datasource") != CHOSEN for one in (panel, *targets)):
            yield f"{name}: not of the chosen data source"
    yield from overlaps(panels)


def overlaps(panels):
    """Panels that are on the same place, or beyond the grid of 24 columns."""
    taken = {}
    for panel in panels:
        place = panel.get("gridPos", {})
        x, y, w, h = (place.get(key, 0) for key in "xywh")
        if x + w > 24:
            yield f"panel {panel.get('title')!r}: beyond the grid"
        for cell in ((column, line) for column in range(x, x + w) for line in range(y, y + h)):
            if cell in taken:
                yield f"panel {panel.get('title')!r}: over {taken[cell]!r}"
                break
            taken[cell] = panel.get("title")


def main():
    if not sys.argv[1:]:
        sys.exit(__doc__)
    plugins.register_default_plugins()
    found = [f"{path}: {problem}" for path in sys.argv[1:] for problem in problems(json.loads(pathlib.Path(path).read_text()))]
    print("\n".join(found) or f"{len(sys.argv) - 1} dashboards: no problem")
    sys.exit(1 if found else 0)


main()
