"""The tests. They mirror the package; how to write one is in README.md beside this file. Nothing here is shipped."""
