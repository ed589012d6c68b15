/** How much of the machine others used while a benchmark ran: what a load average before the first run cannot tell. */
import { readFileSync } from 'node:fs'

/** Linux counts CPU time in hundredths of a second, whatever the kernel's own tick. */
const ticksPerSecond = 100

/** Seconds that all processors were busy, since the machine started. */
function readBusySeconds(): number {
  const [first = ''] = readFileSync('/proc/stat', 'utf8').split('\n')
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = first.split(/\s+/).slice(1).map(Number)
  return (user + nice + system + irq + softirq + steal) / ticksPerSecond
}

/** CPU seconds of this process and of all its children that have ended. */
function readOwnSeconds(): number {
  const stat = readFileSync('/proc/self/stat', 'utf8')
  // The second field, the name, may hold spaces; it ends with the last parenthesis. User, system, and both of children.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0) / ticksPerSecond
}

/**
 * Starts to watch. The returned function says how many processors others kept busy since then, on average; the kernel's
 * own threads count as others, also where they write for us. Null where there is no /proc.
 */
export function watchOthers(): () => number | null {
  try {
    const startedAt = performance.now()
    const busyAtStart = readBusySeconds()
    const ownAtStart = readOwnSeconds()
    return () => {
      const seconds = (performance.now() - startedAt) / 1000
      const others = readBusySeconds() - busyAtStart - (readOwnSeconds() - ownAtStart)
      return Math.max(0, others / seconds)
    }
  } catch {
    return () => null
  }
}
