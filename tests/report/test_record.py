"""A run's record, from what Snakemake says of its files."""

from __future__ import annotations

import pytest

from mlclipsim.report import record

HEAD = "output_file\tdate\trule\tlog-file(s)\tinput-file(s)\tshellcmd\tstatus\tplan"


def _row(output, rule, log, inputs):
    return "\t".join([output, "today", rule, log, ",".join(inputs), 'echo "', "ok", "no update"])


def test_jobs_from_snakemakes_account(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, text in (
        ("results/ci/shared/votes-0011/log.txt", "votes: 9.9 s\nvotes: 3.5 s\n"),
        ("results/ci/default/logs/fit-tower.txt", "killed\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    votes, labels = (f"results/ci/shared/votes-0011/{name}.parquet" for name in ("votes", "labels"))
    weights = "results/ci/default/models/tower/weights.json"
    table = [
        HEAD,
        _row(votes, "votes", "results/ci/shared/votes-0011/log.txt", ["src/mlclipsim/fit.py"]),
        _row(labels, "votes", "results/ci/shared/votes-0011/log.txt", ["src/mlclipsim/fit.py"]),
        _row(weights, "fit", "results/ci/default/logs/fit-tower.txt", [labels, "src/mlclipsim/fit.py"]),
        _row("results/ci/default/copied.csv", "-", "", []),
    ]
    assert record.jobs("\n".join(table)) == [
        {"name": "fit-tower", "rule": "fit", "inputs": [labels], "outputs": [weights], "seconds": None},
        {"name": "votes-0011", "rule": "votes", "inputs": [], "outputs": [votes, labels], "seconds": 3.5},
    ]


def test_a_configuration_that_snakemake_refuses_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(record.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="expected Snakemake's account"):
        record.write({"config": {}}, {}, {"record": tmp_path / "record.json"})
    assert not (tmp_path / "record.json").exists()
