"""The pytest plugin that installing `aurixel` brings: fixtures for plugin authors. It must cost nothing where it is unused."""
