"""Bad input: a fuzzer for each kind of it, and one oracle of what must hold whatever the input is."""
