"""Tables, figures and files that a grid leaves."""
