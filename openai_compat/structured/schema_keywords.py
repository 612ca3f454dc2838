"""The keywords of JSON Schema whose values hold schemas, in the dialect 2020-12.

Both readers of clients' schemas use these tables. What one of them knows beyond them stands in its own module: keywords
of earlier dialects, and those that it does not evaluate.

Source: JSON Schema 2020-12, *Core*, section 10 (applicators).
"""

#: the value is a schema
SCHEMA = frozenset(("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"))
#: the value is an array of schemas
SCHEMA_ARRAY = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
#: the value is an object, each member of which is a schema
SCHEMA_MAP = frozenset(("dependentSchemas", "properties"))
