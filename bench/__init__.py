"""How fast updates, environments and training are; and the naive reference of the tests."""
