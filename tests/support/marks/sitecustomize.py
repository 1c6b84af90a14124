"""Mark the blocks that run. Python runs this file at the start of every process whose PYTHONPATH has this folder.

While a worker processes a block, the file ``<block>.started`` in the spool holds the number of its process. The mark of
a worker that was killed stays.
"""

import contextlib
import importlib.abc
import importlib.util
import os
import sys

TASKS = "wsi_denoise.processing.dask.tasks"


def marking(block):
    """Return the task of a block with a mark around it."""

    def marked(work, index, *arguments):
        mark = work.spool / f"{index}.started"
        with contextlib.suppress(OSError):  # the block reports it
            work.spool.mkdir(exist_ok=True)
            mark.write_text(str(os.getpid()), "ascii")
        result = block(work, index, *arguments)
        mark.unlink(missing_ok=True)
        return result

    return marked


class Finder(importlib.abc.MetaPathFinder):
    """Replace the task in its module as soon as that is imported."""

    def find_spec(self, name, _path, _target=None):
        if name != TASKS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            module.block = marking(module.block)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
