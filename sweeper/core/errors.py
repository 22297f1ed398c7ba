"""Errors that end in one line for the user. A failing *server* is never an exception: it is a Verdict.

SweeperError            exit 1
  UsageError            exit 2   bad arguments, a bad matrix, claim or signature file
    BadFile             exit 2   the same, with file, line and key path in front
  EnvironmentNotReady   exit 3   Docker down, GPU busy, disk full
  RecordUnusable        exit 4   a run folder that is locked or cannot be read
  LaunchFailed          exit 3   one server could not be created (data for the runner)
"""

from __future__ import annotations


class SweeperError(Exception):
    """One message for a person; `hint` is what to do about it, printed on its own line."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SweeperError):
    """The command line or a file given to it is wrong."""

    exit_code = 2


class BadFile(UsageError):
    """A file a person wrote is wrong at a place that can be named.

    `line` counts from 1; `key` is a path such as `axes.parallelism[2].tp`.
    """

    def __init__(
        self, path: str, problem: str, *, line: int | None = None, key: str | None = None, hint: str | None = None
    ) -> None:
        place = f"{path}:{line}" if line else path
        super().__init__(f"{place}: {key}: {problem}" if key else f"{place}: {problem}", hint=hint)
        self.path, self.line, self.key = path, line, key


class EnvironmentNotReady(SweeperError):
    """This machine cannot do it now: no Docker, no disk, a GPU that somebody else holds."""

    exit_code = 3


class RecordUnwritable(EnvironmentNotReady):
    """The run's own files cannot be written: disk full, read-only, folder gone. No other cell would fare better."""


class RecordUnusable(SweeperError):
    """A run folder is held by another process or cannot be read."""

    exit_code = 4


class LaunchFailed(SweeperError):
    """A server could not be created at all: image missing, Docker refused, port taken.

    Data for the runner (outcome FAIL or SKIP in phase launch), an error only for commands that start one server.
    `cause_id` is a slug of the failure taxonomy.
    """

    exit_code = 3

    def __init__(self, cause_id: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.cause_id = cause_id
