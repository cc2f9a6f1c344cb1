#!/usr/bin/env python3
"""Writes the dashboards of source/ as the JSON files that Grafana imports.

    .build/dashboards/bin/python dashboards/generate.py            writes them beside this file
    .build/dashboards/bin/python dashboards/generate.py --check    says which differ from what is here; exits 1 if one does

`scripts/setup.sh --only dashboards` makes that Python, with the package of requirements.txt.
"""

import json
import pathlib
import sys

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from source import lab, limits, network, overview, pollers, storage
from source.panels import SOURCE, promql, variable

FOLDER = pathlib.Path(__file__).parent
BOARDS = {module.__name__.split(".")[-1]: module for module in (overview, storage, limits, network, pollers, lab)}


def build(name, module):
    """One dashboard as JSON text."""
    made = dashboard.Dashboard(f"ringside: {module.TITLE}").uid(f"ringside-{name}").description(" ".join(module.ABOUT.split()))
    made = made.tags(["ringside"]).timezone("browser").refresh("30s").time("now-1h", "now")
    made = made.tooltip(models.DashboardCursorSync.CROSSHAIR).editable()
    source = dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    made = made.with_variable(source)
    for one in module.VARIABLES:
        made = made.with_variable(variable(one))
    made = made.link(_others())
    for annotation in _annotations():
        made = made.annotation(annotation)
    for title, panels in module.rows():
        made = made.with_row(dashboard.Row(title))
        for panel in panels:
            made = made.with_panel(panel)
    built = made.build()
    for number, panel in enumerate(built.panels, 1):
        panel.id_val = number
    plain = json.loads(json.dumps(built, cls=JSONEncoder))
    for one in plain["templating"]["list"]:  # what is of variables of intervals only
        for key in ("auto", "auto_count", "auto_min"):
            one.pop(key, None)
    return json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _others():
    link = dashboard.DashboardLink("ringside").type(models.DashboardLinkType.DASHBOARDS).tags(["ringside"])
    return link.as_dropdown(True).include_vars(True).keep_time(True)


def _annotations():
    for name, color, text in (
        ("Alerts", "red", 'ALERTS{alertname=~"Ringside.*",alertstate="firing"}'),
        ("Restarts", "blue", 'resets(ringside_poller_loops_total{job=~"$job"}[5m]) > 0'),
    ):
        made = dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(color)
        yield made.expr(promql(text))


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    differing = []
    for name, module in BOARDS.items():
        path, text = FOLDER / f"{name}.json", build(name, module)
        if not path.exists() or path.read_text() != text:
            differing.append(path.name)
            if not check:
                path.write_text(text)
    stale = sorted({path.name for path in FOLDER.glob("*.json")} - {f"{name}.json" for name in BOARDS})
    if check and (differing or stale):
        sys.exit(f"not what dashboards/generate.py writes: {' '.join(differing + stale)}")
    print("\n".join(f"wrote dashboards/{name}" for name in differing) or "dashboards: all as generated")


main()
