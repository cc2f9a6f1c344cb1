"""What every dashboard is made of: expressions, panels and variables, with one look for all.

In expressions `@lun` stands for the selector of that variable and all above it, and `@lun{op="read"}` for the same with one
matcher more; `[@]` is Grafana's range for rates. Which panels there are is in the other files.
"""

import re

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import statetimeline, table as tables, timeseries
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models import prometheus as queries

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"

INSTANCE = 'job=~"$job",instance=~"$instance"'
SELECTORS = {
    "up": INSTANCE,
    "instance": INSTANCE,
    "controller": INSTANCE + ',controller=~"$controller"',
    "lun": INSTANCE + ',controller=~"$controller",target=~"$target",lun=~"$lun"',
    "bdev": INSTANCE + ',bdev=~"$bdev"',
    "device": INSTANCE + ',device=~"$device"',
    "ring": INSTANCE + ',controller=~"$device"',
    "port": INSTANCE + ',port=~"$port"',
    "plugged": INSTANCE + ',port=~"$port",device=~"$device"',
    "core": INSTANCE + ',core=~"$core"',
    "a": 'job=~"$job",instance=~"$a"',
    "b": 'job=~"$job",instance=~"$b"',
}

# name: label, metric that has it, above it, whether several may be chosen
VARIABLES = {
    "job": ("Job", "ringside_build_info", None, True),
    "instance": ("Target", "ringside_build_info", '{job=~"$job"}', True),
    "controller": ("Controller", "ringside_scsi_limit", "@instance", True),
    "target": ("SCSI target", "ringside_scsi_in_flight", "@controller", True),
    "lun": ("LUN", "ringside_scsi_in_flight", '@controller{target=~"$target"}', True),
    "bdev": ("Block device", "ringside_bdev_info", "@instance", True),
    "device": ("Net device", "ringside_net_info", "@instance", True),
    "port": ("Port", "ringside_port_info", "@instance", True),
    "core": ("Core", "ringside_poller_loops_total", "@instance", True),
    "a": ("A (baseline)", "ringside_build_info", '{job=~"$job"}', False),
    "b": ("B (candidate)", "ringside_build_info", '{job=~"$job"}', False),
}


def promql(text: str) -> str:
    """The expression that Grafana is given."""

    def selector(match: re.Match) -> str:
        matchers = SELECTORS[match[1]] + ("," + match[2][1:-1] if match[2] else "")
        return "{" + matchers + "}"

    text = " ".join(text.split()).replace("[@]", "[$__rate_interval]")
    return re.sub(r"@(\w+)(\{[^}]*\})?", selector, text)


def query(text: str, legend: str, *, instant: bool = False, form=queries.PromQueryFormat.TIME_SERIES):
    """A query of a panel; its series are named by `legend`."""
    made = prometheus.Dataquery().expr(promql(text)).legend_format(legend).format(form)
    made = made.editor_mode(queries.QueryEditorMode.CODE)
    return made.instant() if instant else made.range()


def quantile(of: float, histogram: str, by: str) -> str:
    """A quantile of a histogram with its selector, for each combination of these labels."""
    return f"histogram_quantile({of}, sum by ({by}, le) (rate({histogram}[@])))"


def ratio(above: str, below: str) -> str:
    """A quotient that has no value while there is nothing to divide by."""
    return f"({above}) / ({below} > 0)"


def steps(*limits):
    """Thresholds: a colour from the beginning, then (from, colour) each."""
    base, *rest = limits
    levels = [models.Threshold(value=None, color=base)]
    levels += [models.Threshold(value=value, color=color) for value, color in rest]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(levels)


ZERO_IS_GOOD = (GREEN, (1e-9, RED))


def _common(panel, title, text, unit, span, height):
    described = " ".join(text.split())
    return panel.title(title).description(described).datasource(SOURCE).unit(unit).span(span).height(height)


def _with_queries(panel, asked):
    for index, one in enumerate(asked):
        panel = panel.with_target(one.ref_id(chr(ord("A") + index)).datasource(SOURCE))
    return panel


