"""What OpenAPI says is what the service does: found out by Schemathesis, which makes requests from it."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from m3retriever.serving.app import make_app
from m3retriever.serving.opening import Source
from m3retriever.serving.routes import REASONS
from m3retriever.serving.service import Service
from m3retriever.serving.settings import Settings

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
)
SPECIFICATION = make_app(Service(Settings(), Source(model="hashing").open)).openapi()  # as the service sends it: see below
schema = schemathesis.openapi.from_dict(SPECIFICATION)


@schema.parametrize()
@settings(
    max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_requests_made_from_the_specification_are_answered_as_it_says(case, service):
    case.call_and_validate(base_url=service.url, checks=list(CHECKS))


def test_the_specification_is_the_one_that_is_sent(service):
    assert service.get("/openapi.json").json() == json.loads(json.dumps(SPECIFICATION))


def test_every_endpoint_is_described_has_an_example_and_names_its_errors():
    for path, operations in SPECIFICATION["paths"].items():
        for operation in operations.values():
            assert len(operation["description"]) > 20, path
            assert {"200", "500"} <= set(operation["responses"]), path
            assert "422" not in operation["responses"], path
            if "requestBody" in operation:
                reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                body = SPECIFICATION["components"]["schemas"][reference.rpartition("/")[2]]
                assert body["examples"], path
                assert body["additionalProperties"] is False, path


def test_every_example_of_the_specification_is_answered(service):
    for path, operations in SPECIFICATION["paths"].items():
        if "post" in operations:
            name = operations["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            for example in SPECIFICATION["components"]["schemas"][name]["examples"]:
                answer = service.post(path, example)
                expected = 404 if path == "/v1/explain" else 200  # its document is not in the tests' index
                assert answer.status_code == expected, (path, answer.text)


@pytest.mark.parametrize("status", REASONS)
def test_every_status_has_its_reason_in_words(status):
    assert REASONS[status].endswith(".")
