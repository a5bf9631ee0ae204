import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidLatent, InvalidValue, TooLarge
from service.plan import SMALLEST_PIECE, Plan, Ranges

small_ranges = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 9)).map(lambda pair: range(pair[0], sum(pair))), max_size=6
)


def seeds_and_labels(plan):
    return [(sample.seed, sample.label) for sample in map(plan.__getitem__, range(len(plan)))]


@given(small_ranges)
def test_ranges_are_the_list_of_their_numbers(ranges):
    expected = [number for range_ in ranges for number in range_]
    together = Ranges(ranges)
    assert len(together) == together.total == len(expected)
    assert list(together) == expected
    assert together[1:4] == expected[1:4]
    with pytest.raises(IndexError):
        together[len(expected)]


def test_ranges_count_what_len_cannot():
    assert Ranges([range(2**64), range(5, 2**64)]).total == 2**65 - 5


def test_sample_i_has_the_seed_after_sample_i_minus_1(plain_bundle):
    plan = Plan.of(plain_bundle, first_seed=40, count=3)
    assert seeds_and_labels(plan) == [(40, None), (41, None), (42, None)]
    assert plan[2] == plain_bundle.sample(seed=42)


@pytest.mark.parametrize(("scheme", "seeds"), [("philox", 2**64), ("stylegan", 2**32)])
def test_after_the_last_seed_comes_the_first(make_bundle, load, scheme, seeds):
    bundle = load(make_bundle("plain", latent={"z_dim": 4, "scheme": scheme}))
    plan = Plan.of(bundle, first_seed=seeds - 2, count=4)
    assert list(plan.seeds) == [seeds - 2, seeds - 1, 0, 1]
    assert list(Plan.of(bundle, first_seed=seeds - 1, count=1).seeds) == [seeds - 1]


def test_without_a_seed_one_is_drawn(plain_bundle):
    assert Plan.of(plain_bundle, count=1).seeds[0] != Plan.of(plain_bundle, count=1).seeds[0]


def test_seeds_may_be_named_in_any_order_and_twice(plain_bundle):
    plan = Plan.of(plain_bundle, seeds=Ranges([range(7, 9), range(3, 4), range(7, 8)]))
    assert list(plan.seeds) == [7, 8, 3, 7]


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        (None, [0, 1, 2, 0, 1]),
        ("one", [1, 1, 1, 1, 1]),
        (2, [2, 2, 2, 2, 2]),
        (["two", 0], [2, 0, 2, 0, 2]),
        ({"two": 2, "zero": 3}, [2, 2, 0, 0, 0]),
        ({"1": 1, "one": 1, "0": 0, "2": 3}, [1, 1, 2, 2, 2]),
    ],
)
def test_classes_are_one_or_take_turns_or_are_counted(digits_bundle, classes, labels):
    plan = Plan.of(digits_bundle, first_seed=10, count=5, classes=classes)
    assert seeds_and_labels(plan) == list(zip(range(10, 15), labels, strict=True))


@pytest.mark.parametrize("classes", [None, ["two", 0], {"two": 2, "zero": 5}])
@pytest.mark.parametrize("seeds", [{"first_seed": 2**64 - 3, "count": 7}, {"seeds": Ranges([range(3), range(9, 13)])}])
def test_leaving_some_out_changes_nothing_about_the_others(digits_bundle, seeds, classes):
    whole = Plan.of(digits_bundle, **seeds, classes=classes)
    for start in range(7):
        rest = Plan.of(digits_bundle, **seeds, classes=classes, start=start)
        assert seeds_and_labels(rest) == seeds_and_labels(whole)[start:]
        indices = [index for work in rest.works(lambda piece: [i for i, _ in piece]) for index in work.finish]
        assert indices == list(range(start, 7))


def test_a_histogram_says_how_many(digits_bundle):
    plan = Plan.of(digits_bundle, first_seed=0, classes={"one": 2, "zero": 1})
    assert seeds_and_labels(plan) == [(0, 1), (1, 1), (2, 0)]


