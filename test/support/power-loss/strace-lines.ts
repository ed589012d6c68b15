/** Reads what `strace -f -xx` prints: one system call a line, or two where another thread came in between. */

export interface SystemCall {
  readonly pid: number
  readonly name: string
  /** As printed, split at the commas between arguments. */
  readonly args: readonly string[]
  /** What it returned; negative where it failed, NaN where the process did not live to see it. */
  readonly result: number
  /** The numbers of the lines where it began and ended; infinite where it did not end. */
  readonly start: number
  readonly end: number
}

/** All calls, in the order in which they ended. */
export async function parseCalls(lines: AsyncIterable<string>): Promise<SystemCall[]> {
  const calls: SystemCall[] = []
  const unfinished = new Map<number, { text: string; start: number }>()
  let number = 0
  const take = (pid: number, text: string, start: number, end: number) => {
    const open = text.indexOf('(')
    // Short calls are padded: `fsync(7)      = 0`.
    const equals = text.lastIndexOf(' = ')
    const close = Number.isFinite(end) ? text.lastIndexOf(')', equals) : text.length
    if (open < 0 || close < 0) return
    const name = text.slice(0, open)
    const result = Number.isFinite(end) ? Number.parseInt(text.slice(equals + 3), 10) : Number.NaN
    calls.push({ pid, name, args: splitArguments(text.slice(open + 1, close)), result, start, end })
  }
  for await (const line of lines) {
    number++
    const space = line.indexOf(' ')
    const pid = Number(line.slice(0, space))
    const text = line.slice(space).trimStart()
    if (text.startsWith('+++') || text.startsWith('---')) continue
    if (text.endsWith(' <unfinished ...>')) {
      unfinished.set(pid, { text: text.slice(0, -' <unfinished ...>'.length), start: number })
      continue
    }
    const resumed = /^<\.\.\. \w+ resumed>/.exec(text)
    if (resumed === null) {
      take(pid, text, number, number)
      continue
    }
    const begun = unfinished.get(pid)
    unfinished.delete(pid)
    if (begun !== undefined) take(pid, begun.text + text.slice(resumed[0].length), begun.start, number)
  }
  for (const [pid, { text, start }] of unfinished) take(pid, text, start, Number.POSITIVE_INFINITY)
  return calls
}

/** Strings hold no comma and no bracket, since all of their bytes are printed in hexadecimal. */
function splitArguments(text: string): string[] {
  const args: string[] = []
  let depth = 0
  let from = 0
  for (let i = 0; i < text.length; i++) {
    const character = text.charCodeAt(i)
    if (character === 0x22) i = text.indexOf('"', i + 1)
    else if (character === 0x5b || character === 0x7b || character === 0x28) depth++
    else if (character === 0x5d || character === 0x7d || character === 0x29) depth--
    else if (character === 0x2c && depth === 0) {
      args.push(text.slice(from, i).trim())
      from = i + 1
    }
    if (i < 0) break
  }
  args.push(text.slice(from).trim())
  return args
}
