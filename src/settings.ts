/** Settings as users give them, and as they are declared: only what was given, so that nothing else is reset. */
import type { Partially, Rate } from './engine/options.ts'

/** Settings of a noun or a group: any part may be left out. */
export type Given<T> = Omit<Partially<T>, 'rate'> & {
  /**
   * At most `messages` hand-outs in any `perMs` (1,000 unless given), over all workers; null: as fast as workers ask.
   * @default null
   */
  readonly rate?: (Partial<Rate> & Pick<Rate, 'messages'>) | null | undefined
}

/** A copy of the settings among `options`, whose other names are `others`. The options have been checked. */
export function chooseSettings(options: object, others: readonly string[]): Record<string, unknown> {
  const settings: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || others.includes(name)) continue
    settings[name] = typeof value === 'object' && value !== null ? copyParts(value, name) : value
  }
  return settings
}

function copyParts(value: object, name: string): object {
  const copy: Record<string, unknown> = name === 'rate' ? { perMs: 1_000 } : {}
  for (const [part, content] of Object.entries(value)) if (content !== undefined) copy[part] = content
  return copy
}
