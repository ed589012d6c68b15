/**
 * A worker of the queue: makes one line out of each delivery and, in the very step that completes the job, publishes it
 * as an event for the groups (P9). There is never a completed job without its event, nor an event without its job.
 */
import { runConsumer } from './child.ts'
import { digestOf, type Job, type RepositoryEvent, type Result, summarise } from './deliveries.ts'

await runConsumer((_settings, client) => ({
  path: '/v1/queues/webhooks/leases',
  handle({ key, attempt, payload }) {
    const { delivery, event, payload: hook } = payload as Job
    const summary = summarise(event, key, hook)
    const message: RepositoryEvent = { delivery, summary, digest: digestOf(JSON.stringify(hook)) }
    return {
      delivery,
      result: { delivery, summary, attempt } satisfies Result,
      outputs: [{ topic: 'events', key, headers: { event }, payload: message }],
    }
  },
  async onSettled(handOuts) {
    for (const handOut of handOuts) {
      if (handOut.end !== 'unsure') continue
      // The job knows whether the settle whose answer was lost took effect: its result names the attempt.
      const job = await client.expect<{ status: string; result?: Result }>([200], `/v1/jobs/${handOut.job}`, {
        method: 'GET',
      })
      handOut.end = job.status === 'completed' && job.result?.attempt === handOut.attempt ? 'settled' : 'lost'
    }
  },
}))
