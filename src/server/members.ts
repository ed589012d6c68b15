/**
 * Reads control bodies, query strings and items of lists: each member has a rule that checks it and gives its value, or
 * its default. A member without a rule is refused by its name and with the nearest one that exists.
 */
import { SluiceError } from '../errors.ts'
import { type JsonSchema, objectSchema, type Schematic, schemaOf } from '../json-schema.ts'
import { checkName, checkOptions, createRules, invalidOption, NAME, type Named, type Rules } from '../options-check.ts'
import { isDeeperThan, MAX_JSON_DEPTH } from '../payload.ts'

/** Reads one member; `name` is for the message. An absent member is `undefined`. Its schema is what the OpenAPI document says. */
export interface Reader<T> extends Schematic {
  (value: unknown, name: string): T
}
export type Readers = Readonly<Record<string, Reader<unknown>>>
export type Read<R extends Readers> = { readonly [K in keyof R]: ReturnType<R[K]> }

/** A payload of the depth that it may have, and what stands around it. */
const MAX_DEPTH = MAX_JSON_DEPTH + 8

const knownNames = new WeakMap<Readers, Rules>()

/** A reader that says what it reads. */
export function reader<T>(schema: JsonSchema, read: (value: unknown, name: string) => T): Reader<T> {
  return Object.assign(read, { schema })
}

/** The same reader, with a sentence about the member for the OpenAPI document. */
export function about<T>(description: string, inner: Reader<T>): Reader<T> {
  return reader({ description, ...inner.schema }, (value, name) => inner(value, name))
}

/** Whether a member may not be left out: its reader itself is asked. */
export function isRequired(read: Reader<unknown>): boolean {
  try {
    read(undefined, '')
    return false
  } catch {
    return true
  }
}

/** The schema of an object that `readMembers` reads. */
export function membersSchema(readers: Readers): JsonSchema {
  const required = Object.keys(readers).filter((name) => isRequired(readers[name] as Reader<unknown>))
  return objectSchema(readers, required)
}

/** The members of `value` by `readers`. `where` says what it is, such as "a lease request". */
export function readMembers<R extends Readers>(value: unknown, readers: R, where: string): Read<R> {
  let names = knownNames.get(readers)
  if (names === undefined) {
    names = createRules(Object.fromEntries(Object.keys(readers).map((name) => [name, () => {}])))
    knownNames.set(readers, names)
  }
  checkOptions(value ?? null, names, where)
  const read: Record<string, unknown> = {}
  for (const name in readers) {
    read[name] = (readers[name] as Reader<unknown>)(
      Object.hasOwn(value as object, name) ? (value as Record<string, unknown>)[name] : undefined,
      name,
    )
  }
  return read as Read<R>
}

/** A whole number within bounds. */
export function whole(min: number, max: number, fallback?: number): Reader<number> {
  const bounds = { type: 'integer', minimum: min, maximum: max }
  return reader(fallback === undefined ? bounds : { ...bounds, default: fallback }, (value, name) => {
    if (value === undefined && fallback !== undefined) return fallback
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
    throw invalidOption(name, value, `a whole number from ${min} to ${max}`)
  })
}

/** The same as text: in a query string or a header. */
export function wholeText(min: number, max: number, fallback?: number): Reader<number> {
  const read = whole(min, max, fallback)
  return reader(schemaOf(read), (value, name) =>
    read(typeof value === 'string' && /^-?\d{1,16}$/.test(value) ? Number(value) : value, name),
  )
}

export function text(maxChars: number): Reader<string> {
  return reader({ type: 'string', maxLength: maxChars }, (value, name) => {
    if (typeof value === 'string' && value.length <= maxChars) return value
    throw invalidOption(name, value, `text of at most ${maxChars} characters`)
  })
}

/** An array of 1 to `max` elements, which are read elsewhere; `items` says by what. */
export function list(max: number, items: JsonSchema = {}): Reader<readonly unknown[]> {
  return reader({ type: 'array', minItems: 1, maxItems: max, items }, (value, name) => {
    if (Array.isArray(value) && value.length > 0 && value.length <= max) return value
    throw invalidOption(name, value, `an array of 1 to ${max} elements`)
  })
}

/** Whatever is there, for members that are read elsewhere. */
export const anything: Reader<unknown> = reader({}, (value) => value)

export function optional<T>(read: Reader<T>): Reader<T | undefined> {
  return reader(schemaOf(read), (value, name) => (value === undefined ? undefined : read(value, name)))
}

/** A name of a queue, topic or group, as it stands in a path or body. */
export function readName(value: unknown, what: Named): string {
  checkName(value, what)
  return value as string
}

/** The same as a member. */
export function named(what: Named): Reader<string> {
  return reader({ type: 'string', pattern: NAME.source }, (value) => readName(value, what))
}

export function oneOf<T extends string>(values: readonly T[]): Reader<T> {
  return reader({ enum: values }, (value, name) => {
    if (values.includes(value as T)) return value as T
    throw invalidOption(name, value, `one of ${values.join(', ')}`)
  })
}

/** More values than these in one text are a burden rather than a request: 16 MiB of brackets took two seconds to parse. */
const MAX_VALUES = 1_000_000

/** A JSON text, parsed. Text that is nested too deep, or has too many values, is refused before it costs anything. */
export function parseJson(source: string, where: string, code: 'BAD_REQUEST' | 'INVALID_PAYLOAD'): unknown {
  if (source.length > MAX_VALUES && hasMoreValues(source, MAX_VALUES))
    throw new SluiceError(code, `${where} has more than ${MAX_VALUES} values.`, { limit: MAX_VALUES })
  if (isDeeperThan(source, MAX_DEPTH))
    throw new SluiceError(code, `${where} is nested deeper than ${MAX_DEPTH} levels.`, { maxDepth: MAX_DEPTH })
  try {
    return JSON.parse(source) as unknown
  } catch (error) {
    throw new SluiceError(code, `${where} is not JSON: ${(error as Error).message}.`)
  }
}

/** Whether a text has more commas and brackets, outside of strings, than that. */
function hasMoreValues(source: string, max: number): boolean {
  let values = 0
  for (let at = 0; at < source.length; at++) {
    const unit = source.charCodeAt(at)
    if (unit === 0x22) {
      do at = source.indexOf('"', at + 1)
      while (at !== -1 && isEscaped(source, at))
      if (at === -1) return false
    } else if ((unit === 0x2c || unit === 0x5b || unit === 0x7b) && ++values > max) return true
  }
  return false
}

function isEscaped(source: string, at: number): boolean {
  let slashes = 0
  while (source.charCodeAt(at - 1 - slashes) === 0x5c) slashes++
  return slashes % 2 === 1
}
