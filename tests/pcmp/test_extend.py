"""Later voters: a minor version more, beside the old one; pairs and images byte for byte the same."""

from __future__ import annotations

import pandas as pd
import pytest

from mlclipsim import cli
from mlclipsim.artifacts import ArtifactError, read_table, write_table
from mlclipsim.pcmp.extend import add_votes
from mlclipsim.pcmp.release import Description
from mlclipsim.pcmp.verify import verify


def test_new_votes_make_a_minor_version_and_leave_pairs_and_images(published, later_votes, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    arguments = ["--votes", str(later_votes.votes), "--voters", str(later_votes.voters), "--output"]
    assert cli.main(["pcmp", "add-votes", str(published), *arguments, str(tmp_path / "pcmp")]) == 0
    assert "pcmp-tiny 1.1.0, votes of dee" in capsys.readouterr().out
    for path in (tmp_path / "pcmp").iterdir():
        same = path.read_bytes() == before[path.name]
        changed = path.name in {
            "votes.parquet",
            "voters.parquet",
            "dataset.json",
            "datasheet.md",
            "checksums.sha256",
        }
        assert same != changed, path.name
    assert {path.name: path.read_bytes() for path in published.iterdir()} == before
    assert verify(tmp_path / "pcmp") == []
    votes = pd.read_parquet(tmp_path / "pcmp" / "votes.parquet")
    added = read_table(later_votes.votes, "votes")
    assert len(votes) == len(pd.read_parquet(published / "votes.parquet")) + len(added)
    assert set(votes.loc[votes["voter"] == "dee", "pair_id"]) == set(added["pair_id"])
    voters = pd.read_parquet(tmp_path / "pcmp" / "voters.parquet").set_index("voter")
    assert voters["since"].to_dict() == {"ada": "1.0.0", "bob": "1.0.0", "cyd": "1.0.0", "dee": "1.1.0"}
    description = Description.read(tmp_path / "pcmp")
    assert [entry["version"] for entry in description.history] == ["1.0.0", "1.1.0"]
    assert description.counts["votes"]["dee"] == {"cast": len(added), "ties": len(added), "abstained": 0}
    with pytest.raises(ArtifactError, match="dee voted already"):
        add_votes(tmp_path / "pcmp", later_votes.votes, later_votes.voters, tmp_path / "again")


def test_what_does_not_fit_is_refused_and_leaves_nothing(published, later_votes, tmp_path):
    votes = read_table(later_votes.votes, "votes")
    cases = {
        "got pair 'nowhere'": votes.assign(pair_id="nowhere")[:1],
        "got 0.3 on pair": votes.assign(vote=0.3),
        "has no row for ['zoe']": votes.assign(voter="zoe"),
        "holds no vote": votes[:0],
        "got two of one": pd.concat([votes, votes]),
    }
    for message, frame in cases.items():
        write_table(tmp_path / "votes.parquet", frame, "votes")
        with pytest.raises(ArtifactError) as caught:
            add_votes(published, tmp_path / "votes.parquet", later_votes.voters, tmp_path / "pcmp")
        assert message in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["votes.parquet"]
