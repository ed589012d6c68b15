/** The log of the server, for people. */
import { escapeControls } from '../server/log-text.ts'

/** A line of the log for people: when, what, why. */
export function formatLogLine(line: string): string {
  const { time, msg, err } = JSON.parse(line) as {
    time: number
    msg?: string
    err?: { message?: string; stack?: string }
  }
  return `${new Date(time).toISOString()} ${escapeControls(msg ?? '')}${err === undefined ? '' : `: ${readableError(err)}`}\n`
}

/** The message on one line, whatever is in it, and below it where it was thrown. */
function readableError({ message = '', stack = '' }: { message?: string; stack?: string }): string {
  const frames = stack.split('\n').filter((line) => /^ {4}at /.test(line))
  return [escapeControls(message), ...frames.map(escapeControls)].join('\n')
}
