"""
Random schemas of the profile, random changes to them, and random documents of a schema.

It shares no code with what it tests. A document is made by walking the schema; whether a writer may emit it is for
the validator of the closed schema to say.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]
TEXTS = {
    "^[a-z]+$": ["a", "abc", "zzzzzzzz"],
    "^[a-z0-9]{2,4}$": ["a1", "zz9", "0000"],
    "^[A-Z]{3}$": ["EUR", "USD"],
    "^-?[0-9]+([.][0-9]+)?$": ["1", "-2.50", "1234567.89"],
    "^(placed|paid)$": ["placed", "paid"],
}
FORMATS = {
    "uuid": ["0b8d1a5e-6f7a-4d53-9a53-6a7a41c0f5b1"],
    "date": ["2024-02-29"],
    "date-time": ["2024-02-29T12:00:00Z"],
    "email": ["a@example.com"],
    "ipv4": ["192.0.2.1"],
}
NAMES = ["a", "b", "c", "kind", "status"]
WORDS = ["", "a", "b", "card", "iban", "paid", "x y", "é", "aaaaaaaaaaaaaaaaaaaaa"]
NUMBERS = [-3, -1, 0, 1, 2, 3, 4, 5, 6, 7, 10, 100, 0.5, 1.0, 2.5, -1.5, 10**15]
ALL_TYPES = ["string", "integer", "number", "boolean", "null", "object", "array"]


class Schemas:
    """Random schemas within the profile."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def document(self) -> Schema:
        """A root schema, with definitions that it and they refer to."""
        root = self.object(2)
        if self.random.random() < 0.5:
            root["$defs"] = {"d": self.object(1)}
            if self.random.random() < 0.3:
                root["$defs"]["d"]["properties"]["next"] = {"$ref": "#/$defs/d"}
            root["properties"]["ref"] = self.random.choice(
                [{"$ref": "#/$defs/d"}, {"type": "array", "items": {"$ref": "#/$defs/d"}}]
            )
        return root

    def object(self, depth: int) -> Schema:
        """An object with some properties."""
        names = self.random.sample(NAMES, self.random.randint(1, 4))
        schema: Schema = {"type": "object", "properties": {name: self.any(depth - 1) for name in names}}
        required = [name for name in names if self.random.random() < 0.6]
        if required or self.random.random() < 0.5:
            schema["required"] = required
        return schema

    def any(self, depth: int) -> Schema:
        """Any schema; without objects and lists at depth 0."""
        makers: list[Callable[[], Schema]] = [self.text, self.number, self.listed, self.simple]
        if depth > 0:
            makers += [lambda: self.object(depth), lambda: self.array(depth), lambda: self.map(depth)]
            makers += [lambda: self.union(depth)]
        schema = self.random.choice(makers)()
        nullable = isinstance(schema.get("type"), str) and schema["type"] != "null" and "enum" not in schema
        if nullable and self.random.random() < 0.2:
            schema["type"] = [schema["type"], "null"]
        return schema

    def simple(self) -> Schema:
        """A truth value, null, or several types."""
        several = self.random.sample(["string", "boolean", "null", "integer"], 2)
        return self.random.choice([{"type": "boolean"}, {"type": "null"}, {"type": several}])

    def text(self) -> Schema:
        """A text with a pattern, a format or a length, or none of them."""
        schema: Schema = {"type": "string"}
        kind = self.random.random()
        if kind < 0.2:
            schema["pattern"] = self.random.choice(list(TEXTS))
        elif kind < 0.4:
            schema["format"] = self.random.choice(list(FORMATS))
        elif kind < 0.6:
            low = self.random.choice([0, 1, 2])
            schema |= {"minLength": low, "maxLength": low + self.random.choice([0, 1, 20])}
        return schema

    def number(self) -> Schema:
        """A number or integer, perhaps with bounds."""
        schema: Schema = {"type": self.random.choice(["integer", "number"])}
        if self.random.random() < 0.4:
            schema[self.random.choice(["minimum", "exclusiveMinimum"])] = self.random.choice([-3, 0, 1, 0.5])
        if self.random.random() < 0.3:
            schema[self.random.choice(["maximum", "exclusiveMaximum"])] = self.random.choice([5, 10, 7.5, 100])
        if self.random.random() < 0.15:
            schema["multipleOf"] = self.random.choice([1, 2, 3, 6])
        return schema

    def listed(self) -> Schema:
        """An enumeration or a constant."""
        if self.random.random() < 0.3:
            return {"const": self.random.choice([*WORDS[:4], 1, True, None])}
        if self.random.random() < 0.3:
            return {"enum": self.random.sample([1, 2, 3, 1.5, None, True, "a"], self.random.randint(1, 4))}
        return {"type": "string", "enum": self.random.sample(WORDS, self.random.randint(1, 4))}

    def array(self, depth: int) -> Schema:
        """A list."""
        schema: Schema = {"type": "array", "items": self.any(depth - 1)}
        if self.random.random() < 0.3:
            schema["minItems"] = self.random.choice([0, 1, 2])
        if self.random.random() < 0.3:
            schema["maxItems"] = self.random.choice([2, 3, 5])
        if self.random.random() < 0.2:
            schema["uniqueItems"] = self.random.random() < 0.8
        return schema

    def map(self, depth: int) -> Schema:
        """A map."""
        return {"type": "object", "additionalProperties": self.any(depth - 1)}

    def union(self, depth: int) -> Schema:
        """Variants that a constant tells apart, or something or null."""
        if self.random.random() < 0.4:
            return {"oneOf": [self.object(depth - 1), {"type": "null"}]}
        variants = []
        for word in self.random.sample(["card", "iban", "cash"], self.random.randint(1, 3)):
            variant = self.object(depth - 1)
            variant["properties"]["kind"] = {"const": word}
            variant["required"] = sorted({*variant.get("required", []), "kind"})
            variants.append(variant)
        return {"oneOf": variants}


