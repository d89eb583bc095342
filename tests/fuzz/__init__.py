"""Fuzzing by coverage with atheris: `make fuzz`. Hypothesis does its part beside each parser's tests, in CI; this is not."""
