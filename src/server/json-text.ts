/**
 * Parts of a JSON text, as they were written. A payload inside a larger document (a line of a batch, the result in a
 * settle) is cut out of the text rather than parsed and written again, which would round its large numbers, drop its
 * repeated members and change its spacing.
 *
 * The text has passed `JSON.parse` before; what follows relies on that and checks nothing.
 */
import { isUtf8 } from 'node:buffer'

const QUOTE = 0x22
const COMMA = 0x2c
const BACKSLASH = 0x5c
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d

/** The value of a member of the object that `text` is; undefined: it has none. Of members of one name the last counts. */
export function cutMember(text: string, name: string): string | undefined {
  let value: string | undefined
  let at = skipSpace(text, 0) + 1
  for (;;) {
    at = skipSpace(text, at)
    if (text.charCodeAt(at) === CLOSE_OBJECT) return value
    const nameEnd = skipString(text, at)
    const isWanted = isName(text, at, nameEnd, name)
    at = skipSpace(text, skipSpace(text, nameEnd) + 1)
    const end = skipValue(text, at)
    if (isWanted) value = text.slice(at, end)
    at = skipSpace(text, end)
    if (text.charCodeAt(at) === COMMA) at++
  }
}

/** The elements of the array that `text` is. */
export function cutElements(text: string): string[] {
  const elements: string[] = []
  let at = skipSpace(text, 0) + 1
  for (;;) {
    at = skipSpace(text, at)
    if (text.charCodeAt(at) === CLOSE_ARRAY) return elements
    const end = skipValue(text, at)
    elements.push(text.slice(at, end))
    at = skipSpace(text, end)
    if (text.charCodeAt(at) === COMMA) at++
  }
}

/** The text of these bytes where they are one JSON value in UTF-8, else null: what may stand inside another document. */
export function jsonTextOf(bytes: Uint8Array): string | null {
  if (!isUtf8(bytes)) return null
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8')
  return isJson(text) ? text : null
}

export function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** Whether the string from `at` to `end` is `name`; it may be written with escapes. */
function isName(text: string, at: number, end: number, name: string): boolean {
  if (end - at === name.length + 2) return text.startsWith(name, at + 1)
  return text.slice(at, end).includes('\\') && JSON.parse(text.slice(at, end)) === name
}

function skipSpace(text: string, from: number): number {
  let at = from
  for (;;) {
    const unit = text.charCodeAt(at)
    if (unit !== 0x20 && unit !== 0x0a && unit !== 0x0d && unit !== 0x09) return at
    at++
  }
}

/** The place behind the string that begins at `at`. */
function skipString(text: string, at: number): number {
  let end = text.indexOf('"', at + 1)
  for (;;) {
    let slashes = 0
    while (text.charCodeAt(end - 1 - slashes) === BACKSLASH) slashes++
    if (slashes % 2 === 0) return end + 1
    end = text.indexOf('"', end + 1)
  }
}

/** The place behind the value that begins at `from`. */
function skipValue(text: string, from: number): number {
  let at = from
  let depth = 0
  do {
    const unit = text.charCodeAt(at)
    if (unit === QUOTE) {
      at = skipString(text, at)
      continue
    }
    if (unit === OPEN_OBJECT || unit === OPEN_ARRAY) depth++
    else if (unit === CLOSE_OBJECT || unit === CLOSE_ARRAY) depth--
    else if (depth === 0) return skipScalar(text, at)
    at++
  } while (depth > 0)
  return at
}

/** The place behind a number, true, false or null. */
function skipScalar(text: string, from: number): number {
  let at = from
  while (at < text.length && !' \n\r\t,]}'.includes(text[at] as string)) at++
  return at
}
