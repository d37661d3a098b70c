#!/usr/bin/python3
"""Reads the metrics of a running l4lb as Prometheus would, and asks a Prometheus for what it has read of them.

scrape.py laws URL SECONDS          scrapes again and again: the laws between the counters hold each time, none shrinks
scrape.py time URL TIMES            what a scrape takes
scrape.py alerts PROMETHEUS         the expression of each alert returns data, apart from its comparison
scrape.py dashboard PROMETHEUS FILE the expressions of a Grafana dashboard return data
scrape.py firing PROMETHEUS ALERT   exit code 0 if that alert fires
"""

import json
import re
import statistics
import sys
import time
import urllib.parse
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT = 30
COMPARISON = re.compile(r"^(.*\S)\s*(?:==|!=|>=|<=|>|<)\s*[0-9.e+-]+$", re.DOTALL)
# Of the dashboard: what is there only after something has gone wrong, and what compares to show less.
MAY_BE_EMPTY = {"changes(l4lb_last_reload_timestamp_seconds"}


def fail(what):
    sys.exit(f"scrape.py: {what}")


def fetch(url):
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        return answer.read().decode()


class Page:
    """The value of each series of one scrape, and what kind of family it belongs to."""

    def __init__(self, text):
        self.values = {}
        self.grows = set()
        for family in text_string_to_metric_families(text):
            if not family.documentation:
                fail(f"{family.name} has no help")
            for sample in family.samples:
                series = (sample.name, tuple(sorted(sample.labels.items())))
                if series in self.values:
                    fail(f"{series} is there twice")
                self.values[series] = sample.value
                if family.type in ("counter", "histogram"):
                    self.grows.add(series)

    def sum(self, name, **labels):
        wanted = set(labels.items())
        return sum(value for (of, has), value in self.values.items() if of == name and wanted <= set(has))

    def names_of(self, label, name):
        return {dict(has)[label] for of, has in self.values if of == name}

    def laws(self):
        """What is to be equal, on every scrape."""
        total = self.sum
        yield "laws violated", total("l4lb_invariant_violations"), 0
        yield "lost wake-ups", total("l4lb_lost_wakeups_total"), 0
        accepted = total("l4lb_accepted_sessions_total")
        yield "accepted", accepted, total("l4lb_active_sessions") + total("l4lb_closed_sessions_total")
        states = ("l4lb_connecting_sessions", "l4lb_connected_sessions_total", "l4lb_failed_sessions_total")
        yield "accepted by state", accepted, sum(map(total, states))
        for side, other in (("client", "backend"), ("backend", "client")):
            gone = total(f"l4lb_to_{other}_bytes_total") + total(f"l4lb_discarded_from_{side}_bytes_total")
            yield f"bytes from {side}", total(f"l4lb_from_{side}_bytes_total"), gone + total(f"l4lb_held_from_{side}_bytes")
        for listener in self.names_of("listener", "l4lb_listener_accepted_sessions_total"):
            parts = ("l4lb_listener_active_sessions", "l4lb_listener_closed_sessions_total")
            came = total("l4lb_listener_accepted_sessions_total", listener=listener)
            yield f"accepted by {listener}", came, sum(total(part, listener=listener) for part in parts)
            name = "l4lb_listener_session_seconds"
            yield f"{name} of {listener}", total(f"{name}_count", listener=listener), total(
                f"{name}_bucket", listener=listener, le="+Inf"
            )
        open_pipes = total("l4lb_opened_pipes_total") - total("l4lb_closed_pipes_total")
        yield "open pipes", total("l4lb_pipes"), open_pipes


def check_laws(url, seconds):
    deadline = time.monotonic() + float(seconds)
    scrapes, former = 0, None
    while scrapes == 0 or time.monotonic() < deadline:
        page = Page(fetch(url))
        for what, one, other in page.laws():
            if one != other:
                fail(f"{what}: {one} != {other}")
        if former:
            for series in former.grows:
                if page.values.get(series, -1) < former.values[series]:
                    fail(f"{series}: {former.values[series]} -> {page.values.get(series)}")
        scrapes, former = scrapes + 1, page
    print(f"scrapes={scrapes} series={len(former.values)} accepted={former.sum('l4lb_accepted_sessions_total'):.0f}")


def take_time(url, times):
    took, own = [], []
    for _ in range(int(times)):
        began = time.monotonic()
        text = fetch(url)
        took.append((time.monotonic() - began) * 1000)
        own.append(float(re.search(r"^l4lb_scrape_seconds (\S+)$", text, re.MULTILINE)[1]) * 1000)
    series = sum(not line.startswith("#") for line in text.splitlines())
    print(f"ms={statistics.median(took):.0f} own_ms={statistics.median(own):.0f} series={series} bytes={len(text)}")


def ask(prometheus, path, **query):
    answer = json.loads(fetch(f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}"))
    if answer["status"] != "success":
        fail(answer)
    return answer["data"]


def returns_data(prometheus, expression):
    return len(ask(prometheus, "query", query=expression)["result"]) > 0


def check_alerts(prometheus):
    rules = [rule for group in ask(prometheus, "rules")["groups"] for rule in group["rules"]]
    for rule in rules:
        compared = COMPARISON.match(rule["query"]) or fail(f"{rule['name']} compares nothing: {rule['query']}")
        if not returns_data(prometheus, compared[1]):
            fail(f"{rule['name']}: no data: {compared[1]}")
    print(f"alerts={len(rules)}")


def expressions_of(node):
    if isinstance(node, dict):
        if isinstance(node.get("expr"), str):
            yield node["expr"]
        for value in node.values():
            yield from expressions_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions_of(value)


def check_dashboard(prometheus, file):
    with open(file, encoding="utf-8") as text:
        expressions = list(expressions_of(json.load(text)))
    for expression in expressions:
        asked = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
        data = returns_data(prometheus, asked)
        if not data and not any(asked.startswith(start) for start in MAY_BE_EMPTY):
            fail(f"no data: {asked}")
    print(f"expressions={len(expressions)}")


def check_firing(prometheus, name):
    alerts = ask(prometheus, "alerts")["alerts"]
    firing = [alert for alert in alerts if alert["labels"]["alertname"] == name and alert["state"] == "firing"]
    sys.exit(0 if firing else 1)


COMMANDS = {
    "laws": check_laws,
    "time": take_time,
    "alerts": check_alerts,
    "dashboard": check_dashboard,
    "firing": check_firing,
}


if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
