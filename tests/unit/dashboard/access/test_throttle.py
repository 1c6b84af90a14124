"""Delays after wrong tokens."""

import asyncio
import itertools
import time

from dashboard.access.throttle import Throttle


def test_wrong_tokens_of_one_client_are_compared_one_after_the_other():
    compared = []

    def is_right(given):
        compared.append((given, time.monotonic()))
        return given == "right"

    async def story():
        throttle = Throttle(first=0.05, most=0.2)
        waiting = [throttle.attempt("192.0.2.1", f"guess {number}", is_right) for number in range(4)]
        *wrong, right, other = await asyncio.gather(
            *waiting, throttle.attempt("192.0.2.1", "right", is_right), throttle.attempt("192.0.2.2", "right", is_right)
        )
        assert not any(attempt.right for attempt in wrong)
        assert right.right
        assert other.right

    asyncio.run(story())
    when = dict(compared)
    of_one = sorted(at for given, at in compared if given.startswith("guess"))
    gaps = [after - before for before, after in itertools.pairwise(of_one)]
    assert gaps[0] >= 0.05
    assert gaps[1] >= 0.1
    assert gaps[2] >= 0.2
    # The right one of the same client waits for its turn, so that the time of an answer says nothing.
    assert when["right"] >= of_one[-1] or when["right"] <= of_one[0]


def test_a_program_that_repeats_an_old_token_delays_nobody_behind_its_address():
    async def story():
        throttle = Throttle(first=0.5, most=60)
        tries = [asyncio.ensure_future(throttle.attempt("192.0.2.1", "old", lambda given: given == "new"))]
        await asyncio.wait(tries)
        tries += [
            asyncio.ensure_future(throttle.attempt("192.0.2.1", "old", lambda given: given == "new")) for _ in range(50)
        ]
        await asyncio.sleep(0)
        right = await throttle.attempt("192.0.2.1", "new", lambda given: given == "new")
        assert right.right
        assert not all(each.done() for each in tries)
        answers = await asyncio.gather(*tries)
        assert [each.is_news for each in answers].count(True) == 1
        assert not any(each.right or each.refused for each in answers)

    asyncio.run(story())
