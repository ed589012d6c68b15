/**
 * Checks what stands in control bodies, query strings and lines of a batch: each member has a rule, a member without
 * one is refused by its name and with the nearest one that exists. Payloads and results never come through here.
 */
import { SluiceError } from '../errors.ts'
import { findNearest } from './nearest.ts'

/** Reads one member; `name` is for the message. An absent member is `undefined`. */
export type Rule<T> = (value: unknown, name: string) => T
type Rules = Readonly<Record<string, Rule<unknown>>>
type Read<R extends Rules> = { readonly [K in keyof R]: ReturnType<R[K]> }

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/
const MAX_SHOWN = 80

/** The members of `value` by `rules`. `where` says what it is, such as "a lease request". */
export function readMembers<R extends Rules>(value: unknown, rules: R, where: string): Read<R> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new SluiceError('BAD_REQUEST', `${show(value)} stands where ${where} must: a JSON object.`)
  }
  for (const name of Object.keys(value)) {
    if (!Object.hasOwn(rules, name)) throw unknownMember(name, Object.keys(rules), where)
  }
  const read: Record<string, unknown> = {}
  for (const [name, rule] of Object.entries(rules)) {
    read[name] = rule(Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined, name)
  }
  return read as Read<R>
}

export function unknownMember(name: string, known: readonly string[], where: string): SluiceError {
  const nearest = findNearest(name, known)
  const hint = nearest === null ? `It has ${known.join(', ') || 'no members'}.` : `Did you mean '${nearest}'?`
  return new SluiceError('INVALID_OPTION', `'${clip(name)}' is not a member of ${where}. ${hint}`, { option: clip(name), nearest })
}

/** A whole number within bounds. */
export function whole(min: number, max: number, fallback?: number): Rule<number> {
  return (value, name) => {
    if (value === undefined && fallback !== undefined) return fallback
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
    throw invalid(name, value, `a whole number from ${min} to ${max}`)
  }
}

/** The same as text: in a query string or a header. */
export function wholeText(min: number, max: number, fallback?: number): Rule<number> {
  const rule = whole(min, max, fallback)
  return (value, name) => rule(typeof value === 'string' && /^-?\d{1,16}$/.test(value) ? Number(value) : value, name)
}

export function text(maxChars: number, fallback?: string): Rule<string> {
  return (value, name) => {
    if (value === undefined && fallback !== undefined) return fallback
    if (typeof value === 'string' && value.length <= maxChars) return value
    throw invalid(name, value, `a text of at most ${maxChars} characters`)
  }
}

export function oneOf<T extends string>(values: readonly T[]): Rule<T> {
  return (value, name) => {
    if (values.includes(value as T)) return value as T
    const nearest = typeof value === 'string' ? findNearest(value, values) : null
    throw invalid(name, value, `one of ${values.join(', ')}${nearest === null ? '' : ` (did you mean '${nearest}'?)`}`)
  }
}

/** An array of 1 to `max` elements. */
export function list(max: number): Rule<readonly unknown[]> {
  return (value, name) => {
    if (Array.isArray(value) && value.length > 0 && value.length <= max) return value
    throw invalid(name, Array.isArray(value) ? `${value.length} elements` : value, `an array of 1 to ${max} elements`)
  }
}

/** Names to texts. */
export const textMap: Rule<Readonly<Record<string, string>>> = (value, name) => {
  const isMap = typeof value === 'object' && value !== null && !Array.isArray(value)
  if (isMap && !Object.hasOwn(value, '__proto__') && Object.values(value).every((item) => typeof item === 'string')) {
    return value as Record<string, string>
  }
  throw invalid(name, value, 'an object of texts, without __proto__')
}

/** Whatever is there, for members that are read elsewhere. */
export const anything: Rule<unknown> = (value) => value

export function optional<T>(rule: Rule<T>): Rule<T | undefined> {
  return (value, name) => (value === undefined ? undefined : rule(value, name))
}

/** A name of a queue, topic or group, as it stands in a path or body. */
export function readName(value: unknown, what: string): string {
  if (typeof value === 'string' && NAME.test(value)) return value
  throw new SluiceError('INVALID_NAME', `'${clip(String(value))}' cannot name a ${what}: use 1 to 128 letters, digits, dots, dashes or underscores, the first a letter or digit.`)
}

export function invalid(name: string, value: unknown, allowed: string): SluiceError {
  return new SluiceError('INVALID_OPTION', `${name} is ${value === undefined ? 'missing' : show(value)}; it must be ${allowed}.`, { option: name })
}

function show(value: unknown): string {
  return clip(typeof value === 'string' ? `'${value}'` : (JSON.stringify(value) ?? String(value)))
}

function clip(value: string): string {
  return value.length > MAX_SHOWN ? `${value.slice(0, MAX_SHOWN)}…` : value
}
