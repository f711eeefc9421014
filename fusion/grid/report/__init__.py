"""Tables, plots and files of a finished grid."""
