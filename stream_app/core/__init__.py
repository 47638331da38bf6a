"""
The pure core: change log → transactions → aggregates → events.

No I/O, clock, logging, randomness or framework: equal input gives equal bytes, for ever.
"""
