"""How soon a balancer that died is started again: at once a few times, then after pauses that double. Pure."""

CALM = 10.0  # seconds; what a process that lived so long did before is forgotten
FREE_RESTARTS = 3  # without a pause; then it pauses for twice as long each time
FIRST_DELAY, LONGEST_DELAY = 0.1, 10.0


class Restarts:
    """Times are of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._count = 0  # since the last calm
        self._started_at: float | None = None  # while it lives

    def started(self, now: float) -> None:
        self._started_at = now

    def forget(self) -> None:
        """It was started on purpose: nothing of before counts."""
        self._count = 0

    def next(self, now: float) -> float:
        """It died, or did not start: when to start it again."""
        if self._started_at is not None and now - self._started_at > CALM:
            self._count = 0
        self._started_at = None  # what does not start has not lived, however long ago the last one did
        self._count += 1
        if self._count <= FREE_RESTARTS:
            return now
        return now + min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (self._count - FREE_RESTARTS - 1))
