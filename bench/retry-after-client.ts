/** Asks a full queue again and again, and compares what it was told with when room came. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Connection, formatRequest } from './http-client.ts'

export interface ProbeOptions {
  readonly port: number
  readonly path: string
  readonly body: string
  readonly refusals: number
  /** Between two probes. */
  readonly everyMs: number
  /** Connections that fill the queue up. */
  readonly fillers: number
}

export interface ProbeFigures {
  /** Of each refusal: what it said, and how long it took until one was let in. */
  readonly saidMs: number[]
  readonly cameMs: number[]
}

export async function probe({ port, path, body, refusals, everyMs, fillers }: ProbeOptions): Promise<ProbeFigures> {
  const request = formatRequest(path, 'application/json', body)
  const connections = await Promise.all(Array.from({ length: fillers }, () => Connection.open(port)))
  const [first] = connections as [Connection]
  const figures: ProbeFigures = { saidMs: [], cameMs: [] }
  while (figures.saidMs.length < refusals) {
    await Promise.all(
      connections.map(async (connection) => {
        while ((await connection.send(request)).status === 202) {}
      }),
    )
    const episode: { readonly atMs: number; readonly saidMs: number }[] = []
    for (;;) {
      const answer = await first.send(request)
      const atMs = performance.now()
      if (answer.status === 202) {
        for (const one of episode) {
          figures.saidMs.push(one.saidMs)
          figures.cameMs.push(atMs - one.atMs)
        }
        break
      }
      if (answer.status !== 503) throw new Error(`${answer.status}: ${answer.body}`)
      episode.push({ atMs, saidMs: (JSON.parse(answer.body) as { retryAfterMs: number }).retryAfterMs })
      await sleep(everyMs)
    }
  }
  for (const connection of connections) connection.close()
  return figures
}
