"""What came alone goes before bulk, which has its turns."""

from service.encoding.priority_queue import PriorityQueue


def emptied(queue: PriorityQueue[str]) -> str:
    order = ""
    while (work := queue.pop()) is not None:
        order += work
    return order


def test_singles_go_first_and_bulk_has_every_fourth_place() -> None:
    queue: PriorityQueue[str] = PriorityQueue()
    for letter in "ABCD":
        queue.put(letter, is_bulk=True)
    for letter in "abcdefgh":
        queue.put(letter, is_bulk=False)

    assert emptied(queue) == "abcAdefBghCD"
    assert queue.pop() is None


def test_each_kind_keeps_its_order() -> None:
    queue: PriorityQueue[str] = PriorityQueue()
    for letter in "ABCD":
        queue.put(letter, is_bulk=True)

    assert queue.pop() == "A"
    queue.put("a", is_bulk=False)
    assert emptied(queue) == "aBCD"
