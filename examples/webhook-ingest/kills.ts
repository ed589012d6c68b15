/** The kills: where, drawn from a seed, and the doing. */
import type { Counters } from './counters.ts'

export interface Kill {
  /** `the server`, or the name of the broker. */
  readonly victim: string
  readonly accepted: number
  readonly done: number
  /** By the clock of `Accepted`. */
  readonly atMs: number
  /** From the kill until every server answered again. */
  readonly downMs: number
}

/** Who can be killed, and comes back with the data that it had. */
export interface Victim {
  readonly name: string
  /** SIGKILL: it gets no chance to finish anything. */
  kill(): Promise<void>
  start(): Promise<unknown>
}

/** One point in each of `kills` equal parts of the way, counted in deliveries accepted plus jobs done. */
export function drawPoints(kills: number, total: number, random: () => number): number[] {
  const part = (total * 2) / kills
  return Array.from({ length: kills }, (_, i) => Math.floor(part * (i + 0.1 + 0.8 * random())))
}

interface Killing {
  /** They take turns, a single kill is that of the second: the broker stands there, if there is one. */
  readonly victims: readonly Victim[]
  readonly counters: Counters
  readonly tell: (line: string) => void
  readonly points: readonly number[]
  /** Resolves once every server answers. */
  readonly untilServed: () => Promise<unknown>
}

/** Kills one of them at each point and starts it again. */
export async function killInTurn({ victims, counters, tell, points, untilServed }: Killing): Promise<Kill[]> {
  const kills: Kill[] = []
  const first = points.length === 1 ? 1 : 0
  for (const [i, point] of points.entries()) {
    await counters.until(() => counters.counts.accepted + counters.counts.done >= point, 'the next kill')
    const { accepted, done } = counters.counts
    const victim = victims[(first + i) % victims.length] as Victim
    const atMs = performance.now()
    await victim.kill()
    await victim.start()
    await untilServed()
    const downMs = performance.now() - atMs
    kills.push({ victim: victim.name, accepted, done, atMs, downMs })
    tell(`killed ${victim.name} at ${accepted} accepted and ${done} done; ready again after ${Math.round(downMs)} ms`)
  }
  return kills
}

/** A small generator of chance from a seed (mulberry32). */
export function createRandom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
