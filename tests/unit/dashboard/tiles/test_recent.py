"""Values used last."""

from dashboard.tiles.recent import Recent


def test_it_keeps_to_its_size():
    cache = Recent(1000, len)
    for number in range(50):
        cache.put(str(number), bytes(90))
        cache.put(str(number), bytes(100))
        assert cache.size <= 1000
    assert cache.get("49") == bytes(100)
    assert cache.get("0") is None
    cache.put("large", bytes(2000))
    assert (cache.size, len(cache)) == (0, 0)


def test_a_value_in_use_stays():
    cache = Recent(2)
    for key in "ab":
        cache.put(key, key)
    assert cache.get("a") == "a"
    cache.put("c", "c")
    assert [cache.get(key) for key in "abc"] == ["a", None, "c"]
    cache.drop("a".__eq__)
    assert cache.get("a") is None
