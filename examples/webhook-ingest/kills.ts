/** The kills of the server: where, drawn from a seed, and the doing. */
import type { Client } from './client.ts'
import type { Counters } from './counters.ts'
import type { ServerProcess } from './server.ts'

export interface Kill {
  readonly accepted: number
  readonly done: number
  /** From the kill until the server was ready again. */
  readonly downMs: number
}

/** One point in each of `kills` equal parts of the way, counted in deliveries accepted plus jobs done. */
export function drawPoints(kills: number, total: number, random: () => number): number[] {
  const part = (total * 2) / kills
  return Array.from({ length: kills }, (_, i) => Math.floor(part * (i + 0.1 + 0.8 * random())))
}

interface Killing {
  readonly server: ServerProcess
  readonly client: Client
  readonly counters: Counters
  readonly tell: (line: string) => void
  readonly points: readonly number[]
}

/** Kills the server at each point and starts it again. */
export async function killServer({ server, client, counters, tell, points }: Killing): Promise<Kill[]> {
  const kills: Kill[] = []
  for (const point of points) {
    await counters.until(() => counters.counts.accepted + counters.counts.done >= point, 'the next kill')
    const { accepted, done } = counters.counts
    const killedAtMs = performance.now()
    await server.kill()
    await server.start(client)
    const downMs = performance.now() - killedAtMs
    kills.push({ accepted, done, downMs })
    tell(`killed the server at ${accepted} accepted and ${done} done; ready again after ${Math.round(downMs)} ms`)
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
