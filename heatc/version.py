"""The version, in a file that the build and `--version` read without importing anything."""

VERSION = "0.1.0"
