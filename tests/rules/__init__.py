"""The house rules as tests: what a linter cannot say, and what would otherwise need a reviewer's memory."""
