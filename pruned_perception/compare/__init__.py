"""Comparing methods: study → cells, a process each → table → plot."""
