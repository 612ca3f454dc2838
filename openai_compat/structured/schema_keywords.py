"""The keywords of JSON Schema whose values hold schemas, in the dialect 2020-12.

Both modules that walk a client's schema use these tables. Keywords that only one of them handles, such as keywords of
earlier dialects, are defined in that module.

Source: JSON Schema 2020-12, *Core*, section 10 (applicators).
"""

#: the value is a schema
SCHEMA = frozenset(("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"))
#: the value is an array of schemas
SCHEMA_ARRAY = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
#: the value is an object, each member of which is a schema
SCHEMA_MAP = frozenset(("dependentSchemas", "properties"))
