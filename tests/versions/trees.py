"""The traces of programs.py: the same on every DSPy. Words in braces are what a version decides."""

from __future__ import annotations

from typing import Final

from tests.versions import programs
from tests.versions.programs import Program

_SEARCH = """
invoke_workflow Search
  Predict plan
    chat gpt-4o-mini
  ChainOfThought steps[0]
    Predict steps[0].predict
      chat gpt-4o-mini
"""

_AGENT = """
invoke_agent ReAct
  Predict react
    chat gpt-4o-mini
  execute_tool search
  Predict react
    chat gpt-4o-mini
  ChainOfThought extract
    Predict extract.predict
      chat gpt-4o-mini
"""

_ONE = """
invoke_workflow Predict
  chat gpt-4o-mini
"""

_ONE_BY_DUMMY = """
invoke_workflow Predict
  chat dummy
"""

_EXAMPLE = """evaluate_example Predict (linked)
  * gen_ai.evaluation.result
  invoke_workflow Predict
    chat gpt-4o-mini
"""

_CACHE = """
invoke_workflow Predict dspy.usage.lm_calls=1 dspy.usage.cache_hits=0
  chat gpt-4o-mini dspy.lm.cache_hit=False
invoke_workflow Predict dspy.usage.lm_calls=1 dspy.usage.cache_hits=1
  chat gpt-4o-mini dspy.lm.cache_hit=True
"""

TREES: Final[dict[Program, str]] = {
    programs.nested: _SEARCH,
    programs.nested_async: _SEARCH,
    programs.on_threads: """
invoke_workflow Fan
  Predict ask
    chat gpt-4o-mini
  Predict ask
    chat gpt-4o-mini
""",
    programs.as_batch: _ONE + _ONE[1:],
    programs.call_by_acall: """
invoke_workflow Either
  Predict ask
    chat gpt-4o-mini
""",
    programs.agent: _AGENT,
    programs.agent_async: _AGENT,
    programs.embeddings: """
embeddings text-embedding-3-small
embeddings <lambda>
""",
    programs.retrievers: """
embeddings text-embedding-3-small
retrieval Embeddings
  embeddings text-embedding-3-small
retrieval Shelf
retrieval Retrieve
embeddings text-embedding-3-small
retrieval KNN
  embeddings text-embedding-3-small
""",
    programs.evaluation: "\nevaluate Predict\n" + 2 * _EXAMPLE,
    programs.optimizer: """
compile BootstrapFewShot
  compile LabeledFewShot
invoke_workflow Search (linked)
"""
    + _SEARCH.partition("Search\n")[2],
    programs.streaming: _ONE,
    programs.fallback: """
invoke_workflow Predict dspy.adapter='JSONAdapter'
  * dspy.adapter.parse_error
  * dspy.adapter.fallback
  chat gpt-4o-mini
  chat gpt-4o-mini
""",
    programs.refusal: """
chat gpt-4o-mini !{lm_error}
""",
    programs.cache: _CACHE,
    programs.cache_async: _CACHE,
    programs.choices: """
invoke_workflow Predict
  chat gpt-4o-mini gen_ai.request.choice.count=3 gen_ai.response.finish_reasons=('stop', 'stop', 'stop')
""",
    programs.text_completion: """
text_completion gpt-4o-mini
""",
    programs.own_lm: """
invoke_workflow Predict
  chat own
""",
    programs.dummy_lm: _ONE_BY_DUMMY,
    programs.dummy_lm_async: _ONE_BY_DUMMY,
    programs.interpreter: """
execute_code PythonInterpreter !{interpreter_error}
""",
    programs.typed_lm: """
chat gpt-4o-mini gen_ai.request.temperature=0.5
chat own
chat gpt-4o-mini gen_ai.request.temperature=0.25
chat gpt-4o-mini gen_ai.request.temperature=0.5
""",
}
"""What each program gives."""

SHOWN: Final[dict[Program, tuple[str, ...]]] = {
    programs.fallback: ("dspy.adapter",),
    programs.cache: ("dspy.usage.lm_calls", "dspy.usage.cache_hits", "dspy.lm.cache_hit"),
    programs.cache_async: ("dspy.usage.lm_calls", "dspy.usage.cache_hits", "dspy.lm.cache_hit"),
    programs.typed_lm: ("gen_ai.request.temperature",),
    programs.choices: ("gen_ai.request.choice.count", "gen_ai.response.finish_reasons"),
}
"""Attributes that stand in a tree."""

WITH_ADAPTERS: Final = """
invoke_workflow Predict
  * dspy.adapter.parse_error
  * dspy.adapter.fallback
  ChatAdapter.format
  chat gpt-4o-mini
  ChatAdapter.parse !AdapterParseError
  JSONAdapter.format
  chat gpt-4o-mini
  JSONAdapter.parse
"""
"""What ``programs.fallback`` gives at detail ``full``."""
