"""Callers take turns at what they share, by the price of their work."""

from collections import Counter

from service.inference.fair_queue import FairQueue


def emptied(turns: FairQueue[str]) -> list[str]:
    order = []
    while (work := turns.pop()) is not None:
        order.append(work)
    return order


def test_one_callers_work_comes_out_in_its_order() -> None:
    turns: FairQueue[str] = FairQueue()
    for name in "abc":
        turns.put(name, caller="one", price=5)

    assert emptied(turns) == ["a", "b", "c"]
    assert turns.pop() is None


def test_a_single_piece_comes_next_however_much_another_caller_has_queued() -> None:
    turns: FairQueue[str] = FairQueue()
    for number in range(100):
        turns.put(f"bulk {number}", caller="bulk", price=25_000_000)
    assert [turns.pop() for _ in range(10)] == [f"bulk {number}" for number in range(10)]
    turns.put("single", caller="single", price=25_000_000)

    assert "single" in [turns.pop(), turns.pop()]


def test_the_calls_of_one_caller_take_turns() -> None:
    """Behind one address there may be many people."""
    turns: FairQueue[str] = FairQueue()
    for number in range(3):
        turns.put(f"bulk {number}", caller="proxy", price=5, call=1)
    turns.put("single", caller="proxy", price=5, call=2)
    turns.put("another", caller="proxy", price=5, call=3)

    assert emptied(turns) == ["bulk 0", "single", "another", "bulk 1", "bulk 2"]


def test_callers_get_the_same_price_done_and_not_the_same_number() -> None:
    turns: FairQueue[str] = FairQueue()
    for _ in range(100):
        turns.put("large", caller="large", price=10)
        turns.put("small", caller="small", price=1)

    done = Counter(turns.pop() for _ in range(44))

    assert done == {"small": 40, "large": 4}


def test_who_comes_again_while_others_wait_does_not_begin_anew() -> None:
    turns: FairQueue[str] = FairQueue()
    for _ in range(20):
        turns.put("steady", caller="steady", price=1)
    turns.put("dear", caller="dear", price=5)
    done = []
    for _ in range(20):
        done.append(turns.pop())
        if done[-1] == "dear":
            turns.put("dear", caller="dear", price=5)

    assert 3 <= done.count("dear") <= 5


def test_a_caller_who_did_nothing_for_long_does_not_overtake_for_it() -> None:
    turns: FairQueue[str] = FairQueue()
    turns.put("early", caller="late", price=1)
    assert turns.pop() == "early"
    for _ in range(50):
        turns.put("steady", caller="steady", price=1)
    for _ in range(20):
        turns.pop()
    for _ in range(20):
        turns.put("late", caller="late", price=1)

    done = Counter(turns.pop() for _ in range(20))

    assert abs(done["late"] - done["steady"]) <= 2


def test_nothing_is_kept_of_callers_that_are_done() -> None:
    turns: FairQueue[str] = FairQueue()
    for number in range(1000):
        turns.put("work", caller=f"caller {number}", price=number)
        turns.put("other", caller="other", price=1)
        turns.pop()
    emptied(turns)

    assert turns._had == {}
