"""Comparing methods: study → cells, a process each → table → plot.

Table and plot are imported by those who want them: a cell's process need not wait for SciPy.
"""

from pruned_perception.pruning.compare.cell import run_cell
from pruned_perception.pruning.compare.result import Result, find_failure, find_result
from pruned_perception.pruning.compare.runner import command_for, run_cells
from pruned_perception.pruning.compare.study import Cell, Finetuning, Study, read_study

__all__ = [
    'Cell',
    'Finetuning',
    'Result',
    'Study',
    'command_for',
    'find_failure',
    'find_result',
    'read_study',
    'run_cell',
    'run_cells',
]
