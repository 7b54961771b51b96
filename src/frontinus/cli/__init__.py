"""The operator's hand: one command, `frontinus`. Imports late, so that `frontinus --help` answers at once."""
