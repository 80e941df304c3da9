"""The drawing of the workflow: what it connects, and that nothing lies over anything else."""

from __future__ import annotations

import itertools

import pytest

from mlclipsim.report.graph import draw, of_rules


def _job(rule, inputs, outputs):
    return {"rule": rule, "inputs": inputs, "outputs": outputs}


@pytest.fixture
def jobs():
    return [
        _job("images", [], ["i"]),
        _job("votes", ["i"], ["v"]),
        _job("similarities", ["i"], ["s1"]),
        _job("similarities", ["i"], ["s2"]),
        _job("fit", ["v", "s1"], ["w"]),
        _job("table", ["w", "v", "i", "elsewhere"], ["t"]),
        _job("sheet", ["i"], ["f"]),
    ]


def test_rules_are_connected_by_the_files_between_them(jobs):
    graph = of_rules(jobs)
    assert set(graph) == {"images", "votes", "similarities", "fit", "table", "sheet"}
    assert set(graph.edges) == {
        *(("images", target) for target in ("votes", "similarities", "table", "sheet")),
        *(("votes", "fit"), ("votes", "table"), ("similarities", "fit"), ("fit", "table")),
    }


def test_what_others_imply_is_left_out(jobs):
    assert len(draw(of_rules(jobs)).paths) == 6  # neither images -> table nor votes -> table


def test_boxes_lie_apart_within_the_drawing_and_below_what_they_need(jobs):
    drawing = draw(of_rules(jobs))
    place = {box.name: box for box in drawing.boxes}
    for box in drawing.boxes:
        assert 0 <= box.x <= drawing.width - drawing.box_width
        assert 0 <= box.y <= drawing.height - drawing.box_height
    for one, other in itertools.combinations(drawing.boxes, 2):
        apart = abs(one.x - other.x) >= drawing.box_width or abs(one.y - other.y) >= drawing.box_height
        assert apart, (one, other)
    assert place["images"].y < place["votes"].y < place["fit"].y < place["table"].y


def test_a_connection_that_passes_a_row_goes_round_its_boxes():
    drawing = draw(of_rules([_job("a", [], ["1", "2"]), _job("b", ["1"], ["3"]), _job("c", ["3"], ["4"]),
                             _job("d", ["1"], ["5"]), _job("e", ["4", "5"], ["6"])]))  # fmt: skip
    (long,) = [path for path in drawing.paths if "V" in path]
    middle = next(box for box in drawing.boxes if box.name == "c")
    x = float(long.split("V")[0].split()[-2])
    assert not middle.x < x < middle.x + drawing.box_width


def test_drawings_repeat_whatever_the_order_of_jobs(jobs):
    assert draw(of_rules(jobs)) == draw(of_rules(jobs[::-1]))


def test_no_jobs_no_drawing():
    assert draw(of_rules([])).boxes == []
