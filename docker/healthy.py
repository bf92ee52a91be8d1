#!/usr/bin/env python3
"""Whether a service answers: `healthy URL` ends with 0 where an HTTP GET of the URL is answered with 200."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

TIMEOUT_S = 5.0


def main() -> None:
    """Ask."""
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=TIMEOUT_S) as answer:  # noqa: S310 (named by whoever starts it)
            code = answer.status
    except (OSError, urllib.error.URLError) as error:
        sys.exit(f"{sys.argv[1]} does not answer: {error}")
    if code != 200:
        sys.exit(f"{sys.argv[1]} answers {code}")


if __name__ == "__main__":
    main()
