"""/metrics is in Prometheus' text format, and its numbers add up."""

import re
from collections import defaultdict

import pytest

from m3retriever.observing.counters import COUNTERS

SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? (\S+)')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parsed(text):
    """{metric: {labels: value}} and {metric: type}; every line must be one of the format's."""
    samples, kinds = defaultdict(dict), {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds, f"{name} is told of twice"
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            found = SAMPLE.fullmatch(line)
            assert found, line
            labels = frozenset(LABEL.findall(found[2] or ""))
            assert labels not in samples[found[1]], f"{line} comes twice"
            samples[found[1]][labels] = float(found[3])
    return samples, kinds


def total(samples, **wanted):
    return sum(value for labels, value in samples.items() if set(wanted.items()) <= labels)


@pytest.fixture(scope="module")
def numbers(start, index_path):
    running = start("--path", str(index_path))
    for _ in range(3):
        assert running.post("/v1/search", {"query": "fox"}).status_code == 200
    assert running.post("/v1/search", {"query": "fox", "k": 0}).status_code == 400
    assert running.post("/v1/encode", {"input": ["a", "b", "c"]}).status_code == 200
    assert running.get("/no/such/path").status_code == 404
    assert running.get("/no/other?path").status_code == 404
    return parsed(running.get("/metrics").text)


def test_every_sample_has_its_type_and_every_histogram_adds_up(numbers):
    samples, kinds = numbers
    for name in samples:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in kinds or kinds[base] == "histogram", name
    for base in (name for name, kind in kinds.items() if kind == "histogram"):
        series = defaultdict(list)
        for labels, value in samples[f"{base}_bucket"].items():
            bound = float(dict(labels)["le"])
            series[frozenset(label for label in labels if label[0] != "le")].append((bound, value))
        for labels, buckets in series.items():
            counts = [count for _, count in sorted(buckets)]
            assert counts == sorted(counts)
            assert counts[-1] == samples[f"{base}_count"][labels]
            assert sorted(buckets)[-1][0] == float("inf")


def test_requests_are_counted_by_route_and_status_and_unknown_paths_together(numbers):
    samples, _ = numbers
    requests = samples["m3retriever_http_requests_total"]
    assert total(requests, route="/v1/search", status="200") == 3
    assert total(requests, route="/v1/search", status="400") == 1
    assert total(requests, route="/v1/encode", status="200") == 1
    assert total(requests, route="other", status="404") == 2
    assert not [labels for labels in requests if "no/such" in str(labels)]
    assert total(samples["m3retriever_http_request_seconds_count"]) == total(requests)


def test_the_encoders_calls_and_the_librarys_own_counters_are_there(numbers):
    samples, _ = numbers
    assert total(samples["m3retriever_encoder_call_texts_count"]) == 4  # three queries, one list of three texts
    assert total(samples["m3retriever_encoder_call_texts_sum"]) == 6
    assert total(samples["m3retriever_encoder_turn_requests_sum"]) == 4
    assert total(samples["m3retriever_queries_total"]) == 3
    assert {f"m3retriever_{name}_total" for name in COUNTERS} <= set(samples)
    assert total(samples["m3retriever_step_seconds_count"], step="search") == 3


def test_gauges_say_how_it_is_now(numbers):
    samples, kinds = numbers
    assert {kinds[f"m3retriever_{name}"] for name in ("ready", "http_under_way", "encoder_waiting")} == {"gauge"}
    assert (total(samples["m3retriever_ready"]), total(samples["m3retriever_encoder_waiting"])) == (1, 0)


def test_it_is_served_as_prometheus_wants_it(service):
    assert service.get("/metrics").headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
