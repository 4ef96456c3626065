"""Doing it: the order state machine, the table of orders, the gateway of `tickrt run`.

- `state_machine.transition`: a pure function over an exhaustive table.
- `orders.new_orders` and `kernels`: what is open, what was filled.
- `paper_kernels`: a paper gateway that answers from the displayed book.
"""
