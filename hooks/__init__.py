"""The built-in domains and routers, as plugins like any other; found by their entry points."""
