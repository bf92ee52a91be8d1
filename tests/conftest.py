"""Fixtures of several test files."""

from tests.smalldisk import small_disk as small_disk
