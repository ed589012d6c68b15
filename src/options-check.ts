/**
 * Checks what users pass as options, by tables: each option has a rule, an option without one is refused by its name
 * and with the nearest one that exists. What is refused leaves nothing stored, since the check comes first.
 *
 * The tables stand in `setting-rules.ts` and beside the nouns. A check is on the path of every message that has
 * options: it walks the options once, makes nothing, and builds words only to refuse.
 */
import { SluiceError } from './errors.ts'
import { type JsonSchema, objectSchema, type Schematic } from './json-schema.ts'

/** Throws where the value may not be; `name` is for the message. Never sees `undefined`, which stands for "not given". */
export interface Rule extends Schematic {
  (value: unknown, name: string): void
}
/** Rules by option. Without a prototype, so that `constructor` and `__proto__` are options like any other: unknown. */
export type Rules = { readonly [option: string]: Rule | undefined }

/** Ten years: what is longer is a mistake of units. */
export const MAX_DURATION_MS = 315_360_000_000
export const MAX_COUNT = Number.MAX_SAFE_INTEGER

/** What queues, topics and groups may be called. */
export const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/
const MAX_SHOWN = 80
/** The first that has all of `node:sqlite` that is used. */
const MIN_NODE = 24

/** A rule that says what it lets through. */
export function rule(schema: JsonSchema, check: (value: unknown, name: string) => void): Rule {
  return Object.assign(check, { schema })
}

export function createRules(rules: Record<string, Rule>): Rules {
  return Object.assign(Object.create(null) as Record<string, Rule>, rules)
}

/** Checks `options`, if any. `where` says whose they are, such as `queue.add()`; `prefix` is for parts of an option. */
export function checkOptions(options: unknown, rules: Rules, where: string, prefix = ''): void {
  if (options === undefined) return
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw invalidOption(prefix === '' ? `the options of ${where}` : prefix.slice(0, -1), options, 'an object')
  }
  for (const name in options) {
    const known = rules[name]
    if (known === undefined) {
      if (Object.hasOwn(options, name)) throw unknownOption(prefix + name, Object.keys(rules), where, prefix)
      continue
    }
    const value = (options as Record<string, unknown>)[name]
    if (value !== undefined) known(value, prefix === '' ? name : prefix + name)
  }
}

/** A whole number within bounds. */
export function whole(min: number, max: number): Rule {
  return rule({ type: 'integer', minimum: min, maximum: max }, (value, name) => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return
    throw invalidOption(name, value, `a whole number from ${group(min)} to ${group(max)}`)
  })
}

/** A duration in whole milliseconds, up to ten years unless told otherwise. */
export function duration(min: number, max: number = MAX_DURATION_MS): Rule {
  return rule({ type: 'integer', minimum: min, maximum: max }, (value, name) => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return
    const limit = max === MAX_DURATION_MS ? `${group(max)} (ten years)` : group(max)
    throw invalidOption(name, value, `whole milliseconds from ${group(min)} to ${limit}`)
  })
}

/** Any finite number within bounds. */
export function finite(min: number, max: number): Rule {
  return rule({ type: 'number', minimum: min, maximum: max }, (value, name) => {
    if (typeof value === 'number' && value >= min && value <= max) return
    throw invalidOption(name, value, `a number from ${group(min)} to ${group(max)}`)
  })
}

/** Text that UTF-8 can express, of 1 to `maxBytes` bytes. */
export function text(maxBytes: number): Rule {
  return rule({ type: 'string', minLength: 1, maxLength: maxBytes }, (value, name) => {
    if (typeof value !== 'string') throw invalidOption(name, value, 'text')
    if (value === '') throw invalidOption(name, value, 'text that is not empty')
    if (!value.isWellFormed())
      throw invalidOption(name, value.toWellFormed(), 'well-formed Unicode, without half a surrogate pair')
    if (value.length * 3 <= maxBytes) return
    const bytes = Buffer.byteLength(value)
    if (bytes > maxBytes)
      throw invalidOption(name, value, `at most ${group(maxBytes)} bytes in UTF-8, not ${group(bytes)}`)
  })
}

export function oneOf(values: readonly string[]): Rule {
  return rule({ enum: values }, (value, name) => {
    if (typeof value === 'string' && values.includes(value)) return
    const nearest = typeof value === 'string' ? findNearest(value, values) : null
    const hint = nearest === null ? '' : `; did you mean '${nearest}'?`
    throw invalidOption(name, value, `one of ${values.map((one) => `'${one}'`).join(', ')}${hint}`)
  })
}