def places(schema: Any) -> list[Schema]:
    """Every subschema, itself first."""
    found = [schema]
    for keyword in ("properties", "$defs"):
        for each in schema.get(keyword, {}).values():
            found += places(each)
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            found += places(schema[keyword])
    for each in schema.get("oneOf", []):
        found += places(each)
    return found


def mutated(schema: Schema, schemas: Schemas) -> Schema:
    """A copy with one to three changes, each of which stays within the profile."""
    result = copy.deepcopy(schema)
    for _change in range(schemas.random.choice([1, 1, 2, 3])):
        place = schemas.random.choice(places(result))
        if "$ref" not in place:
            _change_one(place, schemas, root=place is result)
    return result


def _change_one(place: Schema, schemas: Schemas, *, root: bool) -> None:
    random_ = schemas.random
    if "properties" in place:
        _change_object(place, schemas)
        return
    kind = random_.random()
    if kind < 0.3 and not root:
        fresh = schemas.any(1)
        place.clear()
        place.update(fresh)
        return
    if "oneOf" in place:
        if len(place["oneOf"]) > 1 and kind < 0.6:
            place["oneOf"].pop(random_.randrange(len(place["oneOf"])))
        elif all("kind" in each.get("properties", {}) for each in place["oneOf"]):
            used = [each["properties"]["kind"].get("const") for each in place["oneOf"]]
            word = random_.choice([each for each in ("card", "iban", "cash", "gift") if each not in used])
            variant = {"type": "object", "properties": {"kind": {"const": word}}, "required": ["kind"]}
            place["oneOf"].append(variant)
        return
    if "enum" in place:
        place["enum"] = random_.sample([*place["enum"], "new"], random_.randint(1, len(place["enum"])))
        return
    for keyword in (
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
    ):
        if keyword in place and random_.random() < 0.5:
            if random_.random() < 0.3:
                del place[keyword]
            else:
                place[keyword] = abs(place[keyword]) + random_.choice([1, 2, 4])
            return
    _change_type(place, schemas)


def _change_type(place: Schema, schemas: Schemas) -> None:
    random_ = schemas.random
    types = place.get("type")
    if isinstance(types, list) and len(types) > 1 and random_.random() < 0.6:
        place["type"] = random_.choice(types)
    elif isinstance(types, str) and random_.random() < 0.5:
        place["type"] = [types, "null"] if types != "null" else ["null", "string"]
    elif types in ("integer", "number"):
        place["type"] = "number" if types == "integer" else "integer"
    elif types == "string":
        fresh = schemas.text()
        place.clear()
        place.update(fresh)
    elif types == "array":
        place[random_.choice(["minItems", "maxItems"])] = random_.choice([1, 2, 4])
    else:
        place.pop("format", None)
        place.pop("pattern", None)


def _change_object(place: Schema, schemas: Schemas) -> None:
    random_ = schemas.random
    names, required = list(place["properties"]), place.setdefault("required", [])
    kind = random_.random()
    if kind < 0.3:
        place["properties"][f"n{random_.randint(0, 2)}"] = schemas.any(1)
    elif kind < 0.5 and len(names) > 1:
        gone = random_.choice(names)
        del place["properties"][gone]
        place["required"] = [name for name in required if name != gone]
    elif kind < 0.8 and names:
        name = random_.choice(names)
        place["required"] = [each for each in required if each != name] if name in required else [*required, name]
    elif names:
        place["properties"][random_.choice(names)] = schemas.any(1)


