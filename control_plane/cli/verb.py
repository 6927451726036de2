"""A command whose help ends with examples, and the one error that verbs raise."""

from __future__ import annotations

from typing import Any

import click


class CliError(click.ClickException):
    """Refused or failed: exit code 1. The message is one line that says what to do next."""


class RefusedRequest(CliError):
    """The control plane says that this can never work: what was asked for is wrong, not the moment. The message begins
    with the name of the request's field."""


class _WithExamples(click.Command):
    """A click command with an "Examples" section."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:  # click passes its own on
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if not self.examples:
            return
        with formatter.section("Examples"):
            for example in self.examples:
                # Written as it is: wrapping would break what people copy.
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


class Verb(_WithExamples):
    """Every verb has examples."""


class Verbs(_WithExamples, click.Group):
    """And so has every group of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which one needs them, not of the alphabet."""
        return list(self.commands)
