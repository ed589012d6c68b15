/**
 * Values for fast-check from the JSON Schemas of the OpenAPI document: mostly such as a schema lets through, at the edges
 * of what it says, and some that it does not.
 */
import fc from 'fast-check'

export interface Schema {
  readonly [keyword: string]: unknown
}

/** Names that mean something in the run, for whatever is a name or an id. */
export interface Known {
  readonly texts: readonly string[]
  /** What certain parameters are mostly. */
  readonly parameters: Readonly<Record<string, readonly string[]>>
  /** `#/components/schemas/…` */
  readonly schemas: Readonly<Record<string, Schema>>
}

/** What no schema means: for any place at all. */
export const junk: fc.Arbitrary<unknown> = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }),
  fc.constantFrom<unknown>(
    '',
    '__proto__',
    'constructor',
    -1,
    1e308,
    2 ** 53,
    0.5,
    '\u0000',
    '\ud800',
    [],
    {},
    null,
    '../..',
    '%2e',
  ),
)

export function valuesOf(schema: Schema, known: Known): fc.Arbitrary<unknown> {
  return fc.oneof(
    { weight: 8, arbitrary: valid(schema, known, 0, false) },
    { weight: 3, arbitrary: valid(schema, known, 0, true) },
    { weight: 1, arbitrary: junk },
  )
}

/** `isSpoilt`: some members are junk, or are none of the schema's. */
function valid(schema: Schema, known: Known, depth: number, isSpoilt: boolean): fc.Arbitrary<unknown> {
  const { $ref, anyOf, oneOf, type } = schema
  if (typeof $ref === 'string') return valid(known.schemas[$ref.split('/').at(-1) ?? ''] ?? {}, known, depth, isSpoilt)
  if (schema.enum !== undefined) return fc.constantFrom(...(schema.enum as unknown[]))
  if ('const' in schema) return fc.constant(schema.const)
  if (anyOf !== undefined) return fc.oneof(...(anyOf as Schema[]).map((one) => valid(one, known, depth, isSpoilt)))
  if (oneOf !== undefined && type === undefined)
    return fc.oneof(...(oneOf as Schema[]).map((one) => valid(one, known, depth, isSpoilt)))
  switch (type) {
    case 'integer':
    case 'number':
      return numberIn(schema)
    case 'string':
      return fc.oneof(
        fc.constantFrom(...known.texts),
        fc.string({ maxLength: Math.min(40, Number(schema.maxLength ?? 40)) }),
        fc.string({ unit: 'binary', maxLength: 8 }),
      )
    case 'boolean':
      return fc.boolean()
    case 'null':
      return fc.constant(null)
    case 'array':
      return fc.array(valid((schema.items ?? {}) as Schema, known, depth + 1, isSpoilt), { minLength: 1, maxLength: 4 })
    case 'object':
      return objectOf(schema, known, depth, isSpoilt)
    default:
      return fc.jsonValue({ maxDepth: 2 })
  }
}

/** The edges, and small ones: a run does not wait for a minute, nor store a million. */
function numberIn({ minimum = 0, maximum = 1_000 }: Schema): fc.Arbitrary<number> {
  const [min, max] = [Number(minimum), Number(maximum)]
  return fc.oneof(fc.constantFrom(min, max, min + 1), fc.integer({ min, max: Math.max(min, Math.min(max, min + 300)) }))
}

function objectOf(schema: Schema, known: Known, depth: number, isSpoilt: boolean): fc.Arbitrary<unknown> {
  const properties = Object.entries((schema.properties ?? {}) as Record<string, Schema>)
  const required = new Set((schema.required ?? []) as string[])
  const members = Object.fromEntries(
    properties.map(([name, one]) => {
      const value = valid(one, known, depth + 1, isSpoilt)
      return [
        name,
        isSpoilt && depth < 3 ? fc.oneof({ weight: 9, arbitrary: value }, { weight: 1, arbitrary: junk }) : value,
      ]
    }),
  )
  const requiredKeys = properties.map(([name]) => name).filter((name) => required.has(name))
  const object = fc.record(members, { requiredKeys })
  if (!isSpoilt) return object
  return fc.oneof(
    { weight: 9, arbitrary: object },
    {
      weight: 1,
      arbitrary: fc
        .tuple(object, fc.string({ maxLength: 8 }), junk)
        .map(([one, name, value]) => ({ ...one, [name]: value })),
    },
  )
}
