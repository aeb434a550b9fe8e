"""What the tests of the plugin share: who commits, and how a program is run."""

from __future__ import annotations

from collections.abc import Callable

Command = Callable[..., str]
IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
