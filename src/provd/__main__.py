"""`python -m provd` is the `provd` command."""

from __future__ import annotations

from provd.cli.main import main

if __name__ == "__main__":
    main()
