"""JSON data of `encoding` as the objects that it tells of. No constructor of the program's own classes is called."""

from __future__ import annotations

import base64
import datetime
import functools
import os
import re
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

from dspy_trace_flavor import field_types, lms, signatures
from dspy_trace_flavor.encoding import Encoder
from dspy_trace_flavor.errors import CannotLoad
from dspy_trace_flavor.importing import nested_function, resolve
from dspy_trace_flavor.untyped import untyped
from dspy_trace_flavor.vault import Givers, Vault


class Decoder:
    """Makes objects again.

    Args:
        givers: give secrets back.
        lm: stands for every LM; or a mapping from a saved LM's model to what stands for that one.
        lm_kwargs: laid over the parameters of every other LM.
    """

    def __init__(
        self, givers: Givers, lm: Any | Mapping[str, Any] | None = None, lm_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self._givers = givers
        self._lm = lm
        self._lm_kwargs = dict(lm_kwargs or {})
        self._made: dict[int, Any] = {}
        self._encoder = Encoder(Vault({}))

    def decode(self, data: Any) -> Any:
        """Return what JSON data tells of.

        Raises:
            CannotLoad: it is of a kind that this version does not know.
        """
        if isinstance(data, list):
            return [self.decode(item) for item in data]
        if not isinstance(data, dict):
            return data
        if "$" not in data:
            return {key: self.decode(item) for key, item in data.items()}
        make: Callable[[dict[str, Any]], Any] | None = getattr(self, f"_of_{data['$']}".lower(), None)
        if make is None:
            raise CannotLoad(
                f"the model holds a {data['$']!r}, which this version of dspy-trace does not know: update it"
            )
        return make(data)

    def _keep(self, data: dict[str, Any], value: Any) -> Any:
        self._made[data["id"]] = value
        return value

    def _of_ref(self, data: dict[str, Any]) -> Any:
        return self._made[data["id"]]

    def _of_secret(self, data: dict[str, Any]) -> Any:
        text = self._givers.text(data["parts"])
        return text.encode("latin-1") if text is not None and data.get("bytes") else text

    def _of_float(self, data: dict[str, Any]) -> float:
        return float(data["value"])

    def _of_bytes(self, data: dict[str, Any]) -> bytes:
        return base64.b64decode(data["value"])

    def _of_dict(self, data: dict[str, Any]) -> dict[Any, Any]:
        return {self.decode(key): self.decode(item) for key, item in data["items"]}

    def _of_type(self, data: dict[str, Any]) -> Any:
        return field_types.meant(data["type"], self.decode)

    def _of_signature(self, data: dict[str, Any]) -> Any:
        told = {key: value for key, value in data.items() if key != "$"}
        return signatures.meant(told, self._encoder.encode, self.decode)

    def _of_enum(self, data: dict[str, Any]) -> Any:
        return resolve(data["class"])[data["name"]]

    def _of_time(self, data: dict[str, Any]) -> Any:
        made: Any = {"datetime": datetime.datetime, "date": datetime.date, "time": datetime.time}[data["class"]]
        value = made.fromisoformat(data["value"])
        return value.replace(fold=1) if data["fold"] else value

    def _of_duration(self, data: dict[str, Any]) -> datetime.timedelta:
        return datetime.timedelta(*data["value"])

    def _of_text(self, data: dict[str, Any]) -> Any:
        return resolve(data["class"])(self.decode(data["value"]) or "")

    def _of_tuple(self, data: dict[str, Any]) -> Any:
        return tuple(self.decode(data["items"]))

    def _of_set(self, data: dict[str, Any]) -> Any:
        return set(self.decode(data["items"]))

    def _of_frozenset(self, data: dict[str, Any]) -> Any:
        return frozenset(self.decode(data["items"]))

    def _of_deque(self, data: dict[str, Any]) -> Any:
        return deque(self.decode(data["items"]), data["max"])

    def _of_ordereddict(self, data: dict[str, Any]) -> Any:
        return OrderedDict(self._of_dict(data))

    def _of_defaultdict(self, data: dict[str, Any]) -> Any:
        return defaultdict(self.decode(data["factory"]), self._of_dict(data))

    def _of_complex(self, data: dict[str, Any]) -> Any:
        return complex(*data["args"])

    def _of_range(self, data: dict[str, Any]) -> Any:
        return range(*data["args"])

    def _of_slice(self, data: dict[str, Any]) -> Any:
        return slice(*data["args"])

    def _of_pattern(self, data: dict[str, Any]) -> Any:
        return re.compile(self.decode(data["pattern"]), data["flags"])

    def _of_array(self, data: dict[str, Any]) -> Any:
        np = untyped("numpy")

        raw = np.frombuffer(base64.b64decode(data["data"]), dtype=np.dtype(data["dtype"]))
        made = raw.reshape(data["shape"]).copy()
        return made[()] if data["scalar"] else made

    def _of_function(self, data: dict[str, Any]) -> Any:
        return resolve(data["path"])

    def _of_method(self, data: dict[str, Any]) -> Any:
        return getattr(self.decode(data["of"]), data["name"])

    def _of_nested(self, data: dict[str, Any]) -> Any:
        cells = [self.decode(cell) for cell in data["cells"]]
        return nested_function(
            data["path"], data["index"], self.decode(data["defaults"]), self.decode(data["keywords"]), cells
        )

    def _of_partial(self, data: dict[str, Any]) -> Any:
        args, keywords = self.decode(data["args"]), self.decode(data["keywords"])
        return functools.partial(self.decode(data["func"]), *args, **keywords)

    def _of_lm(self, data: dict[str, Any]) -> Any:
        state = data["state"]
        stands_in = self._lm.get(state.get("model")) if isinstance(self._lm, Mapping) else self._lm
        if stands_in is not None:
            return self._keep(data, stands_in)
        given = self._lm_kwargs
        decoded = {key: self.decode(value) for key, value in state.items() if key not in given}
        if data["needs"] and "api_key" not in given and not os.environ.get(data["needs"]):
            self._givers.missing[data["needs"]] = None
        return self._keep(data, lms.made(data["class"], {**decoded, **given}))

    def _of_predict(self, data: dict[str, Any]) -> Any:
        dspy = untyped("dspy")

        value = self._keep(data, self._empty(data["class"], dspy.Predict))
        dspy.Predict.__init__(value, self.decode(data["signature"]), **self.decode(data["config"]))
        value.lm = self.decode(data["lm"])
        value.demos = self.decode(data["demos"])
        vars(value).update(self._attributes(data["attributes"]))
        return value

    def _of_module(self, data: dict[str, Any]) -> Any:
        dspy = untyped("dspy")

        value = self._keep(data, self._empty(data["class"], dspy.Module))
        attributes = self._attributes(data["attributes"])
        setter = next(
            (base.__dict__["__setstate__"] for base in type(value).__mro__ if "__setstate__" in base.__dict__), None
        )
        if setter is not None:
            setter(value, attributes)
        else:
            vars(value).update(attributes)
        return value

    def _empty(self, path: str, base: type) -> Any:
        cls: Any = resolve(path)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise CannotLoad(f"{path} is no {base.__name__} any more")
        value: Any = object.__new__(cls)
        # As DSPy does for classes that forget to call its constructor.
        vars(value).update(_compiled=False, callbacks=[], history=[])
        return value

    def _attributes(self, data: dict[str, Any]) -> dict[str, Any]:
        return {key: self.decode(value) for key, value in data.items()}

    def _of_example(self, data: dict[str, Any]) -> Any:
        dspy = untyped("dspy")

        made = (dspy.Prediction if data["class"] == "Prediction" else dspy.Example)(**self.decode(data["store"]))
        value = self._keep(data, made)
        if data["inputs"] is not None:
            value._input_keys = set(data["inputs"])
        return value

    def _of_tool(self, data: dict[str, Any]) -> Any:
        dspy = untyped("dspy")

        kinds = {key: field_types.meant(kind, self.decode) for key, kind in data["arg_types"].items()}
        told = {name: self.decode(data[name]) for name in ("func", "name", "desc", "args", "arg_desc")}
        return self._keep(data, dspy.Tool(**told, arg_types=kinds))

    def _of_field(self, data: dict[str, Any]) -> Any:
        return self._keep(data, signatures.field_meant(data["field"], self.decode))

    def _of_batcher(self, data: dict[str, Any]) -> Any:
        cls = resolve(data["class"])
        return self._keep(data, cls(self.decode(data["batch_fn"]), data["max_batch_size"], data["max_wait_time"]))

    def _of_object(self, data: dict[str, Any]) -> Any:
        cls = resolve(data["class"])
        value = self._keep(data, cls.__new__(cls, *self.decode(data["args"])))
        state, slots = self.decode(data["state"]), self.decode(data["slots"])
        setter = getattr(value, "__setstate__", None)
        if setter is not None and state is not None:
            setter(state if slots is None else (state, slots))
        elif state:
            vars(value).update(state)
        for key, item in (slots or {}).items() if setter is None else ():
            setattr(value, key, item)
        for item in data["items"]:
            value.append(self.decode(item))
        for key, item in data["entries"]:
            value[self.decode(key)] = self.decode(item)
        return value
