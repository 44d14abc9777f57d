"""One stream per purpose; a stream depends on the seed, its purpose and its own number only."""

import itertools

import pytest

from rltrain import seeding

ROLES = {name: value for name, value in vars(seeding).items() if name.isupper() and name != "MAX_SEED"}


def test_roles_are_distinct_integers():
    assert len(set(ROLES.values())) == len(ROLES) >= 9 and all(isinstance(role, int) for role in ROLES.values())


def test_a_copys_seed_depends_on_its_global_number_only():
    whole = seeding.environment_seeds(3, seeding.TRAINING_ENVIRONMENTS, 8)
    parts = [seeding.environment_seeds(3, seeding.TRAINING_ENVIRONMENTS, size, first) for size, first in ((3, 0), (5, 3))]
    assert parts[0] + parts[1] == whole
    assert seeding.environment_seeds(3, seeding.TRAINING_ENVIRONMENTS, 100)[:8] == whole


def test_no_stream_is_shared():
    # `reset(seed=seed)` gives copy i the seed `seed + i`: the runs of seeds 1 and 2 would share seven of eight streams
    streams = [
        seeding.environment_seeds(seed, role, 8)
        for seed, role in itertools.product((0, 1, 2, 3), (seeding.TRAINING_ENVIRONMENTS, seeding.EVALUATION_ENVIRONMENTS,
                                                                seeding.FINAL_EVALUATION_ENVIRONMENTS))
    ]  # fmt: skip
    assert len(set(itertools.chain(*streams))) == 4 * 3 * 8
    wide = [seeding.seed64(seed, role, index) for seed in range(4) for role in ROLES.values() for index in range(4)]
    assert len(set(wide)) == len(wide)


def test_ranges():
    for seed in (0, 1, seeding.MAX_SEED, 2**63):
        assert 0 <= seeding.seed32(seed, 0, 5) < 2**32
        assert 0 <= seeding.seed64(seed, 0, 5) < 2**63
    assert all(0 <= seeding.draw_seed() < 2**31 for _ in range(10))
    assert len({seeding.draw_seed() for _ in range(10)}) > 1


@pytest.mark.parametrize(
    ("seed", "role", "index", "expected"),
    [(0, 0, 0, 2968811710), (1, 0, 0, 1835504127), (1, 0, 7, 1468060454), (2, 1, 3, 1539688509)],
)
def test_streams_stay_what_they_were(seed, role, index, expected):
    # a change here makes every saved run impossible to repeat
    assert seeding.seed32(seed, role, index) == expected
