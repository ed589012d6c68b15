/** Text of others in a log or on a terminal: nothing in it ends the line, moves the cursor or turns the direction of writing. */

/** Controls (C0, DEL, C1), line and paragraph separators, and the marks that reorder text. */
const UNSAFE = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu

/** Each of them as `\uXXXX`, which is also what JSON makes of it. */
export function escapeControls(text: string): string {
  return text.replace(UNSAFE, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