def series(title, text, unit, *asked, span=12, limits=None, stacked=False, full=None):
    """Curves over time. `limits` are drawn as lines; `full` is the top of the axis."""
    legend = common.VizLegendOptions().display_mode(shapes.LegendDisplayMode.TABLE).show_legend(True)
    legend = legend.placement(shapes.LegendPlacement.BOTTOM).calcs(["lastNotNull", "mean", "max"])
    tooltip = common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING)
    panel = _common(timeseries.Panel(), title, text, unit, span, 9).legend(legend).tooltip(tooltip)
    panel = panel.show_points(shapes.VisibilityMode.NEVER).min(0).line_width(1).fill_opacity(70 if stacked else 8)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL).group("A"))
    if full is not None:
        panel = panel.max(full)
    if limits:
        style = common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(steps(*limits)).thresholds_style(style)
    return _with_queries(panel, asked)


def stat(title, text, unit, asked, *, span=4, limits=(GREEN,), names=None, shown="lastNotNull", spark=True):
    """One number, coloured by `limits`; `names` puts words for values."""
    reduced = common.ReduceDataOptions().calcs([shown]).values(False)
    graph = shapes.BigValueGraphMode.AREA if spark else shapes.BigValueGraphMode.NONE
    panel = _common(stats.Panel(), title, text, unit, span, 4).reduce_options(reduced).graph_mode(graph)
    panel = panel.color_mode(shapes.BigValueColorMode.VALUE).thresholds(steps(*limits))
    if names:
        panel = panel.mappings([_names(names)])
    return _with_queries(panel, [asked])


def _names(names):
    results = {str(value): models.ValueMappingResult(text=word, color=color) for value, (word, color) in names.items()}
    return models.ValueMap(options=results)


def timeline(title, text, names, *asked, span=12):
    """States over time, a row each; `names` maps values to a word and a colour."""
    panel = _common(statetimeline.Panel(), title, text, "short", span, 7)
    panel = panel.mappings([_names(names)]).show_value(shapes.VisibilityMode.NEVER).merge_values(True)
    return _with_queries(panel, asked)


def bars(title, text, unit, asked, *, span=12, limits=(BLUE,)):
    """The values of now, a bar each."""
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = _common(bargauge.Panel(), title, text, unit, span, 9).reduce_options(reduced).thresholds(steps(*limits))
    panel = panel.orientation(shapes.VizOrientation.HORIZONTAL).display_mode(shapes.BarGaugeDisplayMode.BASIC)
    return _with_queries(panel, [asked]).min(0)


def distribution(title, text, unit, histogram, *, span=12):
    """A histogram over time: how many observations in each class."""
    asked = query(f"sum by (le) (increase({histogram}[@]))", "{{le}}", form=queries.PromQueryFormat.HEATMAP)
    colors = heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    colors = colors.scale(heat.HeatmapColorScale.EXPONENTIAL).exponent(0.5).fill("dark-orange")
    panel = _common(heatmap.Panel(), title, text, "short", span, 9).calculate(False).color(colors)
    panel = panel.y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(shapes.AxisPlacement.LEFT))
    return _with_queries(panel, [asked])


def table(title, text, unit, columns, *, span=12, hidden=()):
    """Values of now joined by their labels. `columns` are (heading, expression, unit); labels in `hidden` are not shown."""
    asked = [query(text, "", instant=True, form=queries.PromQueryFormat.TABLE) for _, text, _ in columns]
    panel = _common(tables.Panel(), title, text, unit, span, 9)
    panel = panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    # One query gives "Value", several "Value #A" and so on.
    values = ["Value"] if len(columns) == 1 else [f"Value #{chr(ord('A') + index)}" for index in range(len(columns))]
    organized = {
        "excludeByName": {name: True for name in ("Time", "__name__", "job", *hidden)},
        "renameByName": {value: heading for value, (heading, _, _) in zip(values, columns)},
    }
    panel = panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=organized))
    for heading, _, of in columns:
        panel = panel.override_by_name(heading, [models.DynamicConfigValue(id_val="unit", value=of)])
    return _with_queries(panel, asked)


def variable(name: str):
    """A template variable, filled from the labels of a metric."""
    label, metric, above, several = VARIABLES[name]
    text = f"label_values({metric}{promql(above) if above else ''}, {name if name not in 'ab' else 'instance'})"
    asked = {"query": text, "refId": name, "qryType": 1}
    made = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(asked).multi(several)
    made = made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.NATURAL_ASC)
    if several:
        everything = models.VariableOption(selected=True, text="All", value="$__all")
        made = made.include_all(True).current(everything)
        # Below jobs, everything is of ringside. Of jobs, all are those that have the metric: `up` is of others, too.
        made = made if name == "job" else made.all_value(".*")
    return made
