"""Stacks: several models of equal structure, trained as one."""
