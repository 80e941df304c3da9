"""The comparison with the committed snapshot can fail."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("check_results", Path(__file__).with_name("check_results.py"))
check_results = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check_results)


@pytest.mark.parametrize(
    ("actual", "good", "text"),
    [
        ("m,v\npsnr,0.5\n", True, "same bytes"),
        ("m,v\npsnr,0.50000000001\n", True, "same up to 1e-11"),
        ("m,v\npsnr,0.501\n", False, "line 2: 0.5 expected, 0.501 found"),
        ("m,v\nssim,0.5\n", False, "line 2: 'psnr' expected, 'ssim' found"),
        ("m,v\n", False, "1 rows expected, 0 found"),
        (None, False, "is not there"),
    ],
)
def test_tables_are_compared_by_value(tmp_path, actual, good, text):
    (tmp_path / "a.csv").write_text("m,v\npsnr,0.5\n")
    if actual is not None:
        (tmp_path / "b.csv").write_text(actual)
    verdict = check_results.compare(tmp_path / "a.csv", tmp_path / "b.csv")
    assert verdict[0] is good
    assert text in verdict[1]


def test_only_what_is_measured_may_differ(tmp_path):
    (tmp_path / "a.csv").write_text("metric,macs,ms_per_image,device\npsnr,7,0.5,cpu\n")
    (tmp_path / "b.csv").write_text("metric,macs,ms_per_image,device\npsnr,7,0.9,cpu\n")
    (tmp_path / "c.csv").write_text("metric,macs,ms_per_image,device\npsnr,8,0.5,cpu\n")
    assert check_results.compare(tmp_path / "a.csv", tmp_path / "b.csv")[0]
    assert not check_results.compare(tmp_path / "a.csv", tmp_path / "c.csv")[0]
