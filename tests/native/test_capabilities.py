"""What was found out about a native side, remembered for a while."""

from openai_compat.native.capabilities import ExpiringSet


def test_a_name_is_dropped_after_ten_minutes() -> None:
    now = [0.0]
    names = ExpiringSet(lambda: now[0])
    assert "m" not in names
    names.add("m")
    now[0] = 599.0
    assert "m" in names
    assert "n" not in names
    now[0] = 600.0
    assert "m" not in names


def test_adding_a_name_again_keeps_it_longer() -> None:
    now = [0.0]
    names = ExpiringSet(lambda: now[0])
    names.add("m")
    now[0] = 500.0
    names.add("m")
    now[0] = 1099.0
    assert "m" in names


def test_it_holds_a_thousand_names_at_most() -> None:
    names = ExpiringSet(lambda: 0.0)
    for i in range(1000):
        names.add(str(i))
    assert "0" in names
    names.add("1000")
    assert "1000" in names
    assert "0" not in names
