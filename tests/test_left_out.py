"""What is not tested where a package is missing must not be missing in CI."""

import importlib.metadata
import os
import re

import pytest

NOT_INSTALLED = {"bench"}  # extras that `make test` does without


@pytest.mark.skipif(not os.environ.get("CI"), reason="only CI must have every optional package")
def test_ci_has_every_optional_package_so_that_no_test_skips_for_want_of_one():
    optional = [one for one in importlib.metadata.requires("m3retriever") or [] if "extra ==" in one]
    wanted = {
        re.match(r"[\w.-]+", one)[0] for one in optional if re.search(r"""extra == ['"]([\w-]+)""", one)[1] not in NOT_INSTALLED
    }
    assert {"ray", "qdrant-client", "openvino", "fastapi", "schemathesis"} <= wanted
    for name in sorted(wanted - {"m3retriever"}):
        importlib.metadata.distribution(name)  # PackageNotFoundError names what is missing
