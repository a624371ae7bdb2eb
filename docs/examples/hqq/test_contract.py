"""hyocr's conformance kit: what every method has to keep."""

from hyocr_core.testing import MethodContract


class TestContract(MethodContract):
    method = "hqq"
    config = {"group_size": 32}
    bits = 4
