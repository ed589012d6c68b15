/** A member of a group on the topic: it takes each event in and settles it. */
import { runConsumer } from './child.ts'
import type { RepositoryEvent } from './deliveries.ts'

await runConsumer(({ name }) => ({
  path: `/v1/topics/events/groups/${name}/leases`,
  handle: ({ payload }) => ({ delivery: (payload as RepositoryEvent).delivery }),
}))
