"""Which units a shard has, and where the parts of a result lie."""

from __future__ import annotations

import json

import pytest

from mlclipsim import cli, shards
from mlclipsim.shards import WHOLE, Shard
from mlclipsim.usage import UsageError


@pytest.mark.parametrize("units", [0, 1, 2, 7, 64, 1000])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_shards_share_all_units_in_their_order_and_evenly(units, count):
    ranges = [Shard.parse(name).of(units) for name in shards.names(count)]
    assert [unit for part in ranges for unit in part] == list(range(units))
    sizes = [len(part) for part in ranges]
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 1


def test_more_shards_than_units_leave_some_without_any():
    assert sorted(len(Shard(number, 5).of(2)) for number in range(1, 6)) == [0, 0, 0, 1, 1]


def test_only_the_first_shard_writes_what_is_about_no_unit():
    assert [Shard(number, 3).first for number in (1, 2, 3)] == [True, False, False]
    assert WHOLE.first


@pytest.mark.parametrize("text", ["", "3", "3/16", "0-of-4", "5-of-4", "-1-of-4", "1-of-0", "a-of-b"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match="expected a shard like 3-of-16"):
        Shard.parse(text)


def test_parts_lie_below_the_whole():
    assert shards.part("a/b/votes.parquet", "2-of-3") == "a/b/parts/2-of-3/votes.parquet"
    assert shards.part_log("a/b-1/votes.parquet", "2-of-3") == "a/b-1/logs/b-1-2-of-3.txt"
    left = shards.parts(["a/votes.parquet", "a/labels.parquet"], 2)
    assert left == [
        f"a/parts/{shard}/{name}"
        for shard in ("1-of-2", "2-of-2")
        for name in ("votes.parquet", "labels.parquet", "provenance.json")
    ]
    assert shards.option(left) == ["--parts", "a/parts/1-of-2", "a/parts/2-of-2"]
    assert shards.parts(["a/votes.parquet"], 1) == shards.option([]) == []


def test_what_is_there_stays_as_it_was_made(tmp_path):
    """Snakemake would make it again, if the configuration could change which parts it is made of."""
    votes = tmp_path / "votes.parquet"
    assert shards.made_in(votes, 4) == 4
    votes.touch()
    assert shards.made_in(votes, 4) == 4  # as where a job was killed between its outputs and their record
    shards.record(votes).parent.mkdir()
    for measured, count in (({"shards": 16}, 16), ({}, 1)):
        shards.record(votes).write_text(json.dumps({"measured": measured}))
        assert shards.made_in(votes, 4) == count
    shards.record(votes).write_text("{")
    assert shards.made_in(votes, 4) == 4


def test_steps_that_are_one_piece_have_no_shards(capsys):
    assert cli.main(["step", "fit", "--spec", "{}", "--shard", "1-of-2"]) == 2
    assert "fit is one piece of work; shards are of pcmp_images" in capsys.readouterr().err
    assert cli.main(["step", "votes", "--spec", "{}", "--shard", "2-of-1"]) == 2
