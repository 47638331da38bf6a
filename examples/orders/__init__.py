"""An orders service: purchase order lines that follow the items of an inventory service by its events."""
