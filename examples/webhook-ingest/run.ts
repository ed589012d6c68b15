/**
 * One run: senders, a server that is killed, two workers, three groups, and a look at all that is stored at the end.
 * What comes out is evidence; checks.ts judges it.
 *
 * On a broker there are two servers, which share it: one takes deliveries in, workers and groups call the other. What is
 * killed in turn are both and, where it is ours, the broker between them.
 */
import { type ConsumerProcess, startConsumer } from './child.ts'
import { Client } from './client.ts'
import type { Evidence } from './consume.ts'
import { Counters } from './counters.ts'
import type { Delivery } from './deliveries.ts'
import { drawPoints, killInTurn, type Victim } from './kills.ts'
import type { Place } from './place.ts'
import { GROUPS, type Group, LATE, type RunRecord } from './record.ts'
import { type Accepted, sendAll } from './sender.ts'
import { findPort, ServerProcess } from './server.ts'
import { readStored } from './stored.ts'

export interface RunSettings {
  readonly place: Place
  readonly deliveries: readonly Delivery[]
  readonly kills: number
  /** From 0 to 1. */
  readonly random: () => number
  readonly tell: (line: string) => void
  readonly signal: AbortSignal
}

const QUEUE = '/v1/queues/webhooks'
const LANES = 16
const WORKERS = 2
/** What was leased when the server was killed is free again after this long. */
const LEASE_MS = 2_000
/** With everything accepted and no kill to come, what does not move for this long is lost: the checks say what. */
const LAST_STALL_MS = 60_000
const TELL_EVERY_MS = 2_000

export async function ingest(settings: RunSettings): Promise<RunRecord> {
  const { place, deliveries, kills, random, tell, signal: outer } = settings
  const failed = new AbortController()
  const fail = (error: unknown): void => failed.abort(error)
  const signal = AbortSignal.any([outer, failed.signal])
  const servers: Served[] = []
  for (let i = 0; i < (place.isShared ? 2 : 1); i++) {
    const server = new ServerProcess(await findPort(random), place.location, fail)
    servers.push({ server, client: new Client(server.url, signal) })
  }
  const { client } = servers[0] as Served
  const { url } = (servers.at(-1) as Served).server
  const counters = new Counters(signal)
  const consumers: ConsumerProcess[] = []
  const ticker = setInterval(() => tell(counters.describe()), TELL_EVERY_MS)
  const startedAtMs = performance.now()

  function start(file: string, name: string, counter: 'done' | Group): ConsumerProcess {
    const consumer = startConsumer(
      file,
      { url, name, leaseMs: LEASE_MS },
      (count) => counters.add(counter, count),
      fail,
    )
    consumers.push(consumer)
    return consumer
  }
  async function enlist(group: Group): Promise<void> {
    await client.expect([200, 201], `/v1/topics/events/groups/${group}`, { method: 'PUT', body: { from: 'earliest' } })
    start('./group.ts', group, group)
  }

  try {
    for (const one of servers) {
      tell(`sluice serve on ${one.server.url}, data in ${place.shown}`)
      await one.server.start(one.client)
    }
    await refuseUsed(client)
    await client.expect([200, 201], QUEUE, { method: 'PUT', body: {} })
    await client.expect([200, 201], '/v1/topics/events', { method: 'PUT', body: {} })
    for (const group of GROUPS) if (group !== LATE) await enlist(group)
    const workers = Array.from({ length: WORKERS }, (_, i) => start('./worker.ts', `worker ${i + 1}`, 'done'))

    const total = deliveries.length
    const accepted: Accepted[] = []
    const sending = sendAll(client, deliveries, LANES, (one) => {
      accepted.push(one)
      counters.add('accepted')
    })
    const killing = killInTurn({
      victims: listVictims(place, servers),
      counters,
      tell,
      points: drawPoints(kills, total, random),
      untilServed: () => Promise.all(servers.map((one) => one.client.expect([200], QUEUE, { method: 'GET' }))),
    })
    const joining = counters
      .until(() => counters.counts.done * 2 >= total, 'half of the jobs')
      .then(async () => {
        const { head } = await client.expect<{ head: number }>([200], '/v1/topics/events', { method: 'GET' })
        tell(`${LATE} joins, with ${head} events on the topic`)
        await enlist(LATE)
        return head
      })
    for (const part of [sending, killing, joining]) part.catch(fail)
    const [, killed, lateAt] = await Promise.all([sending, killing, joining])
    const isAllDone = await counters.reaches(
      () => counters.counts.done >= total && GROUPS.every((group) => counters.counts[group] >= total),
      LAST_STALL_MS,
    )
    tell(`${counters.describe()}${isAllDone ? '' : ', and nothing moves any more'}; reading everything back`)

    const stored = await readStored(client, accepted, LANES)
    const evidence = new Map(
      await Promise.all(consumers.map(async (one): Promise<[string, Evidence]> => [one.name, await one.stop()])),
    )
    for (const { server } of servers) await server.stop()
    return {
      servers: servers.length,
      broker: place.broker?.name ?? null,
      leaseMs: LEASE_MS,
      sent: deliveries,
      accepted,
      stored,
      workers: workers.map(({ name }) => evidence.get(name) as Evidence),
      groups: Object.fromEntries(GROUPS.map((group) => [group, evidence.get(group)])) as Record<Group, Evidence>,
      kills: killed,
      lateAt,
      tookMs: performance.now() - startedAtMs,
    }
  } finally {
    clearInterval(ticker)
    for (const consumer of consumers) consumer.kill()
    for (const { server } of servers) await server.kill()
  }
}

interface Served {
  readonly server: ServerProcess
  readonly client: Client
}

/** The checks count all that is there: what an earlier run left would break them. */
async function refuseUsed(client: Client): Promise<void> {
  const { status } = await client.askUntilAnswered(QUEUE, { method: 'GET' })
  if (status !== 404) throw new Error('There is a queue `webhooks` already: give a new folder, or another namespace.')
}

/** The broker stands second, so that three kills have it in the middle. */
function listVictims({ broker }: Place, servers: readonly Served[]): Victim[] {
  const victims = servers.map(({ server, client }): Victim => {
    return { name: 'the server', kill: () => server.kill(), start: () => server.start(client) }
  })
  if (broker !== null) {
    const { name, kill, restart } = broker
    victims.splice(1, 0, { name, kill, start: restart })
  }
  return victims
}
