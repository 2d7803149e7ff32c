"""The demo's program as an application of its own, with no line of tracing in it: ``BASE_URL MODEL`` as arguments."""

from __future__ import annotations

import sys

import dspy

from dspy_trace.demo import program
from dspy_trace.demo.lm_server import LMServer

if __name__ == "__main__":
    dspy.configure_cache(enable_disk_cache=False)
    server = LMServer(base_url=sys.argv[1], model=sys.argv[2], pid=0)
    print(program.ask(program.build(program.lm_for(server))).topic)