class Documents:
    """Random documents of a schema: most are valid, none is certain to be."""

    def __init__(self, root: Any, seed: int) -> None:
        self.root, self.random = root, random.Random(seed)

    def make(self, schema: Any = None, depth: int = 0) -> Any:
        """One document of *schema*, by default of the root."""
        schema = self.root if schema is None else schema
        if isinstance(schema, bool) or depth > 8:
            return self.random.choice([*NUMBERS, *WORDS, None, True, [], {}])
        merged = self._resolved(schema)
        if "const" in merged:
            return merged["const"]
        if merged.get("enum"):
            return self.random.choice(merged["enum"])
        types = merged.get("type", self._implied(merged))
        return self._of_type(self.random.choice(types if isinstance(types, list) else [types]), merged, depth)

    def _resolved(self, schema: Schema) -> Schema:
        merged = dict(schema)
        for _step in range(12):
            more: list[Any] = []
            if "$ref" in merged:
                target: Any = self.root
                for part in merged.pop("$ref").split("/")[1:]:
                    target = target[part.replace("~1", "/").replace("~0", "~")]
                more.append(target)
            more += merged.pop("allOf", [])
            for keyword in ("anyOf", "oneOf"):
                if merged.get(keyword):
                    more.append(self.random.choice(merged.pop(keyword)))
            if "if" in merged:
                more.append(merged.pop("if"))
                more.append(merged.pop("then", {}))
            if not more:
                break
            for each in more:
                if isinstance(each, dict):
                    merged = self._merged(merged, each)
        return merged

    def _merged(self, one: Schema, other: Schema) -> Schema:
        result = {**one, **other}
        for keyword in ("properties", "patternProperties"):
            if keyword in one and keyword in other:
                result[keyword] = {**one[keyword], **other[keyword]}
        if "required" in one and "required" in other:
            result["required"] = [*one["required"], *other["required"]]
        return result

    def _implied(self, schema: Schema) -> list[str]:
        if "properties" in schema or "additionalProperties" in schema or "required" in schema:
            return ["object", "object", "object", *ALL_TYPES]
        if "items" in schema or "prefixItems" in schema:
            return ["array", "array", *ALL_TYPES]
        return ALL_TYPES

    def _of_type(self, type_: str, schema: Schema, depth: int) -> Any:
        makers: dict[str, Callable[[], Any]] = {
            "null": lambda: None,
            "boolean": lambda: self.random.random() < 0.5,
            "string": lambda: self._text(schema),
            "integer": lambda: self._number(schema, whole=True),
            "number": lambda: self._number(schema, whole=False),
            "array": lambda: self._array(schema, depth),
            "object": lambda: self._object(schema, depth),
        }
        return makers[type_]()

    def _text(self, schema: Schema) -> str:
        options = TEXTS.get(schema.get("pattern", ""), []) + FORMATS.get(schema.get("format", ""), [])
        if options and self.random.random() < 0.9:
            return self.random.choice(options)
        low = int(schema.get("minLength", 0))
        high = int(schema.get("maxLength", low + 3))
        if self.random.random() < 0.6 and low <= high < 500:
            return self.random.choice("aé0") * self.random.choice([low, high, self.random.randint(low, high)])
        return self.random.choice([*WORDS, *(text for each in TEXTS.values() for text in each)])

    def _number(self, schema: Schema, *, whole: bool) -> Any:
        bounds = [schema[k] for k in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") if k in schema]
        near = [bound + step for bound in bounds for step in (-1, -0.5, 0, 0.5, 1)]
        factor = schema.get("multipleOf")
        value = self.random.choice([*near, *near, *NUMBERS])
        if factor and self.random.random() < 0.8:
            value = factor * round(value / factor)
        if whole and self.random.random() < 0.9:
            value = float(round(value)) if self.random.random() < 0.1 else round(value)
        return value

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        low = int(schema.get("minItems", 0))
        high = int(schema.get("maxItems", low + 3))
        length = self.random.randint(low, high) if low <= high else low
        prefix = schema.get("prefixItems", [])
        items = schema.get("items", True)
        length = min(length, 6 if depth < 4 else low)
        return [self.make(prefix[at] if at < len(prefix) else items, depth + 1) for at in range(length)]

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        made, properties = {}, schema.get("properties", {})
        chance = 0.6 if depth < 4 else 0.1
        for name, each in properties.items():
            if name in schema.get("required", []) or self.random.random() < chance:
                made[name] = self.make(each, depth + 1)
        extra = schema.get("additionalProperties", "properties" not in schema)
        if extra is not False and self.random.random() < 0.7:
            for name in self.random.sample(["a", "b", "key", "n0", "x1"], self.random.randint(0, 2)):
                if name not in properties:
                    made[name] = self.make(extra, depth + 1)
        for name in schema.get("required", []):
            if name not in made and self.random.random() < 0.5:
                made[name] = self.make(True, depth + 1)
        return made
