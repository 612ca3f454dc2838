"""What was learnt, for a while."""

from openai_compat.native.capabilities import ExpiringSet


def test_a_name_is_known_until_its_time_is_over() -> None:
    now = [0.0]
    memory = ExpiringSet(lambda: now[0])
    assert "m" not in memory
    memory.add("m")
    now[0] = ExpiringSet.LIFETIME - 1
    assert "m" in memory
    assert "n" not in memory
    now[0] = ExpiringSet.LIFETIME
    assert "m" not in memory


def test_it_is_bounded() -> None:
    memory = ExpiringSet(lambda: 0.0)
    for i in range(ExpiringSet.LIMIT + 1):
        memory.add(str(i))
    assert str(ExpiringSet.LIMIT) in memory
    assert "0" not in memory
