/** `sluice schedules`: what is scheduled, and when it fires next. */
import type { ScheduleInfo } from '../index.ts'
import type { Command } from './command.ts'
import { PLACE_OPTIONS, withPlace } from './opening.ts'
import { print } from './plain.ts'
import { formatTable } from './table.ts'

export const schedules: Command = {
  name: 'schedules',
  usage: '',
  about: 'Lists the schedules of all queues: when each fires next, when it fired last, and the job of that tick.',
  examples: ['sluice schedules', "sluice schedules --json | jq '.[] | select(.nextAtMs == null)'"],
  options: PLACE_OPTIONS,
  run: (input) =>
    withPlace(input, async (sluice) => {
      const found = await sluice.schedules()
      const text = formatTable(
        ['QUEUE', 'SCHEDULE', 'WHEN', 'MISSED', 'PAYLOAD', 'NEXT', 'LAST', 'JOB'],
        found.map((one) => [
          one.queue,
          one.name,
          whenOf(one),
          one.missed ?? 'one',
          one.isFromCode ? 'from code' : 'stored',
          timeOf(one.nextAtMs),
          timeOf(one.firedAtMs),
          one.jobId ?? '',
        ]),
      )
      print(input.isJson, found, found.length === 0 ? 'No schedules yet.\n' : text)
      return 0
    }),
}

function whenOf({ cron, everyMs, timeZone }: ScheduleInfo): string {
  return cron === undefined ? `every ${everyMs} ms` : `${cron} (${timeZone ?? 'UTC'})`
}

function timeOf(ms: number | null): string {
  return ms === null ? 'never' : new Date(ms).toISOString()
}
