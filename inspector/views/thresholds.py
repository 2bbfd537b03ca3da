"""To be written."""

from __future__ import annotations

if __name__ == "__main__":
    pass
