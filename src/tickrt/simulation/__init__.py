"""A seeded queue-reactive market, calibrated on a recorded one.

- `simulator.simulate`: events of a simulated session.
- `calibrate`: how its numbers were made; `stylised_facts`: beside the recorded market.
"""
