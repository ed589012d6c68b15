/**
 * What was seen of a queue over many lives of its process, and what must be true of it. Fed with the lines that
 * child.ts prints, and at the end with what is stored.
 */
import { open } from '../../../src/index.ts'
import type { Work } from './child.ts'

export class CrashRecord {
  readonly #ids = new Map<string, string>()
  readonly #settled = new Set<string>()
  readonly #starts = new Map<string, number[]>()
  readonly violations: string[] = []
  lives = 0
  acknowledged = 0

  /** The next number of each key, for the next life: acknowledged or not, a number is never used for two payloads. */
  next(): Record<string, number> {
    const next: Record<string, number> = {}
    for (const name of this.#ids.keys()) {
      const [key = '', n] = name.split(' ')
      next[key] = Math.max(next[key] ?? 0, Number(n) + 1)
    }
    return next
  }

  feed(line: string): void {
    const [what, key = '', number = '', id = ''] = line.split(' ')
    const name = `${key} ${number}`
    if (what === 'open') this.lives++
    if (what === 'added') {
      this.acknowledged++
      const before = this.#ids.get(name)
      if (before !== undefined && before !== id)
        this.violations.push(`P8: ${name} was acknowledged as ${before} and as ${id}`)
      this.#ids.set(name, id)
    }
    if (what === 'settled') this.#settled.add(name)
    if (what === 'started') this.#start(key, Number(number))
  }

  /** P4: within a key, nothing starts again once a later one has started. */
  #start(key: string, n: number): void {
    const starts = this.#starts.get(key) ?? []
    this.#starts.set(key, starts)
    const last = starts.at(-1)
    if (last !== undefined && n < last) this.violations.push(`P4: ${key} started ${n} after ${last}`)
    starts.push(n)
  }

  /** What must hold of a folder between two lives: everything acknowledged is there, what was settled is so for good. */
  async checkStored(folder: string): Promise<void> {
    await using sluice = await open(folder)
    const queue = sluice.queue<Work, number>('work')
    for (const [name, id] of this.#ids) {
      const info = await queue.get(id).then(
        (job) => job.status(),
        () => null,
      )
      if (info === null) this.violations.push(`P2: ${name} (${id}) was acknowledged and is gone`)
      else if (this.#settled.has(name)) {
        if (info.status !== 'completed') this.violations.push(`P10: ${name} was completed and is ${info.status}`)
        else if (info.result !== Number(name.split(' ')[1])) this.violations.push(`P10: ${name} has another result`)
      }
    }
  }

  /** What must hold when all is done: each acknowledged job completed, and one event for each (P9). */
  async checkDone(folder: string): Promise<void> {
    await this.checkStored(folder)
    await using sluice = await open(folder)
    const queue = sluice.queue<Work, number>('work')
    for (const [name, id] of this.#ids) {
      const { status } = await queue.get(id).then(
        (job) => job.status(),
        () => ({ status: 'gone' }),
      )
      if (status !== 'completed') this.violations.push(`P2: ${name} is ${status} at the end`)
    }
    const seen = new Map<string, number>()
    const last = new Map<string, number>()
    for await (const { payload } of sluice.topic<Work>('events').read({ from: 0, follow: false })) {
      const name = `${payload.key} ${payload.n}`
      seen.set(name, (seen.get(name) ?? 0) + 1)
      if (payload.n <= (last.get(payload.key) ?? -1)) this.violations.push(`P4: the event of ${name} is out of order`)
      last.set(payload.key, payload.n)
    }
    for (const [name, times] of seen) if (times !== 1) this.violations.push(`P9: ${name} has ${times} events`)
    for (const name of this.#ids.keys())
      if (!seen.has(name)) this.violations.push(`P9: ${name} is completed and has no event`)
  }

  /** P3: how often handlers ran more than once. */
  get repeats(): number {
    let repeats = 0
    for (const starts of this.#starts.values()) repeats += starts.length - new Set(starts).size
    return repeats
  }
}
