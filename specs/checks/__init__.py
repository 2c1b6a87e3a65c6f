"""Checks that go past types: settings that contradict each other, names that point at nothing."""
