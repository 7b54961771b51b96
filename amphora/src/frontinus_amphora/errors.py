"""What the agent says when it does not do what was asked. routes.py turns each into one HTTP answer."""


class AgentError(Exception):
    """Something asked for was not done. `body` goes to the caller as JSON, with HTTP `status`."""

    status = 500

    def __init__(self, message: str, details: str | None = None, **extra: object) -> None:
        super().__init__(message if details is None else f"{message}: {details}")
        self.body: dict[str, object] = {"message": message}
        if details is not None:
            self.body["details"] = details
        self.body.update(extra)


class Invalid(AgentError):
    """The request is wrong; nothing was changed."""

    status = 400


class Missing(AgentError):
    """What the request names is not here."""

    status = 404


class BaseMismatch(AgentError):
    """The change was computed against a configuration which is not the one here."""

    status = 409

    def __init__(self, current: str | None) -> None:
        super().__init__("base mismatch")
        self.body = {"current": current}


class Fenced(AgentError):
    """Somebody who has the right to since then has asked; whoever asks now has lost it, and may not know it yet."""

    status = 412

    def __init__(self, fence: int) -> None:
        super().__init__("fenced", "another controller has taken over", fence=fence)


class BindRefused(AgentError):
    """The kernel would refuse addresses which the new configuration binds."""

    status = 422


class ServiceFailed(AgentError):
    """haproxy did not start, reload or stop; `details` is what it printed."""


class Unsupported(AgentError):
    """This amphora lacks what the call is for.

    The status is 500 and not 501: the caller of the plain protocol takes every code that it does not know for success.
    """

    def __init__(self, what: str, missing: str) -> None:
        super().__init__("Not Implemented", f"{what} needs {missing}, which this amphora has not", http_code=501)
        self.body["error"] = f"501 Not Implemented: {missing}"
