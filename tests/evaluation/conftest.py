"""What the tests of evaluation share."""

from __future__ import annotations

import pytest

from xdner.text import Entity


@pytest.fixture
def example() -> tuple[list[list[Entity]], list[list[Entity]]]:
    """Three sentences with every kind of error.

    Six gold and six predicted entities: one is right, one has the wrong type, one the wrong ends, one both; two are
    missed and two are spurious.
    """
    gold = [
        [Entity(0, 7, "person", "Johnson"), Entity(11, 20, "city", "Baltimore")],
        [Entity(0, 8, "city", "New York"), Entity(10, 23, "team", "Chicago Bulls"), Entity(30, 34, "city", "Rome")],
        [Entity(5, 9, "person", "Anna")],
    ]
    predicted = [
        [Entity(0, 7, "person", "Johnson", 0.9), Entity(11, 20, "team", "Baltimore", 0.5)],
        [Entity(4, 8, "city", "York"), Entity(10, 17, "city", "Chicago")],
        [Entity(20, 24, "city", "Oslo"), Entity(40, 45, "person", "Berta")],
    ]
    return gold, predicted
