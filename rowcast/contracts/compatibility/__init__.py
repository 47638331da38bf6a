"""
Compatibility of two JSON Schemas: may what a writer of one emits be read with the other?

The writer is closed (it emits declared fields only), the reader open (plain JSON Schema 2020-12, formats asserted).
A proof never claims more than it shows: what it does not understand leaves the question undecided.
"""
