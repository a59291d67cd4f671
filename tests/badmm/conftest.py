"""What the tests of the package share."""

import pytest

PICTURE = b"\x89PNG in the place of a picture"


@pytest.fixture(autouse=True)
def constant_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a constant in the place of every picture, which takes half a second to draw; not in tests marked
    `pictures`."""
    if request.node.get_closest_marker("pictures") is None:
        from matplotlib.figure import Figure

        monkeypatch.setattr(Figure, "savefig", lambda _, buffer, **__: buffer.write(PICTURE))
