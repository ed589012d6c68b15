/**
 * What a check lets through, as JSON Schema (2020-12). The function that checks a value carries its schema, so that what
 * the OpenAPI document says of a request is said by the very thing that refuses it.
 */
import assert from 'node:assert/strict'

export interface JsonSchema {
  readonly [keyword: string]: unknown
}

/** Carries the schema of what it lets through. Without one it checks what JSON cannot express, such as a function. */
export interface Schematic {
  readonly schema?: JsonSchema
}

export function schemaOf({ schema }: Schematic): JsonSchema {
  assert(schema !== undefined, 'what is shown to others has a schema')
  return schema
}

/** The schema of an object whose members have these checks, and which has no others. */
export function objectSchema(
  members: { readonly [member: string]: Schematic | undefined },
  required: readonly string[] = [],
): JsonSchema {
  const properties: Record<string, JsonSchema> = {}
  for (const [member, check] of Object.entries(members))
    if (check?.schema !== undefined) properties[member] = check.schema
  return { type: 'object', properties, ...(required.length === 0 ? {} : { required }), additionalProperties: false }
}