@pytest.mark.parametrize(
    ("ask", "pointer", "message"),
    [
        ({}, "/count", "count is missing"),
        ({"seeds": Ranges([])}, "/seeds", "seeds is empty"),
        ({"seeds": Ranges([range(2)]), "count": 2}, "/seeds", "leave seed and count out"),
        ({"seeds": Ranges([range(2)]), "first_seed": 0}, "/seeds", "leave seed and count out"),
        ({"count": 3, "classes": {"one": 2}}, "/classes", "add up to 2 pictures, seeds or count to 3"),
        ({"seeds": Ranges([range(3)]), "classes": {"one": 2}}, "/classes", "add up to 2"),
        ({"classes": {}}, "/classes", "no picture at all"),
        ({"classes": {"one": 0}}, "/classes", "no picture at all"),
        ({"count": 1, "classes": []}, "/classes", "classes is empty"),
        ({"count": 1, "classes": "2"}, "/classes", "unknown class '2', a text; send an index as a number"),
        ({"count": 1, "classes": "three"}, "/classes", "unknown class 'three'"),
        ({"count": 1, "classes": ["one", "three"]}, "/classes/1", "unknown class 'three'"),
        ({"classes": {"one": 1, "a/b~c": 1}}, "/classes/a~1b~0c", "unknown class 'a/b~c'"),
        ({"classes": {"3": 1}}, "/classes/3", "from 0 to 2"),
        ({"classes": {"01": 1}}, "/classes/01", "unknown class '01'"),
        ({"first_seed": 1, "count": 3, "start": 3}, "/start", "there are 3 pictures; it leaves out at most 2"),
        ({"count": 3, "start": 1}, "/seed", "seeds before it would be drawn; send seed or seeds"),
        ({"classes": {"٢": 1}}, "/classes/٢", "unknown class"),
        ({"classes": {"9" * 50: 1}}, "/classes/" + "9" * 50, "unknown class"),
    ],
)
def test_says_what_does_not_fit(digits_bundle, ask, pointer, message):
    with pytest.raises(InvalidValue, match=message) as error:
        Plan.of(digits_bundle, **ask)
    assert error.value.pointer == pointer


def test_says_what_does_not_suit_the_bundle(plain_bundle):
    with pytest.raises(InvalidValue, match="knows no classes"):
        Plan.of(plain_bundle, classes={"one": 1})
    with pytest.raises(InvalidValue, match="knows no truncation"):
        Plan.of(plain_bundle, count=1, truncation=0.5)
    with pytest.raises(InvalidLatent, match=str(2**64)) as error:
        Plan.of(plain_bundle, seeds=Ranges([range(1), range(2**64, 2**64 + 1)]))
    assert error.value.pointer == "/seeds"


@pytest.mark.parametrize(
    "ask",
    [
        {"count": 101},
        {"count": 2**64 - 1},
        {"seeds": Ranges([range(2**64)])},
        {"seeds": Ranges([range(2**63), range(2**63)])},
        {"classes": {"one": 100, "two": 1}},
        {"classes": {"one": 2**64 - 1, "two": 2**64 - 1}},
    ],
)
def test_more_than_may_be_asked_for_is_too_large(digits_bundle, ask):
    with pytest.raises(TooLarge, match="at most 100"):
        Plan.of(digits_bundle, **ask, max_count=100)


def test_a_plan_for_a_million_holds_no_more_than_a_plan_for_one(digits_bundle):
    tracemalloc.start()
    try:
        plan = Plan.of(digits_bundle, first_seed=2**64 - 500_000, classes={"one": 400_000, "two": 600_000})
        works = plan.works(lambda piece: lambda pixels: None)
        next(works)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(plan) == 10**6
    assert (plan[999_999].seed, plan[999_999].label) == (499_999, 2)
    assert peak < 200_000


@pytest.mark.parametrize("count", [1, 5, 200])
def test_works_cover_every_sample_once_in_order(digits_bundle, count):
    plan = Plan.of(digits_bundle, first_seed=3, count=count)
    works = list(plan.works(lambda piece: lambda pixels: [index for index, _ in piece]))
    pieces = [digits_bundle.batcher.submit(work).result(30).value for work in works]
    assert [index for piece in pieces for index in piece] == list(range(count))
    assert max(work.rows for work in works) <= digits_bundle.rows_per_batch


@pytest.mark.parametrize("batch", [None, 8])
@pytest.mark.parametrize("runners", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 7, 31, 100, 199, 1000])
def test_no_runner_waits_long_for_the_last(digits_bundle, monkeypatch, count, runners, batch):
    bundle, unit = digits_bundle, batch or 1
    monkeypatch.setattr(bundle.batcher, "runners", runners)
    monkeypatch.setattr(bundle.batcher, "unit", unit)
    plan = Plan.of(bundle, first_seed=3, count=count)
    rows = [work.rows for work in plan.works(lambda piece: lambda pixels: None)]
    assert sum(rows) == count
    assert max(rows) <= bundle.rows_per_batch
    assert all(row % unit == 0 for row in rows[:-1])
    busy_until = [0] * runners
    for row in rows:
        earliest = busy_until.index(min(busy_until))
        busy_until[earliest] += math.ceil(row / unit) * unit
    assert max(busy_until) - min(busy_until) <= max(SMALLEST_PIECE, unit)
    # Small pieces cost something too.
    assert len(rows) <= math.ceil(count / bundle.rows_per_batch) + 3 * runners * (runners > 1)