export const flag: Rule = rule({ type: 'boolean' }, (value, name) => {
  if (typeof value !== 'boolean') throw invalidOption(name, value, 'true or false')
})

export const callback: Rule = (value, name) => {
  if (typeof value !== 'function') throw invalidOption(name, value, 'a function')
}

export const abortSignal: Rule = (value, name) => {
  if (!(value instanceof AbortSignal)) throw invalidOption(name, value, 'an AbortSignal')
}

export function nullable(inner: Rule): Rule {
  return rule({ anyOf: [inner.schema ?? {}, { type: 'null' }] }, (value, name) => {
    if (value !== null) inner(value, name)
  })
}

/** An option that has parts. Those in `required` may not be left out. */
export function parts(rules: Rules, required: readonly string[] = []): Rule {
  return rule(objectSchema(rules, required), (value, name) => {
    checkOptions(value, rules, name, `${name}.`)
    for (const part of required) {
      const given = (value as Record<string, unknown>)[part]
      if (given === undefined) throw invalidOption(`${name}.${part}`, undefined, 'given')
    }
  })
}

/** `UNSUPPORTED` where this version of Node is too old; null where it is not. */
export function findNodeProblem(version: string): SluiceError | null {
  if (Number.parseInt(version, 10) >= MIN_NODE) return null
  return new SluiceError(
    'UNSUPPORTED',
    `Sluice needs Node ${MIN_NODE} or newer; this is ${clip(version)}. Install a newer one from nodejs.org.`,
    { node: clip(version) },
  )
}

/** What has a name. */
export type Named = 'queue' | 'topic' | 'group' | 'schedule'

/** Names of queues, topics, groups and schedules. */
export function checkName(name: unknown, what: Named): void {
  if (typeof name === 'string' && NAME.test(name)) return
  throw new SluiceError(
    'INVALID_NAME',
    `${show(name)} cannot name a ${what}. Use 1 to 128 letters, digits, dots, dashes or underscores, the first a letter or digit.`,
    { name: clip(String(name)) },
  )
}

export function invalidOption(name: string, value: unknown, allowed: string): SluiceError {
  const is = value === undefined ? 'is missing' : `is ${show(value)}`
  return new SluiceError('INVALID_OPTION', `${clip(name)} ${is}; it must be ${allowed}.`, {
    option: clip(name),
    allowed,
  })
}

function unknownOption(name: string, known: readonly string[], where: string, prefix: string): SluiceError {
  const nearest = findNearest(name.slice(prefix.length), known)
  const hint = nearest === null ? '' : ` Did you mean '${prefix}${nearest}'?`
  const message = `There is no option '${clip(name)}' of ${where}.${hint} There are: ${known.join(', ')}.`
  return new SluiceError('INVALID_OPTION', message, {
    option: clip(name),
    nearest: nearest === null ? null : prefix + nearest,
  })
}

/** The word of `known` that is fewest edits away from `word`, whatever the case; null where none shares half of it. */
export function findNearest(word: string, known: readonly string[]): string | null {
  const wanted = word.slice(0, MAX_SHOWN).toLowerCase()
  let nearest: string | null = null
  let fewest = Number.POSITIVE_INFINITY
  for (const one of known) {
    const lower = one.toLowerCase()
    const edits = lower.startsWith(wanted) || wanted.startsWith(lower) ? 1 : countEdits(wanted, lower)
    if (edits < fewest && edits <= Math.max(wanted.length, lower.length) / 2) {
      fewest = edits
      nearest = one
    }
  }
  return nearest
}

/** Insertions, deletions and replacements from `a` to `b` (Levenshtein). */
function countEdits(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[b.length] as number
}

/** A value as a message shows it: short, and never a throw. */
function show(value: unknown): string {
  if (typeof value === 'string') return clip(`'${value}'`)
  if (typeof value === 'function') return 'a function'
  if (typeof value === 'bigint') return `${clip(String(value))}n`
  if (typeof value !== 'object' || value === null) return String(value)
  return Array.isArray(value) ? `an array of ${value.length}` : 'an object'
}

function clip(value: string): string {
  return value.length > MAX_SHOWN ? `${value.slice(0, MAX_SHOWN)}…` : value
}

function group(value: number): string {
  return value.toLocaleString('en-US')
}
