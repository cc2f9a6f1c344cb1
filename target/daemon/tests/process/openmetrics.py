"""Reads a text in Prometheus' format and one in OpenMetrics with the official parsers, and compares them with each other and
with the catalogue: lines of family, type and unit on standard input. Prints the number of samples.

    openmetrics.py PROMETHEUS OPENMETRICS
"""

import sys

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser


def read(path, parse):
    with open(path, encoding="utf-8") as file:
        return list(parse(file))


def series(families):
    """Name and labels of every sample; edges of buckets as numbers, which the formats write in their own ways."""
    found = [
        (sample.name, tuple(sorted((name, float(value) if name == "le" else value) for name, value in sample.labels.items())))
        for family in families
        for sample in family.samples
    ]
    assert len(found) == len(set(found)), "a series twice"
    return set(found)


def main():
    catalogue = dict((line.split(" ")[0], line.rstrip("\n").split(" ")[1:]) for line in sys.stdin)
    prometheus = read(sys.argv[1], parser.text_fd_to_metric_families)
    openmetrics = read(sys.argv[2], openmetrics_parser.text_fd_to_metric_families)
    for family in openmetrics:
        kind, unit = catalogue[family.name]
        assert (family.type, family.unit) == (kind, unit), f"{family.name}: {family.type} {family.unit}"
    difference = series(prometheus) ^ series(openmetrics)
    assert not difference, f"in one format only: {sorted(difference)[:10]}"
    print(len(series(openmetrics)))


main()
