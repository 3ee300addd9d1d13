"""A child process that answers once, twice as much, and is then busy for ever."""

from qml_nb.server.lifeline import HEAD, framed, hold_on


def main() -> None:
    """Run it."""
    with hold_on() as end, end.makefile("rb") as stream:
        message = stream.read(int.from_bytes(stream.read(HEAD), "big"))
        end.sendall(framed(2 * message))
        while True:
            pass
