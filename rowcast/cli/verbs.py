"""
The verbs of the command: each has help, a description and an example, and so has each noun above them.

One shape for all of `rowcast/cli`, so that no verb can be added without them.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable

Run = Callable[[argparse.Namespace], int]
_WIDTH = 100


class Verbs:
    """The verbs below *parser*: those of the command itself, or those of one noun."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._inner = parser.add_subparsers(required=True, metavar="VERB")

    def noun(self, name: str, summary: str, *examples: str) -> Verbs:
        """Add the noun *name* and return its verbs. *examples* are what follows the noun on a command line."""
        return Verbs(self._add(name, summary, summary, examples))

    def verb(
        self, name: str, run: Run, summary: str, *examples: str, description: str | None = None
    ) -> argparse.ArgumentParser:
        """
        Add the verb *name*, which does *run*, and return its parser for its arguments.

        *summary* is its line in the list of verbs; *description* stands on its own page, by default the same.
        *examples* are what follows the verb on a command line: at least one, which may be empty.
        """
        parser = self._add(name, summary, description or summary, examples)
        parser.set_defaults(run=run)
        return parser

    def _add(self, name: str, summary: str, description: str, examples: tuple[str, ...]) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = self._inner.add_parser(
            name,
            help=summary,
            description=textwrap.fill(description, _WIDTH),
            # The default formatter would join the lines of the examples.
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        show_examples(parser, *examples)
        return parser


def show_examples(parser: argparse.ArgumentParser, *examples: str) -> None:
    """End the help of *parser* with *examples*: what follows its own name on a command line."""
    lines = [f"  {parser.prog} {example}".rstrip() for example in examples]
    parser.epilog = "\n".join(["example:" if len(lines) == 1 else "examples:", *lines])


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let the verb print one JSON document instead of text."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")
