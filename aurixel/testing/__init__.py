"""What plugin authors need in their tests: contract suites, a scripted upstream, fixtures."""
