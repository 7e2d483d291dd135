"""Faust workers: one thin module per agent, and the safe consumer they share."""
