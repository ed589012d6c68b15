/** Every scenario, by noun. */
import type { Scenario } from '../scenario.ts'
import { CLOCK_SCENARIOS } from './after-and-on-time.ts'
import { CALL_SCENARIOS } from './call.ts'
import { FLOW_SCENARIOS } from './flow-control.ts'
import { JOB_SCENARIOS } from './job.ts'
import { PERSISTENCE_SCENARIOS } from './persistence.ts'
import { QUEUE_SCENARIOS } from './queue.ts'
import { TOPIC_SCENARIOS } from './topic.ts'

export const SCENARIOS: readonly Scenario[] = [
  ...QUEUE_SCENARIOS,
  ...TOPIC_SCENARIOS,
  ...JOB_SCENARIOS,
  ...CALL_SCENARIOS,
  ...FLOW_SCENARIOS,
  ...PERSISTENCE_SCENARIOS,
  ...CLOCK_SCENARIOS,
]
