"""Names at lines' ends: near their line, never on each other."""

import numpy as np
import pytest

from rltrain.results.labels import spread, wrapped


def test_names_that_have_room_stay_where_their_lines_end():
    assert spread([0.5, 0.1, 0.9], [0.1, 0.1, 0.1], 0, 1).tolist() == pytest.approx([0.5, 0.1, 0.9])


def test_names_that_would_overlap_make_room_by_equal_parts():
    # two of height 0.2 that want 0.5 and 0.54 stand 0.2 apart, around 0.52; the third has room
    assert spread([0.54, 0.5, 0.1], [0.2, 0.2, 0.1], 0, 1).tolist() == pytest.approx([0.62, 0.42, 0.1])


def test_names_stay_within_the_panel_where_they_can():
    assert spread([0.0, 0.0], [0.2, 0.2], 0, 1).tolist() == pytest.approx([0.1, 0.3])
    assert spread([1.0, 1.0], [0.2, 0.4], 0, 1).tolist() == pytest.approx([0.5, 0.8])
    assert spread([0.2, 0.2, 0.2], [0.5, 0.5, 0.5], 0, 1).tolist() == pytest.approx([0, 0.5, 1.0])  # too many: over both ends
    assert spread([], [], 0, 1).tolist() == []


def test_no_two_names_overlap_wherever_lines_end():
    rng = np.random.default_rng(0)
    for count in (2, 5, 12):
        wanted, heights = rng.uniform(0, 1, count), rng.uniform(0.02, 0.08, count)
        places = spread(wanted, heights, 0, 1)
        order = np.argsort(wanted)
        gaps = np.diff(places[order]) - (heights[order][1:] + heights[order][:-1]) / 2
        assert (gaps > -1e-12).all() and (places - heights / 2 > -1e-12).all() and (places + heights / 2 < 1 + 1e-12).all()


def test_long_names_have_several_lines():
    assert wrapped("ppo") == "ppo"
    assert wrapped("learning_rate=0.001 epochs=4", 20) == "learning_rate=0.001\nepochs=4"
    assert wrapped("discount_factor=0.99", 16) == "discount_factor=\n0.99"
