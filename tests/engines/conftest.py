"""Tests of servers are left out where nothing is installed that asks one."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("aiohttp") and find_spec("tenacity") else ["test_server_*.py"]
