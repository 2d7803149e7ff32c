"""Results that go on after the function has returned: generators, async generators and coroutines.

Each is replaced by one of the same type that drives it, step by step, with the call's span current during a step and
never in the consumer. The call ends with the stream: exhausted, failed, closed, abandoned or never started.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextvars import Token
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final, Protocol

from dspy_trace.guard import unseen

STREAMS: Final = frozenset({GeneratorType, AsyncGeneratorType, CoroutineType})
"""Exact types of results that end later."""


class Running(Protocol):
    """A call whose end its stream decides."""

    def enter(self) -> Token[Any]: ...

    def leave(self, token: Token[Any]) -> None: ...

    def finish(self, error: BaseException | None = None, result: Any = None) -> None: ...


def drive(call: Running, stream: Any) -> Any:
    """Return a stream of the same type that ends `call` when it ends."""
    kind = type(stream)
    driver: Any
    if kind is GeneratorType:
        driver = _generator(call, stream)
    elif kind is AsyncGeneratorType:
        driver = _async_generator(call, stream)
    else:
        driver = _coroutine(call, stream)
    driver.__name__, driver.__qualname__ = stream.__name__, stream.__qualname__
    # One that is dropped before its first step runs none of its code.
    weakref.finalize(driver, _dropped, call, weakref.ref(stream))
    return driver


def _dropped(call: Running, inner: weakref.ref[Any]) -> None:
    """End a call whose stream is gone."""
    call.finish()
    stream = inner()
    if type(stream) is CoroutineType and inspect.getcoroutinestate(stream) == inspect.CORO_CREATED:
        # Python warns that the driver was never awaited; of one coroutine, once.
        stream.close()


def _generator(call: Running, inner: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    sent: Any = None
    thrown: BaseException | None = None
    item: Any = None
    try:
        while True:
            token = call.enter()
            try:
                item = inner.send(sent) if thrown is None else inner.throw(thrown)
            except StopIteration as stop:
                call.finish(None, stop.value if stop.value is not None else item)
                return stop.value
            finally:
                call.leave(token)
            sent = thrown = None
            try:
                sent = yield item
            except GeneratorExit:
                token = call.enter()
                try:
                    inner.close()
                finally:
                    call.leave(token)
                raise
            except BaseException as error:  # noqa: BLE001  # handed on to the inner stream, which decides
                thrown = error
    except GeneratorExit:
        call.finish(None, item)
        raise
    except BaseException as error:
        call.finish(error)
        unseen(error)
        raise


async def _async_generator(call: Running, inner: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    sent: Any = None
    thrown: BaseException | None = None
    item: Any = None
    try:
        while True:
            token = call.enter()
            try:
                item = await (inner.asend(sent) if thrown is None else inner.athrow(thrown))
            except StopAsyncIteration:
                call.finish(None, item)
                return
            finally:
                call.leave(token)
            sent = thrown = None
            try:
                sent = yield item
            except GeneratorExit:
                token = call.enter()
                try:
                    await inner.aclose()
                finally:
                    call.leave(token)
                raise
            except BaseException as error:  # noqa: BLE001  # handed on to the inner stream, which decides
                thrown = error
    except GeneratorExit:
        call.finish(None, item)
        raise
    except BaseException as error:
        call.finish(error)
        unseen(error)
        raise


async def _coroutine(call: Running, inner: Coroutine[Any, Any, Any]) -> Any:
    token = call.enter()
    try:
        result = await inner
    except BaseException as error:
        call.finish(None if isinstance(error, GeneratorExit) else error)
        unseen(error)
        raise
    else:
        call.finish(None, result)
        return result
    finally:
        call.leave(token)


# What runs here stands on the stack between the program and DSPy. DSPy's warnings name the first frame that is not
# DSPy's own, and that has to be the program's.
__name__ = f"dspy.{__name__}"
