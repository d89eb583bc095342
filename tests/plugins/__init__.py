"""Tests of the plugin door: the registry, the calls into plugins, the contract suites, the tutorial."""
